"""The task file: a zip of JSON, safetensors and previews, with the sha256 of each. No pickle.

::

    zoo.task
    ├── manifest.json       format, version, sha256 of each other member
    ├── task.json           settings, encoder, classes, examples
    ├── support.safetensors embeddings and labels
    ├── prior.safetensors   tensors of the prior, which was learned from auxiliary tasks
    ├── previews/N.png      a small picture of example N, if it is an image
    ├── undo.json           the task before the last edits, if commands edited it
    └── undo.safetensors    what the task lacks of these: see quickstudy.estimators.history

Members are not compressed, so that a file of a few megabytes cannot unpack into gigabytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from quickstudy import __version__
from quickstudy.core import CheckpointError
from quickstudy.estimators.labels import Label, plain_label
from quickstudy.estimators.schema import LABEL_TYPES, label_of
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import is_task_file, refuse_foreign
from quickstudy.tasks.images import special_file

__all__ = ["FORMAT", "TaskFile", "label_from_json", "label_to_json", "read_task", "write_task"]

FORMAT = 1
"""Number of the file format. Files with a higher number are refused."""

_KIND = "quickstudy task"
_MOST_BYTES = 4 << 30
_JSON, _SUPPORT, _PRIOR, _MANIFEST = (
    "task.json",
    "support.safetensors",
    "prior.safetensors",
    "manifest.json",
)
_UNDO, _UNDO_TENSORS = "undo.json", "undo.safetensors"
# of every member: with a fixed time, the same task gives the same bytes
_MEMBER_TIME = (2020, 1, 1, 0, 0, 0)
_PICTURE = b"\x89PNG"


class TaskFile:
    """The parts of a saved task.

    Args:
        about: JSON-ready settings, classes and examples.
        support: tensors of the support set.
        prior: tensors of the prior.
        previews: PNG bytes by row of the support.
        undo: JSON-ready record of the task before its last edits; ``None`` = there is none.
        undo_tensors: what belongs to it.
    """

    def __init__(
        self,
        about: dict[str, Any],
        support: Mapping[str, Tensor],
        prior: Mapping[str, Tensor],
        previews: Mapping[int, bytes],
        undo: dict[str, Any] | None = None,
        undo_tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.about = about
        self.support = dict(support)
        self.prior = dict(prior)
        self.previews = dict(previews)
        self.undo = undo
        self.undo_tensors = dict(undo_tensors or {})


def label_to_json(label: Label) -> list[Any]:
    """Return the type and value of a label, so that ``1`` and ``"1"`` stay two labels.

    Raises:
        CheckpointError: if a label of this type cannot be saved.
    """
    value = plain_label(label)
    for name, kind in LABEL_TYPES.items():
        if type(value) is kind:
            return [name, value]
    raise CheckpointError(
        f"the label {label!r} is a {type(label).__name__}; labels in a task file must be text, "
        "whole numbers, numbers or truth values. Rename the class first."
    )


def label_from_json(pair: list[Any]) -> Label:
    """Return the label that :func:`label_to_json` wrote.

    Raises:
        ValueError: if it did not write this.
    """
    return label_of(pair)


def write_task(path: Path, task: TaskFile) -> None:
    """Write a task atomically: if two processes save at once, the file is that of one of them.

    Raises:
        ConfigError: if another file that is no task file is there.
        CheckpointError: if the file cannot be written.
    """
    refuse_foreign(path, name="the task file", ours=is_task_file)
    members = {
        _JSON: _to_json(task.about),
        _SUPPORT: save_safetensors({n: v.contiguous() for n, v in task.support.items()}),
        _PRIOR: save_safetensors({n: v.contiguous() for n, v in task.prior.items()}),
        **{f"previews/{row}.png": data for row, data in sorted(task.previews.items())},
    }
    if task.undo is not None:
        members[_UNDO] = _to_json(task.undo)
        members[_UNDO_TENSORS] = save_safetensors(task.undo_tensors)
    manifest = {
        "kind": _KIND,
        "format": FORMAT,
        "quickstudy": __version__,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        first = {_MANIFEST: json.dumps(manifest, indent=1).encode()}
        for name, data in (first | members).items():
            archive.writestr(zipfile.ZipInfo(name, _MEMBER_TIME), data)
    write_atomically(path, buffer.getvalue())


def read_task(path: Path) -> TaskFile:
    """Read a task.

    Raises:
        CheckpointError: if the file is missing, no task file, altered, incomplete, or made by a
            newer version.
    """
    if (kind := special_file(path)) is not None:  # reading it may never end
        raise _foreign(path, f"this is {kind}, not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            _check_length(archive, path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no task file {path}. Make one with 'quickstudy fit' or clf.save()."
        ) from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise _foreign(path, str(error) or type(error).__name__) from error
    try:
        undo = _UNDO in members
        return TaskFile(
            _from_json(members[_JSON]),
            load_safetensors(members[_SUPPORT]),
            load_safetensors(members[_PRIOR]),
            _previews(members),
            _from_json(members[_UNDO]) if undo else None,
            load_safetensors(members[_UNDO_TENSORS]) if undo else None,
        )
    except (KeyError, ValueError, TypeError, SafetensorError, RecursionError) as error:
        raise _foreign(path, str(error)) from error


def _to_json(value: Any) -> bytes:
    # names of files need not be valid Unicode: what stands for their odd bytes is kept
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def _from_json(data: bytes) -> Any:
    """Return a JSON object.

    Raises:
        ValueError: if it is none, or holds NaN or infinity.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}")

    found = json.loads(data, parse_constant=refuse)
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def _previews(members: Mapping[str, bytes]) -> dict[int, bytes]:
    """Return the pictures by row.

    Raises:
        ValueError: if a name is no row, or a file is no PNG.
    """
    found = {}
    for name, data in members.items():
        if not name.startswith("previews/"):
            continue
        row = int(Path(name).stem)
        if name != f"previews/{row}.png" or row < 0 or not data.startswith(_PICTURE):
            raise ValueError(f"{name[:60]} is no picture of an example")
        found[row] = data
    return found


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, bytes]:
    """Return the contents of every member but the manifest, after checking their hashes.

    Raises:
        CheckpointError: if they do not fit the manifest, or this is no task file.
    """
    entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
        raise _foreign(path, "its members are compressed or encrypted")
    if sum(e.file_size for e in entries) > _MOST_BYTES:
        raise _foreign(path, f"it is larger than {_MOST_BYTES >> 30} GB")
    names = [e.filename for e in entries]
    if len(set(names)) != len(names) or _MANIFEST not in names:
        raise _foreign(path, f"it has no {_MANIFEST}, or two members of one name")
    try:
        manifest = json.loads(archive.read(_MANIFEST))
        kind, version, hashes = manifest["kind"], manifest["format"], manifest["sha256"]
        made_by = str(manifest["quickstudy"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _foreign(path, f"its {_MANIFEST} cannot be read") from error
    whole = isinstance(version, int) and not isinstance(version, bool) and version > 0
    if kind != _KIND or not whole or not isinstance(hashes, dict):
        raise _foreign(path, f"its {_MANIFEST} is not one of ours")
    if version > FORMAT:
        raise CheckpointError(
            f"{path} was made by Quickstudy {made_by} in format {version}; this is Quickstudy "
            f"{__version__}, which reads formats up to {FORMAT}. Upgrade: pip install -U quickstudy"
        )
    members = {name: archive.read(name) for name in names if name != _MANIFEST}
    found = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    if found != hashes:
        changed = sorted(n for n in found.keys() | hashes.keys() if found.get(n) != hashes.get(n))
        raise CheckpointError(
            f"{path} was altered after it was saved: {', '.join(changed[:3])} does not fit its "
            "sha256. Use a copy that was not altered."
        )
    return members


def _check_length(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse bytes before, between or after the members, which no hash covers."""
    entries, size = archive.infolist(), path.stat().st_size
    # a zip has for each member a local header of 30 bytes and a directory entry of 46, both with
    # its name, and at the end a record of 22
    wanted = sum(30 + 46 + 2 * len(e.filename.encode()) + e.file_size for e in entries) + 22
    if size != wanted:
        raise _foreign(path, f"it has {size} bytes, but its members make {wanted}")


def _foreign(path: Path, why: str) -> CheckpointError:
    """Return the error about a file that is damaged, or no task file."""
    return CheckpointError(
        f"{path} is damaged or not a task file of Quickstudy ({why}). Use another copy, or make "
        "it again with 'quickstudy fit'."
    )

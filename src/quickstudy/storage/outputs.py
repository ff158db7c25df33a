"""Files to write are looked at before the work: what somebody else made is never written over.

An existing file may be replaced only if Quickstudy wrote it, which its contents say, never its
name. A recogniser is a function that looks at a file and says so; each kind of output has one.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import mmap
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from quickstudy.core import ConfigError

__all__ = [
    "Recogniser",
    "answers_with",
    "check_output",
    "check_output_folder",
    "is_comparison_folder",
    "is_episode_list",
    "is_graph",
    "is_page",
    "is_run_folder",
    "is_task_file",
    "refuse_foreign",
]

Recogniser = Callable[[Path], bool]
"""Tells whether Quickstudy wrote an existing file; may raise any error for a file that it cannot
read, which counts as no."""

_HEAD_BYTES = 1 << 16
# the second is how the title ended before pages named what made them
_PAGE_MARKS = (b'<meta name="generator" content="quickstudy', " – Quickstudy</title>".encode())
_TASK_KIND = "quickstudy task"
# an entry of the metadata of an ONNX graph, as protobuf writes it: key, then a length, then value
_GRAPH_MARK, _GRAPH_VALUE = b"\n\x07made_by\x12", b"quickstudy "
_ANSWER_COLUMNS = ("label", "nearest", "probability", "known")
# what a training may have written before its recipe
_RUN_FILES = (
    *("checkpoint.safetensors", "model.safetensors", "curve.jsonl", "log.jsonl", "events.out"),
    *("run.lock", "data.npz"),
)
_CELL_FILE = r"[0-9a-f]{32}\.(npy|json)(\..*tmp)?"
_EPISODE_ARRAYS = ("about.npy", "support.npy", "query.npy", "digests.npy")


def check_output(
    path: str | os.PathLike[str],
    *,
    name: str = "out",
    inputs: Iterable[str | os.PathLike[str]] = (),
    ours: Recogniser | None = None,
) -> Path:
    """Return the path of a file to write, after checking that nothing of the user's is lost there.

    Call it before the work: it also tries whether the place can be written to.

    Args:
        path: of the file.
        name: of the argument or option, for errors.
        inputs: files and folders that are read; what is no path of a file here is passed over.
        ours: tells whether an existing file may be replaced; ``None`` = none may.

    Raises:
        ConfigError: if the path is one of the inputs or lies deep inside one, is a folder, a
            device, a broken link or a file that is not ours, or cannot be written.
    """
    target = _as_path(path, name)
    said = f"{name} {target}"
    status = _status(target, said)
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{said} is a folder; name a file in it.")
    _refuse_inputs(target, said, inputs)
    _refuse_foreign(target, said, status, ours)
    _try_to_write(target, said)
    return target


def refuse_foreign(path: str | os.PathLike[str], *, name: str = "out", ours: Recogniser) -> Path:
    """Return the path of a file to write, after checking that nothing but ours is replaced there.

    For functions that write a file; :func:`check_output` is for what works for long before.

    Args:
        path: of the file.
        name: of the argument, for errors.
        ours: tells whether an existing file may be replaced.

    Raises:
        ConfigError: if it is a device, a broken link or a file that is not ours.
    """
    target = _as_path(path, name)
    said = f"{name} {target}"
    status = _status(target, said)
    if status is None or not stat.S_ISDIR(status.st_mode):  # writing into a folder fails anyway
        _refuse_foreign(target, said, status, ours)
    return target


def check_output_folder(
    path: str | os.PathLike[str],
    *,
    name: str = "out",
    inputs: Iterable[str | os.PathLike[str]] = (),
    ours: Recogniser | None = None,
) -> Path:
    """Return the path of a folder to write into, after checking that it holds nothing else.

    Args:
        path: of the folder; it may not exist yet.
        name: of the argument or option, for errors.
        inputs: files and folders that are read.
        ours: tells whether a folder that is not empty may be written into.

    Raises:
        ConfigError: if the folder is one of the inputs or lies deep inside one, is a file, holds
            what is not ours, or cannot be written.
    """
    target = _as_path(path, name)
    said = f"{name} {target}"
    status = _status(target, said)
    if status is not None and not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{said} is a file; name a folder.")
    _refuse_inputs(target, said, inputs)
    if status is not None and any(target.iterdir()) and not _recognised(target, ours):
        raise ConfigError(
            f"{said} is a folder that holds other things. Name a new or an empty folder."
        )
    _try_to_write(target / "new", said)
    return target


def is_page(path: Path) -> bool:
    """Return whether the file is a page that Quickstudy wrote."""
    head = _head(path)
    return any(mark in head for mark in _PAGE_MARKS)


def is_task_file(path: Path) -> bool:
    """Return whether the file is a task file, damaged or not."""
    head = _head(path)
    if head.startswith(b"PK") and f'"kind": "{_TASK_KIND}"'.encode() in head:
        return True  # its first member, which is not compressed; the rest may be missing
    with zipfile.ZipFile(path) as archive:
        return bool(json.loads(archive.read("manifest.json"))["kind"] == _TASK_KIND)


def is_graph(path: Path) -> bool:
    """Return whether the file is an ONNX graph that Quickstudy exported."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_GRAPH_MARK)
        if at < 0:
            return False
        value = at + len(_GRAPH_MARK) + 1  # one byte of length: the value is short
        return data[value : value + len(_GRAPH_VALUE)] == _GRAPH_VALUE


def is_episode_list(path: Path) -> bool:
    """Return whether the file is a published list of episodes."""
    with zipfile.ZipFile(path) as archive:
        return set(_EPISODE_ARRAYS) <= set(archive.namelist())


def is_run_folder(path: Path) -> bool:
    """Return whether the folder is one that a training writes into, also if it stopped early."""
    names = {entry.name for entry in path.iterdir()}
    if "recipe.json" in names:
        document = json.loads((path / "recipe.json").read_text(encoding="utf-8"))
        return isinstance(document, dict) and "recipe" in document
    return all(name.startswith(_RUN_FILES) for name in names)


def is_comparison_folder(path: Path) -> bool:
    """Return whether the folder is one that a comparison writes into, also if it stopped early."""
    names = {entry.name for entry in path.iterdir()}
    return "cells" in names and all(
        re.fullmatch(_CELL_FILE, entry.name) for entry in (path / "cells").iterdir()
    )


def answers_with(*columns: str) -> Recogniser:
    """Return the recogniser of a table that has these columns: CSV, JSON lines or Parquet.

    Args:
        columns: names that only our tables have together; by default those of answers.
    """
    wanted = set(columns or _ANSWER_COLUMNS)
    return lambda path: wanted <= _columns(path)


def _refuse_foreign(
    target: Path, said: str, status: os.stat_result | None, ours: Recogniser | None
) -> None:
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{said} is no ordinary file (a device, a pipe). Name another place.")
    if status is not None and status.st_size and not _recognised(target, ours):
        raise ConfigError(
            f"{said} exists and Quickstudy did not write it, or not as a file of this kind. Name "
            "another place, or remove it first."
        )


def _as_path(path: object, name: str) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"{name} is the path of a file; got {path!r}.")
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(f"{name} is the path of a file; got {text!r}.")
    return Path(text)


def _status(target: Path, said: str) -> os.stat_result | None:
    """Return what is at the path, through links; ``None`` if nothing is."""
    try:
        return target.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise ConfigError(f"{said}: {error.strerror}. Name another place.") from error
    if os.path.lexists(target):
        raise ConfigError(f"{said} is a link that leads nowhere. Name another place.")
    return None


def _refuse_inputs(target: Path, said: str, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse a path that is an input, by whatever name, or lies in a folder inside an input."""
    for given in inputs:
        if not str(given):
            continue
        source = Path(given)
        if _same(target, source):
            raise ConfigError(f"{said} is what is read here. Name another file to write.")
        # directly in the folder nothing is taken for an example: each class is a folder there
        above = Path(os.path.realpath(target)).parents[1:]
        if _is_folder(source) and any(_same(folder, source) for folder in above):
            raise ConfigError(
                f"{said} lies in a folder of {source}, among what is read here. Name a place "
                "outside."
            )


def _is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # too long for a path, or not one at all
        return path.is_dir()
    return False


def _same(a: Path, b: Path) -> bool:
    """Return whether two paths name one file: links and letter case of the file system count."""
    with contextlib.suppress(OSError, ValueError):
        # samefile follows hard links too, but both must exist
        if os.path.lexists(a) and os.path.lexists(b) and a.samefile(b):
            return True
        return os.path.realpath(a) == os.path.realpath(b)
    return False


def _recognised(path: Path, ours: Recogniser | None) -> bool:
    # a file of any kind may lie there: whatever a recogniser stumbles over, the file is not ours
    with contextlib.suppress(Exception):
        return ours is not None and ours(path)
    return False


def _try_to_write(target: Path, said: str) -> None:
    """Write a few bytes to a nameless file in the folder, or in the nearest one that exists."""
    nearest = next(folder for folder in target.absolute().parents if os.path.lexists(folder))
    if not nearest.is_dir():
        raise ConfigError(f"{said}: {nearest} is a file, not a folder. Name another place.")
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"quickstudy")
    except OSError as error:
        raise ConfigError(
            f"{said}: {nearest} cannot be written to ({error.strerror}). Name another place."
        ) from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _columns(path: Path) -> set[str]:
    """Return the names of the columns of a table."""
    head = _head(path)
    if head.startswith(b"PAR1"):
        import pyarrow.parquet as parquet  # here: no other output needs it

        return set(parquet.read_schema(path).names)
    line = head.decode("utf-8-sig", "replace").splitlines()[0]
    return set(json.loads(line) if line.startswith("{") else next(csv.reader([line])))

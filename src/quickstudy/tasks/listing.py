"""What a folder holds: the images that can be read, and everything else with the reason.

Every command looks through folders with :func:`folder_contents`, so all of them read the same
files and tell of the same files that they do not read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from quickstudy.core import DataError
from quickstudy.core.words import count, printable, shortened
from quickstudy.tasks.images import IMAGE_SUFFIXES, begins_as_image, special_file

__all__ = ["DAMAGED", "FolderContents", "find_images", "folder_contents", "not_read"]

_NodeId = tuple[int, int]

DAMAGED = "damaged or no image"
"""Why a file with the ending of an image is not read."""

_NO_FORMAT = "not an image format that is read"
_EMPTY = "empty"
_HIDDEN = "hidden"
_MAC = "made by macOS for itself"
_NOWHERE = "a link that leads nowhere"
_CIRCLE = "linked in a circle"
_CLOSED = "no permission to read"
_MOST_NAMED = 3  # files of one reason that are named
_MOST_REASONS = 8  # in one sentence
_LONGEST_NAME, _LONGEST_ENDING = 40, 12  # in characters


@dataclass(frozen=True)
class FolderContents:
    """What a folder holds, by sorted paths below it.

    Args:
        root: the folder.
        images: files that have the ending and the first bytes of an image; the rest of a file may
            be damaged.
        damaged: files that have the ending of an image and cannot be read, and why.
        others: everything else that is not read, and why; a hidden or closed folder counts once.
        empty: folders directly in ``root`` in which there is nothing with the ending of an image.

    Example::

        from quickstudy.tasks.listing import folder_contents
        Path("photos/koala").mkdir(parents=True)
        Path("photos/koala/notes.txt").write_text("two ears")
        contents = folder_contents("photos")
        print(contents.images, contents.note())
    """

    root: Path
    images: tuple[str, ...]
    damaged: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()

    @cached_property
    def by_ending(self) -> tuple[str, ...]:
        """All files that have the ending of an image, damaged or not."""
        return tuple(sorted((*self.images, *self.damaged)))

    @property
    def loose(self) -> tuple[str, ...]:
        """Images that lie directly in the folder, in no class folder."""
        return tuple(name for name in self.images if "/" not in name)

    def note(self, *, damaged: bool = True, loose: bool = False) -> str:
        """Return a sentence about what is not read; empty if everything is.

        Args:
            damaged: whether the damaged files are left out, and so belong into the sentence.
            loose: whether the images outside of class folders are left out too.
        """
        left_out = dict(self.others)
        if damaged:
            left_out |= self.damaged
        if loose:
            left_out |= dict.fromkeys(self.loose, "in no class folder")
        return not_read(left_out)


def not_read(reasons: Mapping[str, str]) -> str:
    """Return a sentence that counts files that were not read, by reason; empty if there are none.

    For example ``"3 files were not read: 1 .heic, 1 .txt (not an image format that is read); 1 .jpg
    (empty: koala/4.jpg)."``

    Args:
        reasons: why each was not read, by name.
    """
    if not reasons:
        return ""
    names: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items()):
        names.setdefault(reason, []).append(name)
    groups = sorted(names.items(), key=lambda group: -len(group[1]))
    parts = []
    for reason, files in groups[:_MOST_REASONS]:
        endings = Counter(map(_ending, files)).most_common()
        counts = [f"{n:,} {ending}" for ending, n in endings[:_MOST_NAMED]]
        if rest := sum(n for _, n in endings[_MOST_NAMED:]):
            counts.append(f"{rest:,} others")
        shown = ", ".join(shortened(printable(file), _LONGEST_NAME) for file in files[:_MOST_NAMED])
        shown += ", ..." if len(files) > _MOST_NAMED else ""
        if reason in (_HIDDEN, _MAC, _CIRCLE):
            parts.append(f"{len(files):,} {reason} ({shown})")
        else:
            # of another format the ending says it all; of a damaged file one wants to know which
            about = reason if reason == _NO_FORMAT else f"{reason}: {shown}"
            parts.append(f"{', '.join(counts)} ({about})")
    if rest := sum(len(files) for _, files in groups[_MOST_REASONS:]):
        parts.append(f"{rest:,} for other reasons")
    were = "was" if len(reasons) == 1 else "were"
    return f"{count(len(reasons), 'file')} {were} not read: {'; '.join(parts)}."


def _ending(name: str) -> str:
    """Return the ending of a file's name for people, or what to call a file without one."""
    return shortened(printable(Path(name).suffix.lower()), _LONGEST_ENDING) or "without an ending"


def find_images(root: Path) -> tuple[list[str], int]:
    """Return the images below ``root`` as sorted relative paths, and the number of other files.

    Damaged files are among the images, so that they are named when they are read.
    """
    contents = folder_contents(root)
    return list(contents.by_ending), len(contents.others)


def folder_contents(root: str | Path) -> FolderContents:
    """Return what a folder holds, with all its subfolders.

    Links to folders are followed, but not in circles. Hidden files and folders are not read, nor
    the folder ``__MACOSX``. An image is known by its ending, in any case, and by its first bytes.

    Raises:
        DataError: if there is no such folder, or it cannot be listed.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{printable(root)}: there is no such folder. Check the path.")
    if not root.is_dir():
        raise DataError(
            f"{printable(root)}: this is a file, not a folder. Give a folder of class folders, or "
            "use pool_from_parquet for a Parquet file."
        )
    resolved = root.resolve()
    above = frozenset(_node(folder) for folder in (resolved, *resolved.parents))
    images: list[str] = []
    damaged: dict[str, str] = {}
    others: dict[str, str] = {}
    folders: list[str] = []
    for name, reason in _walk(root, above, folders):
        if reason is None and (kind := special_file(root / name)) is not None:
            reason = f"{kind}, not a file"
        if reason is not None or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            others[name] = reason or _NO_FORMAT
        elif (fault := _fault(root / name)) is not None:
            damaged[name] = fault
        else:
            images.append(name)
    held = {name.split("/")[0] for name in (*images, *damaged)}
    empty = tuple(sorted(name for name in folders if name not in held))
    return FolderContents(root, tuple(sorted(images)), dict(sorted(damaged.items())), others, empty)


def _walk(
    root: Path, above: frozenset[_NodeId], folders: list[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield the path of each file, and the reason if it is not to be read.

    Args:
        root: where to look, with all its subfolders.
        above: this folder and those around it; a link to one of them is not followed.
        folders: gets the names of the folders directly in ``root``.
    """
    # a list of what is still to do, not recursion: folders can be nested deeper than Python's stack
    waiting = [(root, "", above)]
    while waiting:
        folder, prefix, around = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise DataError(
                    f"{printable(folder)}: cannot be listed ({error.strerror}). Change its rights."
                ) from error
            yield (
                prefix.rstrip("/"),
                _CLOSED
                if isinstance(error, PermissionError)
                else (f"cannot be listed: {error.strerror}"),
            )
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.name == "__MACOSX" or entry.name.startswith("."):
                yield name, _MAC if entry.name == "__MACOSX" else _HIDDEN
                continue
            try:
                is_folder = entry.is_dir()
                there = is_folder or Path(entry.path).exists()
                node = _node(Path(entry.path)) if is_folder else None
            except OSError:  # a link to itself, or in a folder that may be listed and not entered
                is_folder, there, node = False, False, None
            if node is not None and node in around:
                yield name, _CIRCLE
            elif node is not None:
                if not prefix:
                    folders.append(entry.name)
                waiting.append((Path(entry.path), f"{name}/", around | {node}))
            else:
                yield name, None if there else _NOWHERE if entry.is_symlink() else _CLOSED


def _fault(path: Path) -> str | None:
    """Return why a file with the ending of an image is none, as far as its first bytes tell."""
    try:
        with path.open("rb") as file:
            prefix = file.read(16)
    except OSError as error:
        if isinstance(error, PermissionError):
            return _CLOSED
        return f"cannot be read: {error.strerror}"
    if not prefix:
        return _EMPTY
    return None if begins_as_image(prefix) else DAMAGED


def _node(folder: Path) -> _NodeId:
    """Return what identifies a folder, by whatever link it is reached."""
    status = folder.stat()
    return status.st_dev, status.st_ino

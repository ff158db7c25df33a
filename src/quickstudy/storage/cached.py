"""What the cache folder holds, by kind, and how to empty it.

Only what Quickstudy can make again is ever deleted: embeddings, decoded images, checksums. Data
sets may lie in the same folder, downloaded or put there by the user; they are listed and stay.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError, nearest_names
from quickstudy.storage.places import cache_home

__all__ = ["CACHE_KINDS", "CachePart", "cache_parts", "clear_cache"]

# by kind: what it is, and which files below the cache folder it consists of
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "embeddings": (
        "embeddings of images and texts, under a hash of their content",
        ("embeddings/embeddings-*.sqlite3*",),
    ),
    "images": ("decoded images of data sets", ("pools/*.safetensors", "pools/*.part")),
    "checksums": ("checksums of data files that were read", ("checksums.json",)),
}
CACHE_KINDS = tuple(_KINDS)
"""What :func:`clear_cache` can delete."""

_KEPT = "data"
_KEPT_MEANING = "data sets and notes on your own code, which are never deleted"


@dataclass(frozen=True, slots=True)
class CachePart:
    """What the cache folder holds of one kind.

    Args:
        kind: ``"embeddings"``, ``"images"``, ``"checksums"`` or ``"data"``.
        meaning: the kind in words.
        files: its files.
        n_bytes: their size.
        entries: how many embeddings there are; of other kinds the number of files.
    """

    kind: str
    meaning: str
    files: tuple[Path, ...]
    n_bytes: int
    entries: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "kind": self.kind,
            "meaning": self.meaning,
            "files": len(self.files),
            "bytes": self.n_bytes,
            "entries": self.entries,
        }


def cache_parts() -> list[CachePart]:
    """Return what the cache folder holds, each kind once, also those of which there is nothing.

    Raises:
        DataError: if the user has no home folder.
    """
    root = cache_home()
    found: dict[str, list[Path]] = {kind: [] for kind in (*_KINDS, _KEPT)}
    for file in _files(root):  # all of them first: to count embeddings makes a log beside them
        place = file.relative_to(root)
        kinds = (k for k, (_, patterns) in _KINDS.items() if _is_one(place, patterns))
        kind = next(kinds, _KEPT) if file.is_file() and not file.is_symlink() else _KEPT
        found[kind].append(file)
    meanings = {kind: meaning for kind, (meaning, _) in _KINDS.items()} | {_KEPT: _KEPT_MEANING}
    return [_part(kind, meanings[kind], tuple(files)) for kind, files in found.items()]


def clear_cache(kinds: Sequence[str] = CACHE_KINDS) -> int:
    """Delete what can be made again, and return how many bytes that frees.

    Programs that use the cache at the same time go on, and compute again what they miss.

    Args:
        kinds: of :data:`CACHE_KINDS`.

    Raises:
        ConfigError: if there is no such kind, or it is never deleted.
        DataError: if the user has no home folder.
    """
    if isinstance(kinds, str):
        kinds = (kinds,)
    for kind in kinds:
        if kind not in _KINDS:
            why = "is never deleted" if kind == _KEPT else "is no kind of what is cached"
            raise ConfigError(f"{kind!r} {why}. {nearest_names(str(kind), CACHE_KINDS)}")
    freed = 0
    for part in cache_parts():
        for file in part.files if part.kind in kinds else ():
            with contextlib.suppress(OSError):
                size = file.lstat().st_size
                file.unlink()
                freed += size
    return freed


def _part(kind: str, meaning: str, files: tuple[Path, ...]) -> CachePart:
    entries = sum(map(_rows, files)) if kind == "embeddings" else len(files)
    return CachePart(kind, meaning, files, sum(map(_size, files)), entries)


def _is_one(place: Path, patterns: Sequence[str]) -> bool:
    """Return whether a path below the cache folder fits a pattern, in exactly that folder."""
    return any(place.parent == Path(p).parent and place.match(p) for p in patterns)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; links are not followed, and closed folders are left out."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        else:
            yield entry


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # deleted meanwhile
        return 0


def _rows(file: Path) -> int:
    """Return how many embeddings a database holds; 0 if it cannot be read, or is its log."""
    if file.suffix != ".sqlite3":
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT COUNT(*) FROM embeddings").fetchone()[0])
    except sqlite3.Error:
        return 0

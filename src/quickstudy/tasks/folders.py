"""Pools from folders: a folder per class, or a folder of images with a CSV of their labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from quickstudy.core import ConfigError, DataError, nearest_names
from quickstudy.tasks.images import IMAGE_SUFFIXES, decode_many
from quickstudy.tasks.pool import Pool

__all__ = [
    "FolderReading",
    "find_images",
    "is_folder",
    "pool_from_csv",
    "pool_from_folder",
    "read_folder",
    "split_folders",
]

_NodeId = tuple[int, int]
_PART_NAMES = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")


def pool_from_folder(
    path: str | Path,
    *,
    size: int = 84,
    channels: int = 3,
    invert: bool = False,
    name: str | None = None,
    split: str = "all",
    min_per_class: int = 1,
    on_error: str = "raise",
) -> Pool:
    """Return a pool from class folders of images.

    A class is a folder that directly holds images; its name is its path below ``path``
    (``koala``, ``Greek/character01``). Hidden files and files without the ending of an image are
    skipped. Links to folders are followed, but not in circles.

    Args:
        path: the folder.
        size: height and width of the images in pixels.
        channels: 1 (grey) or 3 (RGB).
        invert: whether to swap dark and bright, for ink on paper.
        name: data set for reports; the folder's name by default.
        split: which part of the data set this is.
        min_per_class: leave out classes with fewer images.
        on_error: ``"raise"`` stops at an image that cannot be read or lies in no class folder,
            ``"skip"`` leaves it out.

    Returns:
        Pool with ``x`` uint8 ``[M, channels, size, size]``.

    Raises:
        DataError: if the folder is missing, has no images or only one class, or an image cannot be
            read.
    """
    root = Path(path)
    name = name or root.resolve().name or "folder"
    files, others = find_images(root)
    loose = [file for file in files if "/" not in file]
    if loose and on_error == "raise":
        raise DataError(
            f"{root}: {len(loose)} image(s) lie directly in it, in no class folder (first: "
            f"{loose[0]}). Put them into one folder per class, or take them away. In Python, "
            "pool_from_csv reads a table of files and labels, and on_error='skip' leaves them out."
        )
    labelled = [(file, file.rsplit("/", 1)[0]) for file in files if "/" in file]
    if not labelled:
        raise DataError(
            f"{root}: no images in class folders (looked for {', '.join(sorted(IMAGE_SUFFIXES))}; "
            f"found {others} other file(s)). Make one folder of images per class."
        )
    pool, _ = _build(
        root,
        labelled,
        size=size,
        channels=channels,
        invert=invert,
        name=name,
        split=split,
        min_per_class=min_per_class,
        on_error=on_error,
    )
    return pool


@dataclass(frozen=True, slots=True)
class FolderReading:
    """What could be read of a folder, and what could not.

    Args:
        pool: the images.
        files: for each row of the pool its path below the folder.
        unreadable: images that cannot be read.
        passed_over: files without the ending of an image, and images in no class folder.
        empty: folders without any image.
    """

    pool: Pool
    files: tuple[str, ...]
    unreadable: tuple[str, ...]
    passed_over: tuple[str, ...]
    empty: tuple[str, ...]


def read_folder(
    path: str | Path, *, size: int = 84, channels: int = 3, name: str, split: str = "all"
) -> FolderReading:
    """Return a pool of all images that can be read, and the names of what was left out.

    Args:
        path: folder of class folders.
        size: height and width of the images in pixels.
        channels: 1 (grey) or 3 (RGB).
        name: data set for reports.
        split: which part of the data set this is.

    Raises:
        DataError: if the folder is missing, or holds less than two classes of readable images.
    """
    root = Path(path)
    images, others = _listed(root)
    inside = [file for file in images if "/" in file]
    pool, files = _build(
        root,
        [(file, file.rsplit("/", 1)[0]) for file in inside],
        size=size,
        channels=channels,
        invert=False,
        name=name,
        split=split,
        min_per_class=1,
        on_error="skip",
    )
    held = {file.split("/")[0] for file in inside}
    folders = [f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")]
    read = set(files)
    return FolderReading(
        pool,
        tuple(files),
        tuple(file for file in inside if file not in read),
        tuple(sorted([*others, *(file for file in images if "/" not in file)])),
        tuple(sorted(name for name in folders if name not in held and name != "__MACOSX")),
    )


def pool_from_csv(
    folder: str | Path,
    table: str | Path,
    *,
    size: int = 84,
    channels: int = 3,
    invert: bool = False,
    name: str | None = None,
    split: str = "all",
    filename: str = "filename",
    label: str = "label",
    min_per_class: int = 1,
    on_error: str = "raise",
) -> Pool:
    """Return a pool from a CSV of file names and labels, as miniImageNet is published.

    Args:
        folder: where the images lie, directly or in a subfolder ``images``.
        table: CSV with a header; a relative path is looked for in ``folder`` too.
        size: height and width of the images in pixels.
        channels: 1 (grey) or 3 (RGB).
        invert: whether to swap dark and bright.
        name: data set for reports; the folder's name by default.
        split: which part of the data set this is, for example ``"train"``.
        filename: name of the column of file names.
        label: name of the column of labels.
        min_per_class: leave out classes with fewer images.
        on_error: ``"raise"`` or ``"skip"``, for images that are missing or cannot be read.

    Returns:
        Pool with ``x`` uint8 ``[M, channels, size, size]``.

    Raises:
        DataError: if the CSV or an image cannot be read, a column is missing or a name points
            outside ``folder``.
    """
    root, source = Path(folder), Path(table)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. Check the path.")
    if not source.is_file() and (root / source).is_file():
        source = root / source
    images = root / "images"
    labelled = []
    for line, file, text in _read_rows(source, filename, label):
        pure = PurePosixPath(file)
        if not file or pure.is_absolute() or ".." in pure.parts or "\\" in file:
            raise DataError(
                f"{source}, line {line}: the file name {file!r} is not a path below {root}. "
                f"Correct it."
            )
        labelled.append((f"images/{file}" if (images / file).is_file() else file, text))
    if not labelled:
        raise DataError(f"{source}: the table has no rows. Give one row per image.")
    pool, _ = _build(
        root,
        labelled,
        size=size,
        channels=channels,
        invert=invert,
        name=name or root.resolve().name,
        split=split,
        min_per_class=min_per_class,
        on_error=on_error,
    )
    return pool


def _build(
    root: Path,
    labelled: list[tuple[str, str]],
    *,
    size: int,
    channels: int,
    invert: bool,
    name: str,
    split: str,
    min_per_class: int,
    on_error: str,
) -> tuple[Pool, list[str]]:
    """Decode ``(file, label)`` pairs without the small classes; one class alone is an error.

    Returns:
        The pool, and the file of each of its rows.
    """
    if min_per_class < 1:
        raise ConfigError(f"min_per_class must be at least 1; got {min_per_class}.")
    labelled = _large_classes(root, labelled, min_per_class)
    x, kept = decode_many(
        [(str(root / file), root / file) for file, _ in labelled],
        size=size,
        channels=channels,
        invert=invert,
        label=f"decoding {name}",
        on_error=on_error,
    )
    readable = [labelled[i] for i in kept]
    if len(readable) < len(labelled):  # unreadable images may have left a class too small
        counts = Counter(label for _, label in readable)
        rows = [i for i, (_, label) in enumerate(readable) if counts[label] >= min_per_class]
        x, readable = x[rows], [readable[i] for i in rows]
        _large_classes(root, readable, min_per_class)
    pool = Pool.build(x, [label for _, label in readable], name=name, split=split)
    # a pool sorts its rows by class, and a stable sort does the same to the files
    return pool, [file for file, _ in sorted(readable, key=lambda pair: pair[1])]


def _large_classes(
    root: Path, labelled: list[tuple[str, str]], min_per_class: int
) -> list[tuple[str, str]]:
    """Return the ``(file, label)`` pairs of the classes that are large enough, at least two."""
    counts = Counter(label for _, label in labelled)
    large = {label for label, count in counts.items() if count >= min_per_class}
    if len(large) < 2:
        seen = ", ".join(f"{c!r} ({n} images)" for c, n in counts.most_common(3)) or "none"
        raise DataError(
            f"{root}: a task needs at least two classes with {min_per_class} or more readable "
            f"images; found {len(large)} (largest: {seen}). "
            + (
                "This is a folder with one class: give the folder above it, or add folders."
                if len(counts) == 1
                else "Add images or lower min_per_class."
            )
        )
    return [pair for pair in labelled if pair[1] in large]


def split_folders(root: Path) -> dict[str, Path]:
    """Return the part folders of a data set by their names in lower case, training first.

    Args:
        root: a folder.

    Returns:
        Empty unless the folder holds two or more of ``train/``, ``val/``, ``test/`` and the like,
        with class folders of images in each.
    """
    inside = [folder for folder in root.iterdir() if folder.is_dir()]
    parts = {folder.name.lower(): folder for folder in inside if folder.name.lower() in _PART_NAMES}
    split = len(parts) > 1 and all(
        any("/" in file for file in find_images(part)[0]) for part in parts.values()
    )
    return dict(sorted(parts.items(), key=lambda p: _PART_NAMES.index(p[0]))) if split else {}


def find_images(root: Path) -> tuple[list[str], int]:
    """Return the images below ``root`` as sorted relative paths, and the number of other files."""
    files, others = _listed(root)
    return files, len(others)


def _listed(root: Path) -> tuple[list[str], list[str]]:
    """Return the images below ``root`` and the other files, as sorted relative paths."""
    if not root.exists():
        raise DataError(f"{root}: there is no such folder. Check the path.")
    if not root.is_dir():
        raise DataError(
            f"{root}: this is a file, not a folder. Give a folder of class folders, or use "
            "pool_from_parquet for a Parquet file."
        )
    resolved = root.resolve()
    above = frozenset(_node(folder) for folder in (resolved, *resolved.parents))
    files: list[str] = []
    others: list[str] = []
    for file, there in _walk(root, "", above):
        known = there and Path(file).suffix.lower() in IMAGE_SUFFIXES
        (files if known else others).append(file)
    return sorted(files), sorted(others)


def _walk(folder: Path, prefix: str, above: frozenset[_NodeId]) -> Iterator[tuple[str, bool]]:
    """Yield the path of each visible file, and whether the file exists, as a link may be broken.

    Args:
        folder: where to look, with all its subfolders.
        prefix: path of this folder below the root, put before each name.
        above: this folder and those around it; a link to one of them is not followed.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}). Change its rights."
        ) from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_file():
            yield prefix + entry.name, True
        elif entry.is_dir():
            node = _node(Path(entry.path))
            if node not in above:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above | {node})
        elif entry.is_symlink():
            yield prefix + entry.name, False


def _node(folder: Path) -> _NodeId:
    """Return what identifies a folder, by whatever link it is reached."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _read_rows(source: Path, filename: str, label: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, file name and label of each row."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            columns = rows.fieldnames or []
            for column in (filename, label):
                if column not in columns:
                    raise DataError(
                        f"{source}: there is no column {column!r}. {nearest_names(column, columns)}"
                    )
            for row in rows:
                text = (row[label] or "").strip()
                if not text:
                    raise DataError(
                        f"{source}, line {rows.line_num}: the label is empty. Fill it in."
                    )
                yield rows.line_num, (row[filename] or "").strip(), text
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: cannot be read as a CSV ({error}). Check the file.") from error


def is_folder(data: str) -> bool:
    """Return whether a text means a folder of class folders, not a named data set."""
    return Path(data).is_dir() or "/" in data or data.startswith(".")

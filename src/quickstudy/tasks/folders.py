"""Pools from folders: a folder per class, or a folder of images with a CSV of their labels."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from quickstudy.core import ConfigError, DataError, nearest_names
from quickstudy.core.words import printable, quiet
from quickstudy.tasks.images import IMAGE_SUFFIXES, decode_many
from quickstudy.tasks.listing import DAMAGED, FolderContents, find_images, folder_contents, not_read
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
    say: Callable[[str], None] = quiet,
) -> Pool:
    """Return a pool from class folders of images.

    A class is a folder that directly holds images; its name is its path below ``path``
    (``koala``, ``Greek/character01``). What else the folder holds is not read, see
    :func:`quickstudy.tasks.listing.folder_contents`, and counted in a note.

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
        say: called with a note that counts the files that were not read, with the reasons.

    Returns:
        Pool with ``x`` uint8 ``[M, channels, size, size]``.

    Raises:
        DataError: if the folder is missing, has no images or only one class, or an image cannot be
            read.
    """
    root = Path(path)
    name = name or root.resolve().name or "folder"
    contents = folder_contents(root)
    if contents.loose and on_error == "raise":
        raise DataError(
            f"{printable(root)}: {len(contents.loose)} image(s) lie directly in it, in no class "
            f"folder (first: {printable(contents.loose[0])}). Put them into one folder per class, "
            "or take them away. In Python, pool_from_csv reads a table of files and labels, and "
            "on_error='skip' leaves them out."
        )
    # damaged files stay in the list: decoding names the first, or skips them
    labelled = [(file, file.rsplit("/", 1)[0]) for file in contents.by_ending if "/" in file]
    if not labelled:
        raise DataError(
            f"{printable(root)}: no images in class folders (looked for "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}; found {len(contents.others)} other file(s)). "
            "Make one folder of images per class."
        )
    pool, _, unreadable = _build(
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
    if note := not_read({**dict.fromkeys(unreadable, DAMAGED), **_reasons(contents)}):
        say(f"note: {note}")
    return pool


def _reasons(contents: FolderContents) -> dict[str, str]:
    """Return why files outside of the pool were not read."""
    loose = dict.fromkeys(contents.loose, "in no class folder")
    return {**contents.others, **contents.damaged, **loose}


@dataclass(frozen=True, slots=True)
class FolderReading:
    """What could be read of a folder, and what could not.

    Args:
        pool: the images.
        files: for each row of the pool its path below the folder.
        unreadable: images that cannot be read.
        passed_over: everything else that is not read: other formats, hidden files and folders,
            images in no class folder.
        empty: folders without any image.
        reasons: why each of them was not read, by its name.
    """

    pool: Pool
    files: tuple[str, ...]
    unreadable: tuple[str, ...]
    passed_over: tuple[str, ...]
    empty: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """A sentence that counts what was not read, with the reasons; empty if all was."""
        return not_read(self.reasons)

    @property
    def passed_over_note(self) -> str:
        """The sentence without the images that cannot be read."""
        passed = set(self.passed_over)
        return not_read({n: why for n, why in self.reasons.items() if printable(n) in passed})


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
    contents = folder_contents(root)
    inside = [file for file in contents.images if "/" in file]
    pool, files, unreadable = _build(
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
    faults = [f for f in contents.damaged if "/" in f]
    passed_over = (*contents.others, *contents.loose, *(set(contents.damaged) - set(faults)))
    return FolderReading(
        pool,
        tuple(map(printable, files)),
        tuple(map(printable, sorted([*faults, *unreadable]))),
        tuple(map(printable, sorted(passed_over))),
        tuple(map(printable, contents.empty)),
        {**dict.fromkeys(unreadable, DAMAGED), **_reasons(contents)},
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
    pool, _, _ = _build(
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
) -> tuple[Pool, list[str], list[str]]:
    """Decode ``(file, label)`` pairs without the small classes; one class alone is an error.

    Returns:
        The pool, the file of each of its rows, and the files that could not be read.
    """
    if min_per_class < 1:
        raise ConfigError(f"min_per_class must be at least 1; got {min_per_class}.")
    labelled = _large_classes(root, labelled, min_per_class)
    x, kept = decode_many(
        [(printable(root / file), root / file) for file, _ in labelled],
        size=size,
        channels=channels,
        invert=invert,
        label=f"decoding {name}",
        on_error=on_error,
    )
    readable = [labelled[i] for i in kept]
    unreadable = sorted({file for file, _ in labelled} - {file for file, _ in readable})
    if len(readable) < len(labelled):  # unreadable images may have left a class too small
        counts = Counter(label for _, label in readable)
        rows = [i for i, (_, label) in enumerate(readable) if counts[label] >= min_per_class]
        x, readable = x[rows], [readable[i] for i in rows]
        _large_classes(root, readable, min_per_class)
    labels = [printable(label) for _, label in readable]
    pool = Pool.build(x, labels, name=printable(name), split=split)
    # a pool sorts its rows by class, and a stable sort does the same to the files
    order = sorted(range(len(labels)), key=lambda i: labels[i])
    return pool, [readable[i][0] for i in order], unreadable


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
                else "Add images"
                + (" or lower min_per_class." if min_per_class > 1 else " or classes.")
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
    inside = [folder for folder in root.iterdir() if _is_folder(folder)]
    parts = {folder.name.lower(): folder for folder in inside if folder.name.lower() in _PART_NAMES}
    split = len(parts) > 1 and all(
        any("/" in file for file in find_images(part)[0]) for part in parts.values()
    )
    return dict(sorted(parts.items(), key=lambda p: _PART_NAMES.index(p[0]))) if split else {}


def _is_folder(path: Path) -> bool:
    """Return whether this is a folder; a link that points to itself is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


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

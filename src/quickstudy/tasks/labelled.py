"""Examples as users have them: folders of images; tables of images, texts or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError, DataError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.core.values import is_missing
from quickstudy.core.words import printable
from quickstudy.tables.cells import is_empty
from quickstudy.tables.read import STANDARD_INPUT, TABLES, Rows, Table, read_table
from quickstudy.tasks.examples import LabelledFiles, by_roles, labels_in, table_inputs
from quickstudy.tasks.folders import split_folders
from quickstudy.tasks.images import unreadable_images
from quickstudy.tasks.listing import DAMAGED, folder_contents, not_read
from quickstudy.tasks.roles import LABEL_COLUMNS, Roles, find_label, find_roles, tells_part

__all__ = [
    "TABLES",
    "LabelledFiles",
    "continuous",
    "grouped",
    "read_examples",
    "read_inputs",
    "training_rows",
    "without_damaged",
]

_TRAINING_PARTS = ("train", "training", "background")
_OTHER_FILES = (".xls", ".ods", ".txt", ".feather", ".arrow", ".arff", ".zip", ".gz", ".dat")


@checked
def read_examples(
    source: str | Path | Rows,
    *,
    label: str | None = None,
    every_part: bool = False,
    column: str | None = None,
    group: str | None = None,
    format: str | None = None,
) -> LabelledFiles:
    """Read labelled examples to learn from: a folder of class folders of images, or a table.

    A table is CSV, TSV, JSON, JSON lines, Parquet or Excel, or rows in memory; which of its columns
    is what follows the rule in :mod:`quickstudy.tasks.roles`.

    Where the data is published in parts, only the training part is read. In a table with a column
    ``split`` these are the rows ``train`` (or ``training`` or ``background``, in any case); in a
    folder that holds ``train/`` beside ``test/`` or ``val/`` it is ``train/``. The column ``split``
    is never an input.

    Args:
        source: folder or table, see :func:`quickstudy.tables.read.read_table`.
        label: name of the column of labels; found by its usual names if not given.
        every_part: read all parts of a table.
        column: name of the column of texts or images, where there are several.
        group: name of a column that is no input, as it groups the rows.
        format: of a table without an ending, see :func:`quickstudy.tables.read.read_table`.

    Raises:
        DataError: if there is nothing to read, a row lacks what it needs, or there are parts and
            none of them is for training.
        ConfigError: if a column is not there.
    """
    if isinstance(source, str) and not source.strip():
        raise ConfigError("got an empty path. Name a folder or a table of examples.")
    if isinstance(source, str | Path) and _is_folder(Path(source)):
        if named := [name for name in (label, column, group) if name is not None]:
            raise ConfigError(
                f"{named[0]!r} names a column of a table, and {printable(source)} is a folder. "
                f"Leave it out, or give a table with the columns path and {named[0]}."
            )
        return _training_folder(Path(source))
    table = _table_of(source, format)
    wanted = find_label(table, label)
    if wanted is None:
        numbers = any(name.replace(".", "").isdigit() for name in table.names)
        hint = " Its first line looks like values: does it lack a header?" if numbers else ""
        raise ConfigError(
            f"{table.source} has no column of labels (looked for {', '.join(LABEL_COLUMNS)}; it "
            f"has {', '.join(map(repr, table.names[:8]))}). Name the column of labels with label=."
            f"{hint}"
        )
    note = ""
    if not every_part:
        table, note = _training_part(table)
    if group is not None and group in (wanted, column):
        what = "labels" if group == wanted else "inputs"
        raise ConfigError(
            f"the column {group!r} holds the {what}, so it cannot tell what belongs together. Name "
            "another column for the groups, or none."
        )
    roles = find_roles(table, label=wanted, column=column, group=group)
    y = labels_in(table, wanted)
    read = by_roles(table, roles, y)
    notes = [note, *(f"{table.source}: {said}." for said in table.notes)]
    return replace(read, note=" ".join(filter(None, notes)))


def _table_of(source: Any, format: str | None) -> Table:
    """Return a table; a file that is none is named as such before it is opened."""
    if isinstance(source, str | Path) and str(source).strip() not in ("", STANDARD_INPUT):
        path = Path(source)
        ending = path.suffix.lower()
        if format is None and ending not in (*TABLES, *_OTHER_FILES, "") and _exists(path):
            raise ConfigError(
                f"{printable(path)}: is neither a folder nor a table. Give a folder of class "
                f"folders, or a table that ends in one of {', '.join(TABLES)}."
            )
    return read_table(source, format=format)


@checked
def training_rows(read: LabelledFiles, *, source: str = "the table") -> LabelledFiles:
    """Return the training rows: those that the column ``split`` says, or all if there is none.

    Args:
        read: examples.
        source: where they come from, for errors.

    Raises:
        DataError: if the column tells two or more parts, and none of them is for training.
    """
    read = _split_aside(read)
    name = next((name for name in read.columns if tells_part(name)), None)
    if name is None:
        return read
    rows, note = _training_of(read.columns[name], name, source)
    return replace(read if rows is None else read.take(rows), note=note or read.note)


def _training_part(table: Table) -> tuple[Table, str]:
    """Return the training rows of a table, and a note if there are others."""
    name = next((name for name in table.names if tells_part(name)), None)
    if name is None:
        return table, ""
    rows, note = _training_of(table.columns[name], name, table.source)
    return (table if rows is None else table.take(rows)), note


def _training_of(cells: Sequence[Any], name: str, source: str) -> tuple[list[int] | None, str]:
    """Return the rows for training (``None`` = all), and a note about the others."""
    values = [str(value).strip().lower() for value in cells]
    rows = [i for i, value in enumerate(values) if value in _TRAINING_PARTS]
    only = sorted(set(values))
    if not rows and len(only) == 1:
        note = f"Every row is {only[0]!r} in the column {name}: all were read."
        return None, "" if only == ["all"] else note
    if not rows:
        shown = ", ".join(map(repr, sorted({str(value) for value in cells})[:5]))
        raise DataError(
            f"{source}: its column {name!r} tells the parts of a data set, and no row is 'train' "
            f"(it says {shown}). Name the rows to learn from 'train', or rename or remove the "
            "column: as an input it would reveal the part."
        )
    if len(rows) == len(values):
        return None, ""
    return rows, (
        f"There is a column {name}: the {len(rows):,} rows 'train' were read, and none of the "
        f"other {len(values) - len(rows):,}."
    )


def _as_table(read: LabelledFiles) -> Table:
    """Return the inputs of examples that are a table, in whatever form they were given."""
    return read.x if isinstance(read.x, Table) else read_table(read.x)


def _split_aside(read: LabelledFiles) -> LabelledFiles:
    """Move the column ``split`` of a table from the inputs to the other columns."""
    if read.kind != "table":
        return read
    table = _as_table(read)
    aside = {name: table.columns[name] for name in table.names if tells_part(name)}
    if not aside:
        return read
    return replace(read, x=table.without(aside), columns={**read.columns, **aside})


@checked
def grouped(read: LabelledFiles, group: str | None) -> tuple[LabelledFiles, list[Any] | None]:
    """Return the examples without the column that groups them, and the group of each.

    Args:
        read: examples.
        group: name of the column; ``None`` = the examples have no groups.

    Raises:
        ConfigError: if there is no such column.
        DataError: if an example has no group.
    """
    if group is None:
        return read, None
    columns = dict(read.columns)
    if read.table is not None:
        columns |= read.table.columns
    if read.kind == "table":
        table = _as_table(read)
        columns |= table.columns
        if group in table.columns:
            read = replace(read, x=table.without([group]))
    if not columns:
        raise ConfigError(
            f"there is no column {group!r} to group by: only rows of a table have columns. Give a "
            "table that names the inputs and their groups."
        )
    if group not in columns:
        raise ConfigError(
            f"there is no column {group!r} to group by. {nearest_names(group, columns)}"
        )
    groups = list(columns[group])
    if none := [i for i, value in enumerate(groups) if is_missing(value) or is_empty(value)]:
        raise DataError(f"{read.names[none[0]]}: there is no group in {group!r}. Fill it in.")
    return read, groups


def without_damaged(read: LabelledFiles) -> LabelledFiles | None:
    """Return the examples without the images of a folder that cannot be decoded, and a note.

    Every image is decoded, so ask only after one could not be. ``None`` if nothing is to be left
    out: a row of a table is never dropped, as somebody wrote it.

    Raises:
        DataError: if a class would lose all its images.
    """
    if read.kind != "image" or read.table is not None:
        return None
    bad = unreadable_images([Path(value) for value in read.x])
    rows = [row for row in range(len(read.x)) if row not in bad]
    if not bad:
        return None
    labels = read.y or []
    if lost := sorted({str(labels[row]) for row in bad} - {str(labels[row]) for row in rows}):
        raise DataError(
            f"no image of the class {lost[0]!r} can be read: {next(iter(bad.values()))}"
        )
    note = not_read({read.names[row]: DAMAGED for row in bad})
    return replace(read.take(rows), note=note)


@checked
def continuous(classes: Sequence[str]) -> bool:
    """Return whether labels look like measurements: more than ten numbers, not all of them whole.

    Args:
        classes: the different labels.
    """
    try:
        values = [float(name) for name in classes]
    except (TypeError, ValueError):
        return False
    return len(values) > 10 and any(value != round(value, 0) for value in values)


@checked
def read_inputs(
    paths: str | Path | Sequence[Any],
    *,
    label: str | None = None,
    roles: Roles | None = None,
    format: str | None = None,
) -> LabelledFiles:
    """Read inputs to classify: image files, folders of images, or one table.

    Args:
        paths: of files and folders; a table must be alone, and may be an open file or rows in
            memory. ``"-"`` is a table on standard input.
        label: name of the column of labels, which is no input.
        roles: of the columns, as a task was learned from them; ``None`` = found by the rule in
            :mod:`quickstudy.tasks.roles`.
        format: of a table without an ending.

    Raises:
        ConfigError: if there are several tables, or a column is not there.
        DataError: if there is nothing to read.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise ConfigError("name at least one file to read.")
    if len(given) == 1 and not isinstance(given[0], str | Path):
        return table_inputs(read_table(given[0], format=format), label, roles)
    sources = [Path(path) for path in given]
    tables = [
        s
        for s in sources
        if (s.suffix.lower() in (*TABLES, *_OTHER_FILES) or str(s) == STANDARD_INPUT)
        and not _is_folder(s)
    ]
    by_content = format is not None or (roles is not None and roles.kind == "table")
    if tables or (by_content and not _is_folder(sources[0])):
        if len(sources) > 1:
            raise ConfigError(
                f"give one table alone; got {printable((tables or sources)[0])} and "
                f"{len(sources) - 1} more."
            )
        return table_inputs(read_table(sources[0], format=format), label, roles)
    if label is not None:
        raise ConfigError(
            f"{label!r} names a column of a table, and {printable(sources[0])} is none. Leave it "
            f"out, or give a table with the columns path and {label}."
        )
    files: list[Path] = []
    notes: list[str] = []
    for source in sources:
        if not _is_folder(source):
            files.append(source)
            continue
        contents = folder_contents(source)
        note = contents.note(damaged=False)
        if not contents.by_ending:
            raise DataError(
                f"{printable(source)}: there are no images in this folder. {note or 'It is empty.'}"
            )
        files += [source / name for name in contents.by_ending]
        notes += [f"{printable(source)}: {note}"] if note else []
    return LabelledFiles(
        list(map(str, files)), None, "image", list(map(printable, files)), note=" ".join(notes)
    )


def _is_folder(path: Path) -> bool:
    """Return whether this is a folder; a link that points to itself is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _training_folder(root: Path) -> LabelledFiles:
    """Read a folder of class folders, or the ``train/`` in a folder of parts."""
    parts = split_folders(root)
    if not parts:
        return _class_folders(root)
    training = [folder for name, folder in parts.items() if name in _TRAINING_PARTS]
    if len(training) != 1:
        raise DataError(
            f"{root}: holds {', '.join(f'{f.name}/' for f in parts.values())}, which are parts of "
            "a data set and no classes, and not one folder train/. Name the folder to learn from."
        )
    others = [f"{printable(folder.name)}/" for folder in parts.values() if folder != training[0]]
    note = f"{printable(training[0])} was read, and not {', '.join(others)} beside it."
    read = _class_folders(training[0])
    return replace(read, note=f"{note} {read.note}".strip())


def _class_folders(root: Path) -> LabelledFiles:
    """Read ``root/class/.../image.png``."""
    contents = folder_contents(root)
    shown = printable(root)
    found = [name for name in contents.images if "/" in name]
    if not found:
        where = "there are no images"
        if contents.loose:
            where = f"{printable(root / contents.loose[0])} lies outside of one"
        note = contents.note()
        raise DataError(
            f"{shown}: expected a folder for each class with its images inside; {where}. "
            f"{note}{' ' if note else ''}Make {shown}/CLASS/IMAGE, or a table with the columns "
            "path and label."
        )
    given = {name.split("/")[0] for name in found}
    damaged = {name.split("/")[0] for name in contents.damaged if "/" in name}
    if empty := sorted({*contents.empty, *damaged} - given):
        reasons = {**contents.others, **contents.damaged}
        inside = {n: why for n, why in reasons.items() if n.startswith(f"{empty[0]}/")}
        raise DataError(
            f"{printable(root / empty[0])}: there are no images in this class. "
            f"{not_read(inside)}{' ' if inside else ''}Add some, or remove the folder."
        )
    paths = [str(root / name) for name in found]
    labels = [printable(name.split("/")[0]) for name in found]
    return LabelledFiles(
        paths, list(labels), "image", list(map(printable, paths)), note=contents.note(loose=True)
    )

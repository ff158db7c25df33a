"""Examples as users have them on disk: folders of images; tables of images, texts or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError, DataError, nearest_names
from quickstudy.core.values import is_missing
from quickstudy.tasks.folders import find_images, split_folders

__all__ = [
    "TABLES",
    "LabelledFiles",
    "continuous",
    "grouped",
    "read_examples",
    "read_inputs",
    "training_rows",
]

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Endings of the tables that are read."""

_OTHER_TABLES = (".xlsx", ".xls", ".ods", ".json", ".txt", ".feather", ".arrow", ".arff", ".zip")
_LABEL_COLUMNS = ("label", "target", "class", "intent", "category", "y")
_TEXT_COLUMNS = ("text", "sentence", "utterance", "question", "title", "headline", "content")
_IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name")
_SPLIT_COLUMN, _TRAINING_PARTS = "split", ("train", "training", "background")


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """Examples read from disk.

    Args:
        x: paths, encoded images, texts, or a ``pyarrow.Table``.
        y: labels, or ``None`` if there are none.
        kind: ``"image"``, ``"text"`` or ``"table"``: also the name of the encoder that fits.
        names: name of each example, for reports.
        columns: the other columns of a table of texts or images, and the column ``split`` of any
            table.
        note: which examples were left out, and why; empty if none were.
    """

    x: Any
    y: list[Any] | None
    kind: str
    names: list[str]
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    note: str = ""

    def take(self, rows: Sequence[int]) -> LabelledFiles:
        """Return the examples of these rows."""
        table = self.kind == "table"
        return replace(
            self,
            x=self.x.take(rows) if table else [self.x[i] for i in rows],
            y=None if self.y is None else [self.y[i] for i in rows],
            names=[self.names[i] for i in rows],
            columns={name: [values[i] for i in rows] for name, values in self.columns.items()},
        )


def read_examples(
    path: str | Path, *, label: str | None = None, every_part: bool = False
) -> LabelledFiles:
    """Read labelled examples to learn from: a folder of class folders of images, or a table.

    A table is CSV, TSV, JSON lines or Parquet with a column of labels and a column ``path`` (or
    ``image``, or a Hugging Face ``image`` struct), a column ``text``, or else columns of numbers.

    Where the data is published in parts, only the training part is read. In a table with a column
    ``split`` these are the rows ``train`` (or ``training`` or ``background``, in any case); in a
    folder that holds ``train/`` beside ``test/`` or ``val/`` it is ``train/``. The column ``split``
    is never an input.

    Args:
        path: folder or table.
        label: name of the column of labels; found by its usual names if not given.
        every_part: read all parts of a table.

    Raises:
        DataError: if there is nothing to read, a row lacks what it needs, or there are parts and
            none of them is for training.
        ConfigError: if a column is not there.
    """
    source = Path(path)
    if source.is_dir():
        _refuse_column(label, source)
        return _training_folder(source)
    read = read_inputs([source], label=label)
    if read.y is None:
        raise ConfigError(
            f"{source} has no column of labels (looked for {', '.join(_LABEL_COLUMNS)}). Name it "
            "with --label."
        )
    return read if every_part else training_rows(read, source=str(source))


def training_rows(read: LabelledFiles, *, source: str = "the table") -> LabelledFiles:
    """Return the training rows: those that the column ``split`` says, or all if there is none.

    Args:
        read: examples.
        source: where they come from, for errors.

    Raises:
        DataError: if the column tells two or more parts, and none of them is for training.
    """
    read = _split_aside(read)
    name = next((name for name in read.columns if _tells_part(name)), None)
    if name is None:
        return read
    values = [str(value).strip().lower() for value in read.columns[name]]
    rows = [i for i, value in enumerate(values) if value in _TRAINING_PARTS]
    only = sorted(set(values))
    if not rows and len(only) == 1:
        note = f"Every row is {only[0]!r} in the column {name}: all were read."
        return read if only == ["all"] else replace(read, note=note)
    if not rows:
        shown = ", ".join(map(repr, sorted({str(value) for value in read.columns[name]})[:5]))
        raise DataError(
            f"{source}: its column {name!r} tells the parts of a data set, and no row is 'train' "
            f"(it says {shown}). Name the rows to learn from 'train', or rename or remove the "
            "column: as an input it would reveal the part."
        )
    if len(rows) == len(values):
        return read
    note = (
        f"There is a column {name}: the {len(rows):,} rows 'train' were read, and none of the "
        f"other {len(values) - len(rows):,}."
    )
    return replace(read.take(rows), note=note)


def _tells_part(column: str) -> bool:
    """Return whether a column says which part of a data set each row belongs to."""
    return column.strip().lower() == _SPLIT_COLUMN


def _split_aside(read: LabelledFiles) -> LabelledFiles:
    """Move the column ``split`` of a table from the inputs to the other columns."""
    if read.kind != "table":
        return read
    aside = [name for name in read.x.column_names if _tells_part(name)]
    columns = {name: read.x.column(name).to_pylist() for name in aside}
    return replace(read, x=read.x.drop_columns(aside), columns={**read.columns, **columns})


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
    inside = read.kind == "table" and group in read.x.column_names
    if read.kind == "table":
        columns |= {n: read.x.column(n).to_pylist() for n in read.x.column_names}
    if group not in columns:
        raise ConfigError(
            f"there is no column {group!r} to group by. {nearest_names(group, columns)}"
        )
    groups = columns[group]
    if none := [i for i, value in enumerate(groups) if is_missing(value)]:
        raise DataError(f"row {none[0]}: there is no group in {group!r}. Fill it in.")
    return (replace(read, x=read.x.drop_columns([group])) if inside else read), groups


def continuous(classes: Sequence[str]) -> bool:
    """Return whether labels look like measurements: more than ten numbers, not all of them whole.

    Args:
        classes: the different labels.
    """
    try:
        values = [float(name) for name in classes]
    except ValueError:
        return False
    return len(values) > 10 and any(value != round(value) for value in values)


def read_inputs(paths: Sequence[str | Path], *, label: str | None = None) -> LabelledFiles:
    """Read inputs to classify: image files, folders of images, or one table.

    Args:
        paths: of files and folders; a table must be alone.
        label: name of the column of labels, which is no input.
    """
    sources = [Path(path) for path in paths]
    if not sources:
        raise ConfigError("name at least one file to read.")
    if other := [s for s in sources if s.suffix.lower() in _OTHER_TABLES]:
        raise ConfigError(
            f"{other[0]}: {other[0].suffix} is not read. Save the table as one of "
            f"{', '.join(TABLES)}."
        )
    tables = [s for s in sources if s.suffix.lower() in TABLES]
    if tables:
        if len(sources) > 1:
            raise ConfigError(f"give one table alone; got {tables[0]} and {len(sources) - 1} more.")
        return _table(sources[0], label)
    _refuse_column(label, sources[0])
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            found, _ = find_images(source)
            files += [source / name for name in found]
            if not found:
                raise DataError(f"{source}: there are no images in this folder. Check the path.")
        else:
            files.append(source)
    names = [str(file) for file in files]
    return LabelledFiles(names, None, "image", names)


def _refuse_column(label: str | None, source: Path) -> None:
    if label is not None:
        raise ConfigError(
            f"--label names a column of a table, and {source} is none. Leave it out, or give a "
            f"table with the columns path and {label}."
        )


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
    others = [f"{folder.name}/" for folder in parts.values() if folder != training[0]]
    note = f"{training[0]} was read, and not {', '.join(others)} beside it."
    return replace(_class_folders(training[0]), note=note)


def _class_folders(root: Path) -> LabelledFiles:
    """Read ``root/class/.../image.png``."""
    found, _ = find_images(root)
    loose = [name for name in found if "/" not in name]
    if not found or loose:
        where = f"{root / loose[0]} lies outside of one" if loose else "there are no images"
        raise DataError(
            f"{root}: expected a folder for each class with its images inside; {where}. Make "
            f"{root}/CLASS/IMAGE, or a table with the columns path and label."
        )
    given = {name.split("/")[0] for name in found}
    folders = sorted(d.name for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    if empty := [name for name in folders if name not in given]:
        raise DataError(
            f"{root / empty[0]}: there are no images in this class. Add some, or remove the folder."
        )
    paths = [str(root / name) for name in found]
    return LabelledFiles(paths, [name.split("/")[0] for name in found], "image", paths)


def _table(source: Path, label: str | None) -> LabelledFiles:
    """Read a table of texts, images or numbers, told apart by the names of its columns."""
    columns = _columns(source, label)
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"{source}: the table has no rows. Give one row per example.")
    wanted = label or next((name for name in _LABEL_COLUMNS if name in columns), None)
    if label is not None and label not in columns:
        raise ConfigError(f"{source}: no column {label!r}. {nearest_names(label, columns)}")
    y = None if wanted is None else columns.pop(wanted)
    if y is not None and (none := [i for i, v in enumerate(y) if v is None or v == ""]):
        raise DataError(
            f"{source}, row {none[0]}: there is no label in {wanted!r}. Fill it in, or leave the "
            "row out."
        )
    columns.pop("", None)  # pandas writes row numbers into a column without a name
    rows = [f"{source.name}, row {i}" for i in range(len(next(iter(columns.values()), y or [])))]
    if (name := next((n for n in _TEXT_COLUMNS if n in columns), None)) is not None:
        return LabelledFiles(columns.pop(name), y, "text", rows, columns)
    if (name := next((n for n in _IMAGE_COLUMNS if n in columns), None)) is not None:
        return replace(_images(source, columns.pop(name), y, rows), columns=columns)
    if not any(_is_number(value) for values in columns.values() for value in values):
        raise DataError(
            f"{source}: needs a column of texts ({_TEXT_COLUMNS[0]}), of image paths "
            f"({_IMAGE_COLUMNS[0]}), or of numbers; it has "
            f"{', '.join(map(repr, list(columns)[:5])) or 'none'}. Rename the column that counts."
        )
    import pyarrow as pa

    return _split_aside(LabelledFiles(pa.table(columns), y, "table", rows))


def _images(source: Path, values: list[Any], y: list[Any] | None, rows: list[str]) -> LabelledFiles:
    """Return images by their paths, relative to the table, or by their bytes, as the Hugging Face
    Hub stores them."""
    if isinstance(values[0], Mapping):
        data = [value.get("bytes") if isinstance(value, Mapping) else None for value in values]
        if None in data:
            raise DataError(f"{source}, row {data.index(None)}: the image has no bytes.")
        return LabelledFiles(data, y, "image", rows)
    if empty := [i for i, value in enumerate(values) if not isinstance(value, str) or not value]:
        raise DataError(f"{source}, row {empty[0]}: the path is empty. Fill it in.")
    paths = [str(source.parent / value) for value in values]  # an absolute path stays itself
    return LabelledFiles(paths, y, "image", [str(value) for value in values])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _columns(source: Path, label: str | None) -> dict[str, list[Any]]:
    """Return a table as lists by column."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.json as pa_json
    import pyarrow.parquet as pa_parquet

    ending = source.suffix.lower()
    try:
        # pyarrow refuses a row that does not fit into a block, and a cell can be a long document
        block = min(max(source.stat().st_size, 1 << 20), 1 << 30)
        if ending == ".parquet":
            table = pa_parquet.read_table(source)
        elif ending in (".jsonl", ".ndjson"):
            table = pa_json.read_json(source, pa_json.ReadOptions(block_size=block))
        else:
            parse = pa_csv.ParseOptions(
                delimiter="\t" if ending == ".tsv" else ",", newlines_in_values=True
            )
            # labels, texts and paths are kept as they are written: 007 is not 7
            as_written = {
                n: pa.string()
                for n in (*_LABEL_COLUMNS, *_TEXT_COLUMNS, *_IMAGE_COLUMNS, label)
                if n
            }
            convert = pa_csv.ConvertOptions(column_types=as_written)
            read = pa_csv.ReadOptions(block_size=block)
            table = pa_csv.read_csv(source, read, parse, convert)
    except FileNotFoundError as error:
        raise DataError(f"{source}: there is no such file. Check the path.") from error
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{source}: cannot be read as a table ({reason}). Check it.") from error
    return {name: table.column(name).to_pylist() for name in dict.fromkeys(table.column_names)}

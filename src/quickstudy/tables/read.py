"""Reads tables as they are written: CSV, JSON lines, Parquet, Excel, data frames, standard input.

Cells keep what the file says (those of a CSV file are text), and rows keep the name that a user
finds them by: the line of a text file, the row of a sheet. What a cell means is decided later, see
:mod:`quickstudy.tables.cells`.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from quickstudy.core import ConfigError, DataError
from quickstudy.core.arguments import checked
from quickstudy.core.values import is_frame
from quickstudy.core.words import printable
from quickstudy.tables.cells import CATEGORY, kind_of, read_cell
from quickstudy.tables.formats import FORMATS, format_of, read_format

__all__ = ["STANDARD_INPUT", "TABLES", "Rows", "Table", "read_table"]

TABLES = tuple(f".{name}" for name in FORMATS)
"""Endings of the tables that are read."""

STANDARD_INPUT = "-"
"""The path that means standard input."""

_INPUT_NAME = "standard input"

Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any] | IO[bytes] | Any
"""A table in memory: a list of records, columns by name, a data frame, an Arrow table, an open
file."""


@checked
@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Columns by name; no two have one name, and all are equally long.

    Args:
        columns: the cells of each column, as they are written or stored.
        rows: name of each row, for reports and errors: ``"birds.csv, line 7"``.
        lines: number of each row as the user's editor counts it.
        source: what was read, for errors.
        categories: columns that the file itself calls categorical.
        semicolons: whether a text file separates its columns by semicolons.
        notes: what a user should know about how it was read.

    Example::

        from quickstudy.tables.read import read_table
        table = read_table([{"size": 1.5, "label": "small"}, {"size": 9, "label": "large"}])
        print(table.names, table.columns["size"], table.rows, table.take([1]).columns)
    """

    columns: Mapping[str, list[Any]]
    rows: Sequence[str]
    lines: Sequence[int]
    source: str = "the table"
    categories: frozenset[str] = frozenset()
    semicolons: bool = False
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, cells in self.columns.items():
            if len(cells) != len(self.rows):
                raise DataError(
                    f"{self.source}: column {name!r} has {len(cells)} cells, and there are "
                    f"{len(self.rows)} rows. Make the columns equally long."
                )
        if len(self.lines) != len(self.rows):
            raise DataError(f"{self.source}: {len(self.lines)} lines for {len(self.rows)} rows.")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the file."""
        return tuple(self.columns)

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, as of a ``pyarrow.Table``."""
        return list(self.columns)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Sequence[int]) -> Table:
        """Return the table of these rows."""
        return replace(
            self,
            columns={name: [cells[i] for i in rows] for name, cells in self.columns.items()},
            rows=[self.rows[i] for i in rows],
            lines=[self.lines[i] for i in rows],
        )

    def only(self, names: Iterable[str]) -> Table:
        """Return the table of these columns, in this order."""
        return replace(self, columns={name: self.columns[name] for name in names})

    def without(self, names: Iterable[str]) -> Table:
        """Return the table without some columns."""
        gone = set(names)
        return replace(self, columns={n: c for n, c in self.columns.items() if n not in gone})

    def values(self) -> dict[str, list[float | str | None]]:
        """Return the columns with each cell read by the kind of its column; ``None`` = missing.

        Raises:
            DataError: if a cell is a list or a record; the column is named.
        """
        found = {}
        for name, cells in self.columns.items():
            kind = kind_of(cells, semicolons=self.semicolons)
            try:
                found[name] = [
                    read_cell(c, CATEGORY if name in self.categories else kind) for c in cells
                ]
            except ValueError as error:
                raise DataError(f"{self.source}, column {name!r}: {error}.") from error
        return found

    def to_pydict(self) -> dict[str, list[Any]]:
        """Return the columns."""
        return dict(self.columns)


@checked
def read_table(source: str | Path | Rows, *, format: str | None = None) -> Table:
    """Return a table as it is written.

    Args:
        source: path of a file; ``"-"`` for standard input; an open file of bytes; a list of
            records (``{column: cell}``); columns by name; a data frame or an Arrow table.
        format: ``"csv"``, ``"tsv"``, ``"jsonl"``, ``"ndjson"``, ``"json"``, ``"parquet"`` or
            ``"xlsx"``; ``None`` = by the ending of the path, or else by the content.

    Raises:
        DataError: if it is no file, or does not hold a table; the line is named.
        ConfigError: if the format is not read, or the argument is no table at all.
        MissingExtraError: if a sheet is given and the extra ``excel`` is not installed.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}. Take one of {', '.join(FORMATS)}.")
    if isinstance(source, str | Path):
        name, data, known = _bytes_of(source)
    elif hasattr(source, "read"):
        known = ""
        name, data = _name_of_stream(source), _bytes_of_stream(source)
    else:
        return _checked(_in_memory(source), "the table")
    short = Path(name).name or name
    found = read_format(data, format or format_of(data, known, name), name)
    lines = [line for line, _ in found.rows]
    table = Table(
        columns={n: [row[i] for _, row in found.rows] for i, n in enumerate(found.names)},
        rows=[f"{printable(short)}, {found.unit} {line}" for line in lines],
        lines=lines,
        source=printable(name),
        categories=frozenset(found.categories),
        semicolons=found.delimiter == ";",
        notes=found.notes,
    )
    return _checked(table, printable(name))


def _bytes_of(source: str | Path) -> tuple[str, bytes, str]:
    """Return the name, the content and the format by the ending of a file."""
    if str(source) == STANDARD_INPUT:
        return _INPUT_NAME, _bytes_of_stream(sys.stdin.buffer), ""
    if not str(source).strip() or str(source) == ".":
        raise ConfigError("got no path of a table. Name the file.")
    path = Path(source)
    name = printable(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{name}: this is a folder and no table. Name a file in it.")
        if not stat.S_ISREG(mode):  # reading a pipe or a device may never end
            raise DataError(
                f"{name}: this is no regular file (a pipe or a device). Name a file, or give the "
                f"table on standard input as '{STANDARD_INPUT}'."
            )
        return str(path), path.read_bytes(), path.suffix.lower().removeprefix(".")
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file. Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: cannot be read ({reason}). Check the file.") from error


def _name_of_stream(stream: Any) -> str:
    name = getattr(stream, "name", None)
    return str(name) if isinstance(name, str) else "the table"


def _bytes_of_stream(stream: Any) -> bytes:
    try:
        data = stream.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise DataError(f"the open file cannot be read ({error}). Open it again.") from error
    if isinstance(data, str):
        return data.encode("utf-8", "surrogatepass")
    if not isinstance(data, bytes):
        raise ConfigError(
            f"an open file must give bytes; got {type(data).__name__}. Open it in mode 'rb'."
        )
    return data


def _in_memory(source: Any) -> Table:
    """Return the table of records, of columns by name, or of a data frame."""
    import pyarrow as pa

    from quickstudy.tables.arrow import arrow_columns

    if is_frame(source):
        names = [str(name) for name in source.columns]
        columns = [source.iloc[:, i].tolist() for i in range(len(names))]
        dtypes = [str(dtype) for dtype in source.dtypes]
        chosen = [n for n, dtype in zip(names, dtypes, strict=True) if dtype == "category"]
        return _numbered(names, columns, chosen)
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    if isinstance(source, pa.Table) or hasattr(source, "__arrow_c_stream__"):
        return _numbered(*arrow_columns(pa.table(source)))
    if isinstance(source, Mapping):
        columns = [list(cells) if _is_column(cells) else [cells] for cells in source.values()]
        if len({len(cells) for cells in columns}) > 1:
            raise DataError("the columns are not equally long. Give one cell for each row.")
        return _numbered([str(name) for name in source], columns)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        if not all(isinstance(row, Mapping) for row in source):
            other = next(row for row in source if not isinstance(row, Mapping))
            raise ConfigError(
                f"a list of rows needs records {{column: cell}}; got {type(other).__name__}. Give "
                "one record for each row."
            )
        names = list(dict.fromkeys(str(name) for row in source for name in row))
        records = [{str(name): cell for name, cell in row.items()} for row in source]
        return _numbered(names, [[row.get(name) for row in records] for name in names])
    raise ConfigError(
        f"got {type(source).__name__}, which is no table. Give a path, an open file, a list of "
        "records or a data frame."
    )


def _is_column(cells: Any) -> bool:
    return hasattr(cells, "__len__") and not isinstance(cells, str | bytes | Mapping)


def _numbered(
    names: Sequence[str], columns: Sequence[list[Any]], categories: Iterable[str] = ()
) -> Table:
    """Return a table whose rows are known by their numbers, from 0."""
    if len(set(names)) < len(names):
        double = next(name for name in names if list(names).count(name) > 1)
        raise DataError(f"two columns are called {double!r}. Rename one.")
    n = len(columns[0]) if columns else 0
    return Table(
        columns=dict(zip(names, columns, strict=True)),
        rows=[f"row {i}" for i in range(n)],
        lines=list(range(n)),
        categories=frozenset(categories),
    )


def _checked(table: Table, source: str) -> Table:
    """Refuse a table without columns or rows, and texts that no report can hold."""
    if not table.columns or not len(table):
        raise DataError(f"{source}: the table has no rows. Give one row per example.")
    for name, cells in table.columns.items():
        if not _is_unicode(name):
            raise DataError(f"{source}: the name of column {name!r} is not valid Unicode.")
        for where, cell in zip(table.rows, cells, strict=True):
            if isinstance(cell, str) and not _is_unicode(cell):
                raise DataError(
                    f"{where}, column {name!r}: the text is not valid Unicode (it has half of a "
                    "character). Write the file again."
                )
    return table


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

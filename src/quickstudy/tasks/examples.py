"""The examples in a table, by the roles of its columns: labels, texts, images or rows of cells."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from quickstudy.core import DataError
from quickstudy.core.words import some
from quickstudy.tables.cells import CATEGORY, is_empty, read_cell
from quickstudy.tables.read import Table
from quickstudy.tasks.roles import Roles, find_label, find_roles

__all__ = ["LabelledFiles", "by_roles", "labels_in", "table_inputs"]

_INFINITE = (float("inf"), float("-inf"))
_MOST_NAMES_SHOWN = 8
_TYPED_LABELS = (datetime.date, datetime.time, datetime.timedelta, Decimal, bytes)


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """Examples read from disk.

    Args:
        x: paths, encoded images, texts, or a :class:`~quickstudy.tables.read.Table`.
        y: labels, or ``None`` if there are none.
        kind: ``"image"``, ``"text"`` or ``"table"``: also the name of the encoder that fits.
        names: name of each example, for reports.
        columns: of a table, the columns that are neither inputs nor labels.
        note: which examples were left out, and why, and what is unusual about the file; empty if
            there is nothing to say.
        roles: what the columns of a table were taken for; ``None`` = it is no table.
        table: all columns as they are written, with the user's own count of the lines; ``None`` =
            it is no table.
    """

    x: Any
    y: list[Any] | None
    kind: str
    names: list[str]
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    note: str = ""
    roles: Roles | None = None
    table: Table | None = None

    def take(self, rows: Sequence[int]) -> LabelledFiles:
        """Return the examples of these rows."""
        table = self.kind == "table"
        return replace(
            self,
            x=self.x.take(rows) if table else [self.x[i] for i in rows],
            y=None if self.y is None else [self.y[i] for i in rows],
            names=[self.names[i] for i in rows],
            columns={name: [values[i] for i in rows] for name, values in self.columns.items()},
            table=None if self.table is None else self.table.take(rows),
        )


def labels_in(table: Table, name: str) -> list[Any]:
    """Return the labels of a table; none of them is missing.

    Raises:
        DataError: if one is; the line is named.
    """
    labels = table.columns[name]
    for where, value in zip(table.rows, labels, strict=True):
        if is_empty(value):
            raise DataError(
                f"{where}: there is no label in {name!r}. Fill it in, or leave the row out."
            )
        if isinstance(value, list | dict | set):
            raise DataError(
                f"{where}: the label in {name!r} is a {type(value).__name__}. Give one label for "
                "each row; an example of two classes is two rows."
            )
    return _as_text_files_have_them(labels)


def _as_text_files_have_them(labels: Sequence[Any]) -> list[Any]:
    """Return labels in the types that a label may have.

    A date or a fraction is the text that a CSV file would have: both name classes there.
    """
    numbers = [v for v in labels if isinstance(v, float) and v not in _INFINITE]
    fractions = any(value != round(value, 0) for value in numbers)
    found: list[Any] = []
    for value in labels:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(value, _TYPED_LABELS):
            found.append(read_cell(value, CATEGORY))
        else:
            found.append(str(value) if fractions and number else value)
    return found


def table_inputs(table: Table, label: str | None, roles: Roles | None) -> LabelledFiles:
    """Return the inputs in a table, by the roles that its columns had when a task was learned."""
    notes = [f"{table.source}: {said}." for said in table.notes]
    used = () if roles is None else roles.inputs
    if label is not None:
        wanted = find_label(table, label)
    elif roles is not None and roles.label is not None:
        wanted = roles.label if roles.label in table.columns and roles.label not in used else None
    else:
        wanted = find_label(table, None, but=used)
    y: list[Any] | None = None
    if wanted is not None:
        empty = sum(map(is_empty, table.columns[wanted]))
        if empty < len(table):
            labels = [None if is_empty(value) else value for value in table.columns[wanted]]
            y = _as_text_files_have_them(labels)
        if 0 < empty < len(table):
            notes.append(f"{empty:,} of {len(table):,} rows have no label in {wanted!r}.")
    if roles is None:
        roles = find_roles(table, label=wanted)
    elif roles.kind != "table" and roles.inputs[0] not in table.columns:
        roles = replace(roles, inputs=(_same_input(table, roles, wanted),), label=None)
    # a row without an input costs only its own answer
    read = by_roles(table, roles, y, wanted, gaps=True)
    return replace(read, note=" ".join(notes))


def _same_input(table: Table, roles: Roles, label: str | None) -> str:
    """Return the column of texts or images in a table that calls it otherwise."""
    found = find_roles(table, label=label)
    if found.kind != roles.kind:
        raise DataError(
            f"{table.source}: lacks the column {roles.inputs[0]!r} of {roles.kind}s that the task "
            f"was learned from; it has {_quoted(table.names)}. Rename one."
        )
    return found.inputs[0]


def by_roles(
    table: Table,
    roles: Roles,
    y: list[Any] | None,
    label: str | None = None,
    *,
    gaps: bool = False,
) -> LabelledFiles:
    """Return the examples in a table; with ``gaps`` a text or image that is missing is ``None``."""
    gone = {*roles.inputs, label or roles.label}
    columns = {name: cells for name, cells in table.columns.items() if name not in gone}
    names = list(table.rows)
    if roles.kind == "table":
        if missing := [name for name in roles.inputs if name not in table.columns]:
            raise DataError(
                f"{table.source}: the table lacks the column(s) {_quoted(missing)} that the task "
                f"was learned from; it has {_quoted(table.names)}. Give the same columns."
            )
        read = LabelledFiles(table.only(roles.inputs), y, "table", names)
    elif roles.kind == "text":
        read = LabelledFiles(_texts(table, roles.inputs[0], gaps), y, "text", names)
    else:
        read = _images(table, roles.inputs[0], y, gaps)
    return replace(read, columns=columns, roles=roles, table=table)


def _texts(table: Table, name: str, gaps: bool) -> list[str | None]:
    """Return the texts in a column."""
    texts: list[str | None] = []
    for where, value in zip(table.rows, table.columns[name], strict=True):
        if gaps and is_empty(value):
            texts.append(None)
            continue
        if is_empty(value):
            raise DataError(
                f"{where}: the text in {name!r} is empty. Fill it in, or leave the row out."
            )
        if isinstance(value, list | dict | set | bytes):
            raise DataError(
                f"{where}: the text in {name!r} is a {type(value).__name__}. Write it as a text."
            )
        texts.append(value if isinstance(value, str) else str(value))
    return texts


def _images(table: Table, name: str, y: list[Any] | None, gaps: bool) -> LabelledFiles:
    """Return images by their paths, relative to the table, or by their bytes, as the Hugging Face
    Hub stores them."""
    folder = Path(table.source).parent
    images: list[Any] = []
    names: list[str] = []
    for where, value in zip(table.rows, table.columns[name], strict=True):
        held = value.get("bytes") if isinstance(value, Mapping) else value
        if gaps and is_empty(held):
            images.append(None)
            names.append(where)
            continue
        if isinstance(value, Mapping) and not isinstance(held, bytes):
            raise DataError(f"{where}: the image has no bytes. Leave the row out.")
        if isinstance(held, bytes):
            images.append(held)
            names.append(where)
            continue
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}: the path in {name!r} is empty. Fill it in.")
        images.append(str(folder / value.strip()))  # an absolute path stays itself
        names.append(value.strip())
    return LabelledFiles(images, y, "image", names)


def _quoted(names: Sequence[str]) -> str:
    return some([repr(name) for name in names], _MOST_NAMES_SHOWN)

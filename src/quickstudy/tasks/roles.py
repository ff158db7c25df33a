"""What each column of a table is taken for: label, inputs, or left out; one rule, and it is said.

The rule, which docs/few-shot.md gives to users:

1. The label is the column that is named, or the first of ``label``, ``target``, ``class``,
   ``intent``, ``category``, ``y`` that the table has. No other column is special by such a name.
2. Columns of row numbers, of parts (``split``), of groups, of lists, and empty ones are no inputs.
3. A column that is named as the input is the input. Else a column of images is.
4. Else a column of texts is: most of them differ and have several words. Beside numbers it needs
   one of the usual names (``text``, ``sentence``, ...); alone it needs none.
5. Else numbers, dates, times, truth values and categories are the inputs. Left out are ids:
   columns that are named so, and words of which hardly any comes twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError, DataError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.core.words import some
from quickstudy.tables.cells import CATEGORY, NUMBER_KINDS, is_empty, kind_of
from quickstudy.tables.read import Table
from quickstudy.tasks.images import IMAGE_SUFFIXES

__all__ = ["LABEL_COLUMNS", "Roles", "find_label", "find_roles", "tells_part"]

LABEL_COLUMNS = ("label", "target", "class", "intent", "category", "y")
"""Usual names of the column of labels; the first that a table has is taken."""

_PLAIN_TEXT_COLUMNS = ("text", "sentence", "utterance")
_TEXT_COLUMNS = (*_PLAIN_TEXT_COLUMNS, "question", "title", "headline", "content")
_IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name")
_ROW_NUMBERS = ("", "Unnamed: 0", "__index_level_0__")
_IDS = ("id", "idx", "index", "uuid", "guid", "key", "nr", "no", "row", "rownames", "#")
_SPLIT_COLUMN = "split"

_FEWEST_ROWS_OF_AN_ID = 6
_MOST_DIFFERENT = 0.9  # of words: above it, hardly any comes twice
_MOST_NAMES_SHOWN = 6
_LONG_TEXT = 20  # characters, on average
_NOUNS = {"truth": "truth value", "date": "date", "time": "time of day", "duration": "duration"}
_NESTED = (list, tuple, dict, set, bytes, bytearray, memoryview)


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns of a table are taken for.

    Args:
        kind: of the inputs: ``"image"``, ``"text"`` or ``"table"``.
        inputs: names of the columns that are inputs.
        label: name of the column of labels; ``None`` = there is none.
        details: for each input what it holds: ``"number"``, ``"category: 3 values"``.
        left_out: names of other columns, each with the reason.

    Raises:
        ConfigError: if there is no input, or the label is one.

    Example::

        from quickstudy.tasks.roles import find_roles
        from quickstudy.tables.read import read_table
        rows = [{"a": 1.5, "b": "x", "label": "p"}, {"a": 2, "b": "x", "label": "q"}]
        roles = find_roles(read_table(rows), label="label")
        print(roles.text())
    """

    kind: str
    inputs: tuple[str, ...]
    label: str | None = None
    details: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("image", "text", "table") or not self.inputs:
            raise ConfigError(f"{self.kind!r} with the inputs {self.inputs} is no role of columns.")
        if self.label in self.inputs:
            raise ConfigError(f"{self.label!r} is the column of labels, and so no input.")

    def to_dict(self) -> dict[str, Any]:
        """Return what a task file keeps: the names."""
        return {"kind": self.kind, "inputs": list(self.inputs), "label": self.label}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Roles:
        """Return what :meth:`to_dict` wrote.

        Raises:
            ConfigError: if it is something else.
        """
        kind, inputs, label = (found.get(key) for key in ("kind", "inputs", "label"))
        if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
            raise ConfigError(f"the input columns are {inputs!r}, and no list of names.")
        if label is not None and not isinstance(label, str):
            raise ConfigError(f"the column of labels is {label!r}, and no name.")
        return cls(str(kind), tuple(inputs), label)

    def text(self) -> str:
        """Return one line for people: label, inputs by kind, what was left out and why."""
        parts = [] if self.label is None else [f"label: column {self.label!r}"]
        if self.kind != "table":
            parts.append(f"input: {self.kind}s in column {self.inputs[0]!r}")
        else:
            parts.append(f"inputs: {self._inputs_by_kind()}")
        if self.left_out:
            shown = [f"{name or '(no name)'} ({why})" for name, why in self.left_out]
            parts.append(f"left out: {some(shown, _MOST_NAMES_SHOWN)}")
        return "; ".join(parts)

    def _inputs_by_kind(self) -> str:
        groups: dict[str, list[str]] = {}
        for name, detail in zip(self.inputs, self.details, strict=True):
            kind, _, values = detail.partition(": ")
            noun = "number" if kind in NUMBER_KINDS else _NOUNS.get(kind, kind)
            written = kind.removeprefix("number ") if kind in NUMBER_KINDS[1:] else ""
            about = values or (f"as {written}" if written else "")
            groups.setdefault(noun, []).append(f"{name}: {about}" if about else name)
        return ", ".join(
            f"{len(names):,} {_plural(noun, len(names))} ({some(names, _MOST_NAMES_SHOWN)})"
            for noun, names in groups.items()
        )


def tells_part(column: str) -> bool:
    """Return whether a column says which part of a data set each row belongs to."""
    return column.strip().lower() == _SPLIT_COLUMN


@checked
def find_label(table: Table, label: str | None, *, but: Sequence[str] = ()) -> str | None:
    """Return the name of the column of labels, or ``None`` if no column has a usual name.

    Args:
        table: to look in.
        label: its name, if it is known; upper and lower case count only where both exist.
        but: columns that are something else.

    Raises:
        ConfigError: if there is no such column.
    """
    if label is not None:
        return _column(table, label)
    lower = {name.strip().lower(): name for name in reversed(table.names) if name not in but}
    exact = next((name for name in LABEL_COLUMNS if name in table.columns and name not in but), "")
    return exact or next((lower[name] for name in LABEL_COLUMNS if name in lower), None)


def _column(table: Table, name: str) -> str:
    if name in table.columns:
        return name
    same = [known for known in table.names if known.strip().lower() == name.strip().lower()]
    if len(same) == 1:
        return same[0]
    raise ConfigError(
        f"{table.source}: no column {name!r}. {nearest_names(name, filter(None, table.names))}"
    )


@checked
def find_roles(
    table: Table, *, label: str | None, column: str | None = None, group: str | None = None
) -> Roles:
    """Return what the columns are taken for, by the rule at the top of this module.

    Args:
        table: the rows to learn from.
        label: the column of labels, or ``None`` if there is none.
        column: the column of texts or images, if the user named one.
        group: the column of groups, if the user named one.

    Raises:
        ConfigError: if there is no such column.
        DataError: if no column can be an input, or several could be and only one can.
    """
    left_out: dict[str, str] = {}
    for name, cells in table.columns.items():
        if name != label and (why := _why_never(name, cells, group)) is not None:
            left_out[name] = why
    candidates = [n for n in table.names if n != label and n not in left_out]
    kinds = {
        name: CATEGORY
        if name in table.categories
        else kind_of(table.columns[name], semicolons=table.semicolons)
        for name in candidates
    }
    ids = {name: why for name in candidates if (why := _why_id(table, name, kinds[name], label))}
    chosen = _chosen(table, column, candidates, kinds, ids, label)
    if chosen is not None:
        kind = "image" if _holds_images(chosen, table.columns[chosen], only=False) else "text"
        if column is None and kind == "text" and chosen in _IMAGE_COLUMNS:
            kind = "image"
        reasons = {**dict.fromkeys(candidates, f"not used beside {kind}s"), **left_out}
        rest = tuple((n, reasons[n]) for n in table.names if n not in (chosen, label))
        return Roles(kind, (chosen,), label, (kind,), rest)
    inputs = [name for name in candidates if name not in ids]
    details = tuple(_detail(table.columns[name], kinds[name]) for name in inputs)
    reasons = {**ids, **left_out}
    for name in ids:
        if _reads_as_text(table.columns[name], kinds[name]):
            reasons[name] = f"texts, which numbers stand beside; {reasons[name]}"
    rest = tuple((name, reasons[name]) for name in table.names if name in reasons)
    return Roles("table", tuple(inputs), label, details, rest)


# ---------------------------------------------------------------- which column is the input


def _chosen(
    table: Table,
    column: str | None,
    candidates: Sequence[str],
    kinds: Mapping[str, str],
    ids: Mapping[str, str],
    label: str | None,
) -> str | None:
    """Return the one column of images or texts that is the input, or ``None`` = a table."""
    if column is not None:
        name = _column(table, column)
        if name == label:
            raise ConfigError(f"{column!r} is the column of labels. Name another for the input.")
        return name
    images = [n for n in table.names if n != label and _holds_images(n, table.columns[n])]
    if images:
        return min(images, key=lambda n: (n not in _IMAGE_COLUMNS, _place(n, _IMAGE_COLUMNS)))
    # an id by its name is no text, however unlike its values are
    able = [n for n in candidates if not (n in ids and _named_as_id(n))]
    if len(able) == 1 and able[0].strip().lower() in _PLAIN_TEXT_COLUMNS:
        return able[0]  # whatever the texts are: numbers, dates
    words = [n for n in able if kinds[n] == CATEGORY]
    numbers = [n for n in able if kinds[n] != CATEGORY]
    texts = [n for n in words if _is_text(n, table.columns[n], kinds[n])]
    usual = [n for n in texts if n.strip().lower() in _TEXT_COLUMNS]
    if usual:
        return min(usual, key=lambda n: _place(n.strip().lower(), _TEXT_COLUMNS))
    if numbers:
        return None
    if len(able) == 1 and (
        able[0].strip().lower() in (*_TEXT_COLUMNS, *_IMAGE_COLUMNS)
        or _differ(table.columns[able[0]])
    ):
        return able[0]
    if len(texts) == 1:
        return texts[0]
    if any(n not in ids and not _all_differ(table.columns[n]) for n in words) and not texts:
        return None
    shown = some([repr(name) for name in candidates], _MOST_NAMES_SHOWN) or "none"
    raise DataError(
        f"{table.source}: needs a column of texts ({_TEXT_COLUMNS[0]}), of image paths "
        f"({_IMAGE_COLUMNS[0]}), or of numbers or categories; it has {shown}. Say which column is "
        "the input, or rename it."
    )


def _place(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)


def _holds_images(name: str, cells: Sequence[Any], *, only: bool = True) -> bool:
    """Return whether cells are images: records with bytes, as the Hugging Face Hub stores them, or
    paths with the ending of an image, in a column that is named so (or ``only`` by content)."""
    filled = [cell for cell in cells if not is_empty(cell)]
    if not filled:
        return name in _IMAGE_COLUMNS
    if any(isinstance(cell, Mapping) for cell in filled):
        return all(isinstance(cell, Mapping) and cell.keys() >= {"bytes"} for cell in filled)
    if all(isinstance(cell, bytes) for cell in filled):
        return name in _IMAGE_COLUMNS
    paths = all(
        isinstance(cell, str) and Path(cell.strip()).suffix.lower() in IMAGE_SUFFIXES
        for cell in filled
    )
    return paths and (name in _IMAGE_COLUMNS or not only)


def _differ(cells: Sequence[Any]) -> bool:
    """Return whether most texts differ from each other."""
    return len(set(map(str, cells))) > len(cells) / 2


def _all_differ(cells: Sequence[Any]) -> bool:
    return len(set(map(str, cells))) == len(cells)


def _is_text(name: str, cells: Sequence[Any], kind: str) -> bool:
    if name.strip().lower() in _PLAIN_TEXT_COLUMNS and kind == CATEGORY and _differ(cells):
        return all(isinstance(cell, str) for cell in cells)
    return _reads_as_text(cells, kind)


def _reads_as_text(cells: Sequence[Any], kind: str) -> bool:
    """Return whether cells are texts of several words, or long ones, most of them different."""
    if kind != CATEGORY or not all(isinstance(cell, str) for cell in cells) or not _differ(cells):
        return False
    spaced = sum(" " in cell.strip() for cell in cells)
    return 2 * spaced >= len(cells) or sum(map(len, cells)) > _LONG_TEXT * len(cells)


# ---------------------------------------------------------------- what is no input


def _why_never(name: str, cells: Sequence[Any], group: str | None) -> str | None:
    """Return why a column is no input whatever its values are, or ``None``."""
    if name in _ROW_NUMBERS:
        return "row numbers"
    if tells_part(name):
        return "tells the parts of the data"
    if group is not None and name == group:
        return "tells the groups"
    if name in _IMAGE_COLUMNS:
        return None
    filled = [cell for cell in cells if not is_empty(cell)]
    if not filled:
        return "empty"
    nested = next((cell for cell in filled if isinstance(cell, _NESTED)), None)
    if nested is not None and not _holds_images(name, cells):
        return f"holds {type(nested).__name__}s"
    return None


def _named_as_id(name: str) -> bool:
    lower = name.strip().lower()
    return lower in _IDS or lower.endswith(("_id", "-id", " id", "_uuid")) or name.endswith("Id")


def _why_id(table: Table, name: str, kind: str, label: str | None) -> str | None:
    """Return why a column names rows and tells nothing about them, or ``None``."""
    cells = table.columns[name]
    n, different = len(cells), len({str(cell) for cell in cells})
    says = f"{different:,} different values in {n:,} rows"
    if _named_as_id(name) and different == n > 1 and kind in (*NUMBER_KINDS, CATEGORY):
        return says
    if kind != CATEGORY or n < _FEWEST_ROWS_OF_AN_ID or different <= _MOST_DIFFERENT * n:
        return None
    # with one example of each class every value differs, and may be what tells the classes apart
    classes = n if label is None else len({str(value) for value in table.columns[label]})
    return says if classes < n else None


def _detail(cells: Sequence[Any], kind: str) -> str:
    if kind != CATEGORY:
        return kind
    values = {str(cell).strip() for cell in cells if not is_empty(cell)}
    return f"{kind}: {len(values):,} value{'s' * (len(values) != 1)}"


def _plural(noun: str, n: int) -> str:
    if n == 1:
        return noun
    return {"category": "categories", "time of day": "times of day"}.get(noun, f"{noun}s")

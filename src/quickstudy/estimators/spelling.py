"""The same value in another spelling: 1, 1.0 and ``"1"``; ``True`` and ``"true"``; a date."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from quickstudy.core import TaskError

__all__ = ["KnownLabels", "check_spellings", "name_of", "value_of"]

# as programs write numbers; no thousands separators, as "1,000" may be 1 or 1000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:\d\d|Z)?)?")
_LONGEST = 64  # texts longer than this are no number and no date


def check_spellings(labels: Iterable[Hashable], *, known: int = 0) -> None:
    """Refuse labels of different types that are the same value, such as ``1`` and ``"1"``.

    Python itself cannot tell ``1`` from ``True``, and nobody can tell ``1`` from ``"1"`` in a file.

    Args:
        labels: of a task.
        known: how many of the first are accepted already, whatever they are.

    Raises:
        TaskError: if there are two such labels.
    """
    first: dict[Hashable, Hashable] = {}
    seen: set[tuple[type, Hashable]] = set()
    for position, label in enumerate(labels):
        if (type(label), label) in seen:
            continue
        seen.add((type(label), label))
        values: list[Hashable] = [value_of(label)]
        if isinstance(label, bool):
            values.append(("number", Decimal(int(label))))
        for value in values:
            other = first.setdefault(value, label)
            if position >= known and type(other) is not type(label):
                raise TaskError(
                    f"{other!r} and {label!r} are one value in two types, which cannot be two "
                    "classes. Write the label in one way."
                )


class KnownLabels:
    """The classes of a task, by value."""

    def __init__(self, classes: Sequence[Hashable]) -> None:
        self._classes = classes
        self._exact: dict[tuple[type, Hashable], int] = {}
        self._text: dict[str, list[int]] = {}
        self._value: dict[Hashable, list[int]] = {}
        for column, label in enumerate(classes):
            self._exact.setdefault((type(label), label), column)
            self._text.setdefault(_stripped(str(label)), []).append(column)
            self._value.setdefault(value_of(label), []).append(column)

    def columns(self, label: Any, *, texts_are_names: bool = False) -> list[int]:
        """Return the classes that a label may be: itself, else as text, else by value."""
        try:
            if (column := self._exact.get((type(label), label))) is not None:
                return [column]
        except TypeError:  # a list or another type that cannot be hashed
            return []
        # True is written 'True', and is no text
        if found := self._text.get(_stripped(str(label))):
            return found
        value = value_of(label)
        found = self._value.get(value, [])
        if texts_are_names and isinstance(label, str) and value[0] == "number":
            found = [c for c in found if not isinstance(self._classes[c], str)]
        return found


def value_of(label: Any) -> tuple[Hashable, ...]:
    """Return what is equal for two spellings of one value."""
    if isinstance(label, bool):
        return "truth", label
    if isinstance(label, int | Decimal):
        return "number", Decimal(label)
    if isinstance(label, float):
        return "number", Decimal(repr(label))
    if isinstance(label, np.datetime64):
        label = label.astype("datetime64[us]").item()
    if isinstance(label, datetime.datetime):
        return "date", _moment(label)
    if isinstance(label, datetime.date):
        return "date", label.isoformat()
    text = _stripped(str(label))
    if len(text) <= _LONGEST and text.isascii():
        if _NUMBER.fullmatch(text):
            return "number", Decimal(text)
        if text.lower() in ("true", "false"):
            return "truth", text.lower() == "true"
        if _DATE.fullmatch(text):
            try:
                return "date", _moment(datetime.datetime.fromisoformat(text))
            except ValueError:  # the 31st of a short month
                pass
    return "text", text


def name_of(label: Any) -> str:
    """Return one text for all spellings of a value: ``"3"`` of 3, 3.0 and ``" 3 "``."""
    kind, value = value_of(label)
    if kind == "number":
        return format(Decimal(str(value)).normalize(), "f")
    return str(value).lower() if kind == "truth" else str(value)


def _moment(moment: datetime.datetime) -> str:
    """Return a time in ISO form; midnight is the date."""
    at_midnight = moment.time() == datetime.time() and moment.tzinfo is None
    return moment.date().isoformat() if at_midnight else moment.isoformat()


def _stripped(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()

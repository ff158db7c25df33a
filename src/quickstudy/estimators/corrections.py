"""Reads what somebody corrected in a file of answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError
from quickstudy.estimators.labels import MatchedLabels, match_labels
from quickstudy.estimators.saving import SavedTask
from quickstudy.tables.cells import is_empty
from quickstudy.tables.read import Table, read_table
from quickstudy.tasks.labelled import LabelledFiles, read_inputs

__all__ = ["corrections"]

_CORRECT = "correct"
# what may stand around the name of a column of answers that the user's table has too
_RENAMED = r"(predicted_{name}(_\d+)?|{name})"


def corrections(path: str | Path, saved: SavedTask) -> LabelledFiles:
    """Return the inputs whose answer was corrected, with the right labels.

    Right are the cells of a column ``correct`` that are not empty; and in the other rows the labels
    that differ from what the task answered (its column ``nearest`` tells, and ``known``).

    Args:
        path: what ``predict --out`` wrote, edited.
        saved: the task that answered.

    Raises:
        ConfigError: if it is no file of answers, nothing was corrected, or a column ``correct``
            may be the table's own.
        DataError: if it cannot be read.
    """
    table = read_table(path)
    ours = {name: _ours(table, name) for name in ("input", "label", "nearest", "known")}
    if ours["label"] is None or ours["nearest"] is None:
        raise ConfigError(
            f"{table.source} is no file of answers: it lacks the columns label and nearest. Write "
            "one with predict, and correct the labels in it."
        )
    labels = _right_labels(table, ours, saved)
    rows = [row for row, label in enumerate(labels) if not is_empty(label)]
    if not rows:
        raise ConfigError(
            f"nothing is corrected in {table.source}. Change a label, or write the right one into "
            f"a column {_CORRECT!r}."
        )
    read = replace(_inputs(path, table, ours["input"], saved).take(rows))
    given = [labels[row] for row in rows]
    matched = match_labels(given, saved.version.classes)
    if matched.ambiguous:
        raise ConfigError(f"{table.source}: {matched.text()}")
    classes = saved.version.classes
    right = [
        label if column < 0 else classes[column]
        for label, column in zip(given, matched.columns, strict=True)
    ]
    return replace(read, y=right)


def _ours(table: Table, name: str) -> str | None:
    """Return what a column of answers is called here; ``None`` = there is none.

    The last one is meant: answers stand behind the table's own columns, which may be older answers.
    """
    pattern = re.compile(_RENAMED.format(name=name))
    return next((n for n in reversed(list(table.columns)) if pattern.fullmatch(n)), None)


def _written(table: Table, ours: Mapping[str, str | None]) -> Sequence[Any] | None:
    """Return the column ``correct``; ``None`` = there is none."""
    if _CORRECT not in table.columns:
        return None
    names = list(table.columns)
    answers = min(names.index(name) for name in ours.values() if name is not None)
    own = names[:answers]
    # of a table of users' own with a column of this name it may say anything
    if _CORRECT in own and len(own) > 1:
        raise ConfigError(
            f"{table.source}: the column {_CORRECT!r} stands among the table's own columns, before "
            "the answers. If it holds the right labels, move it behind the answers; if not, rename "
            "it, and change the labels."
        )
    return table.columns[_CORRECT]


def _right_labels(table: Table, ours: Mapping[str, str | None], saved: SavedTask) -> Sequence[Any]:
    """Return the right label of each corrected row, and ``None`` for the others."""
    changed = _changed_labels(table, ours, saved)
    if (written := _written(table, ours)) is None:
        return changed
    return [old if is_empty(new) else new for new, old in zip(written, changed, strict=True)]


def _changed_labels(
    table: Table, ours: Mapping[str, str | None], saved: SavedTask
) -> Sequence[Any]:
    """Return the labels that are not those that were answered, and ``None`` for the others."""
    now, nearest = (table.columns[str(ours[name])] for name in ("label", "nearest"))
    known = table.columns[ours["known"]] if ours["known"] else [True] * len(now)
    unknown = saved.unknown
    names = [*saved.version.classes, *([] if unknown is None else [unknown])]
    said: list[Any] = []
    for was, sure in zip(nearest, known, strict=True):
        stranger = unknown is not None and str(sure).strip().lower() in ("false", "0", "0.0")
        said.append(unknown if stranger else was)
    a, b = match_labels(now, names), match_labels(said, names)
    return [
        label if _differs(a, b, row, label, said[row], unknown) else None
        for row, label in enumerate(now)
    ]


def _differs(
    now: MatchedLabels, said: MatchedLabels, row: int, label: Any, answer: Any, unknown: Any
) -> bool:
    if is_empty(label) or is_empty(answer):
        return False  # the input could not be used
    if unknown is not None and str(label) == str(unknown):
        return False  # a stranger is an example of no class
    if now.columns[row] >= 0 or said.columns[row] >= 0:
        return bool(now.columns[row] != said.columns[row])
    return str(label) != str(answer)


def _inputs(path: str | Path, table: Table, column: str | None, saved: SavedTask) -> LabelledFiles:
    """Return the inputs of the answers: from the columns that the task reads, or by their names."""
    roles, modality = saved.roles, saved.version.embedder.modality
    if roles is not None and set(roles.inputs) & set(table.columns):
        return replace(read_inputs([path], roles=roles), y=None)
    if modality == "table":
        return replace(read_inputs([path]), y=None)
    if column is None:
        raise ConfigError(f"{table.source} does not say which inputs it is about.")
    names = [str(value) for value in table.columns[column]]
    if modality == "text":
        return LabelledFiles(names, None, "text", names)
    beside = Path(path).parent
    found = [n if Path(n).exists() or not (beside / n).exists() else str(beside / n) for n in names]
    return LabelledFiles(found, None, "image", names)

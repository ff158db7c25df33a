"""What a user gives to a task, checked: labels of examples, rows, numbers, shares."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor

from quickstudy.core import ConfigError, DataError, TaskError
from quickstudy.core.values import is_missing
from quickstudy.embedders.base import Embedder, Item
from quickstudy.estimators.labels import (
    Label,
    as_labels,
    checked_label,
    class_of,
    classes_of,
    counted,
    match_labels,
)
from quickstudy.estimators.spelling import name_of
from quickstudy.estimators.support import Floats, Support

__all__ = [
    "answer_for_strangers",
    "embed_support",
    "group_numbers",
    "labels_for",
    "read_some",
    "refuse_sparse",
    "rows_of",
    "share",
    "whole_number",
    "width",
    "with_groups",
    "with_names",
]


def whole_number(value: Any, name: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        ConfigError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1; got {value!r}.")
    return int(value)


def share(value: Any, name: str) -> float:
    """Return a share between 0 and 1, both excluded.

    Raises:
        ConfigError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ConfigError(f"{name} must lie between 0 and 1; got {value!r}.")
    return float(value)


def rows_of(support: Support, rows: Any) -> list[int]:
    """Return numbers of rows of a support set.

    Raises:
        ConfigError: if there is none, or one is no row; a mask of truth values is none.
    """
    if isinstance(rows, (str, bytes)) or not hasattr(rows, "__iter__") or np.ndim(rows) > 1:
        raise ConfigError(f"rows of the support must be a list; got {rows!r}. Give [{rows!r}].")
    chosen = list(rows)
    if not chosen:
        raise ConfigError("rows of the support must name at least one example; got none.")
    return [support.row(row) for row in chosen]


def labels_for(items: Sequence[Item], y: Any, classes: Sequence[Label]) -> list[Label]:
    """Return the labels of new examples: classes of the task where they name one, or new ones.

    Args:
        items: the examples ``[M]``.
        y: their labels ``[M]``, or one label for all of them.
        classes: of the task.

    Raises:
        TaskError: if they do not fit the examples, one is missing or cannot be a label, or it may
            be several classes.
    """
    several = hasattr(y, "__iter__") and getattr(y, "ndim", 1) > 0
    if isinstance(y, (str, bytes)) or not several:
        return [class_of(y, classes)] * len(items)
    labels = as_labels(y)
    if len(labels) != len(items):
        raise TaskError(
            f"got {counted(len(items), 'input')} and {counted(len(labels), 'label')}. Give one "
            "label for each, or one for all."
        )
    return classes_of(labels, classes)


def answer_for_strangers(unknown: Any, classes: Sequence[Label]) -> Label | None:
    """Return the answer for inputs that fit no class, after checking that it is no class.

    Raises:
        ConfigError: if it is one, or cannot be a label.
    """
    if unknown is None:
        return None
    try:
        plain = checked_label(unknown)
    except TaskError as error:
        raise ConfigError(f"unknown: {error}") from error
    column = int(match_labels([plain], classes).columns[0])
    if column >= 0:
        raise ConfigError(
            f"there is a class {classes[column]!r}, so unknown= cannot be the same word: strangers "
            "could not be told from it. Choose another word for unknown, or rename the class."
        )
    return plain


def with_names(items: list[Item], names: Sequence[str] | None) -> list[Item]:
    """Return items with names to show to people, where they have none of their own."""
    if names is None:
        return items
    return [
        replace(item, source=name) if item.source is None else item
        for item, name in zip(items, names, strict=True)
    ]


def with_groups(items: list[Item], groups: Any) -> list[Item]:
    """Return items that know the group they belong to.

    Args:
        items: the examples ``[M]``.
        groups: name or number of the group of each ``[M]``; ``None`` = there are no groups.

    Raises:
        TaskError: if there is not one for each example, or one is missing.
    """
    if groups is None:
        return items
    if isinstance(groups, (str, bytes)) or not hasattr(groups, "__iter__"):
        raise TaskError(f"groups must be a list, one for each example; got {groups!r}.")
    if isinstance(groups, dict | set | frozenset) or np.ndim(groups) > 1:
        raise TaskError(f"groups must be a list in the order of the examples; got {groups!r:.60}.")
    names = list(groups.tolist() if hasattr(groups, "tolist") else groups)
    if len(names) != len(items):
        raise TaskError(
            f"got {counted(len(items), 'input')} and {counted(len(names), 'group')}. Give one "
            "group for each."
        )
    for row, name in enumerate(names):
        if is_missing(name) or (isinstance(name, str) and not name.strip()):
            raise TaskError(f"row {row} has no group. Give each example one, or leave groups out.")
        dated = isinstance(name, datetime.date | np.datetime64)
        if (not dated and not isinstance(name, str | bool | Real)) or name in (np.inf, -np.inf):
            raise TaskError(
                f"row {row}: {name!r:.60} cannot name a group. Give a text, a number or a date."
            )
    # 3, 3.0 and "3" are one group: a column that once held a gap comes as floats
    return [replace(item, group=name_of(name)) for item, name in zip(items, names, strict=True)]


def group_numbers(items: Sequence[Item]) -> Tensor | None:
    """Return a number for the group of each item ``[N]``; ``None`` if none belongs to a group.

    An item without a group is one of its own.
    """
    if all(item.group is None for item in items):
        return None
    number: dict[Any, int] = {}
    names = [("of", row) if i.group is None else i.group for row, i in enumerate(items)]
    return torch.tensor([number.setdefault(name, len(number)) for name in names])


def embed_support(embedder: Embedder, items: list[Item]) -> tuple[Floats, list[Item]]:
    """Return embeddings ``[N, D]``, and the items without the values that were embedded."""
    z = embedder.embed(items, progress=True)
    if embedder.fitted:  # the next edit fits it again, and needs the values
        return z, items
    return z, [replace(i, value=None, preview=embedder.preview(i)) for i in items]


def width(X: Any) -> int | None:
    """Return the number of columns of a table, or ``None`` if it is none."""
    shape: tuple[int, ...] = getattr(X, "shape", ())
    return int(shape[1]) if len(shape) == 2 else None


def read_some(embedder: Embedder, X: Any) -> list[Item]:
    """Return inputs as an embedder reads them.

    Raises:
        DataError: if one cannot be used.
        TaskError: if there is none.
    """
    refuse_sparse(X)
    items = embedder.read(X)
    if not items:
        raise TaskError("got 0 inputs. Give at least one example.")
    return items


def refuse_sparse(X: Any) -> None:
    """Refuse a sparse matrix.

    Raises:
        DataError: if it is one.
    """
    if issparse(X):
        raise DataError("sparse input is not supported. Give X.toarray().")

"""The labelled examples of one task. They never change: every edit returns other ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import ConfigError, nearest_names
from quickstudy.embedders.base import Item
from quickstudy.estimators.answers import Conflict
from quickstudy.estimators.labels import Label, named, plain_label
from quickstudy.estimators.spelling import KnownLabels

__all__ = ["Bools", "Floats", "Ints", "Support", "tensor_of"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Support:
    """The support set of one task. It never changes: its arrays are read-only.

    An edit returns a support set that shares the items with this one, and also the embeddings if no
    row comes or goes (a class is renamed, an example relabelled). Other edits copy the embeddings.

    Args:
        classes: the labels, in the order of the columns of every score.
        items: the examples ``[N]``, in the order in which they came.
        y: class of each example ``[N]``, an index into ``classes``.
        z: embeddings ``[N, D]``.

    Example::

        from quickstudy.estimators.support import Support
        items = get_embedder("array").read([[0.0, 1.0], [1.0, 0.0]])
        y, z = torch.tensor([0, 1]).numpy(), torch.eye(2).numpy()
        support = Support(("a", "b"), tuple(items), y, z)
        print(support.n_way, support.counts, support.relabelled(1, "a").classes)
    """

    classes: tuple[Label, ...]
    items: tuple[Item, ...]
    y: Ints
    z: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "y", _read_only(self.y))
        object.__setattr__(self, "z", _read_only(self.z))

    def __reduce__(self) -> tuple[Any, ...]:
        # calls __init__ again, because numpy does not keep in a pickle that an array is read-only
        return Support, (self.classes, self.items, self.y, self.z)

    @property
    def counts(self) -> Ints:
        """The number of examples of each class ``[C]``."""
        return np.bincount(self.y, minlength=len(self.classes)).astype(np.int64)

    @property
    def n_way(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def label(self, row: int) -> Label:
        """Return the label of the example in a row."""
        return self.classes[int(self.y[row])]

    def row(self, row: Any) -> int:
        """Return the number of a row as an ``int``.

        Raises:
            ConfigError: if there is no such row.
        """
        n = len(self.items)
        if isinstance(row, bool) or not isinstance(row, (int, np.integer)) or not 0 <= row < n:
            raise ConfigError(f"rows of the support are 0 to {n - 1}; got {row!r}.")
        return int(row)

    def index(self, label: Label) -> int:
        """Return the column of a class, which may be named in another spelling (``"1"`` for 1).

        Raises:
            ConfigError: if there is no such class, or there are several; the nearest names are
                offered.
        """
        found = KnownLabels(self.classes).columns(plain_label(label), texts_are_names=True)
        if len(found) > 1:
            may_be = named(self.classes[column] for column in found)
            raise ConfigError(f"{label!r} may be any of the classes {may_be}. Write it as one is.")
        if not found:
            near = nearest_names(str(label), map(str, self.classes))
            raise ConfigError(f"there is no class {label!r} in this task. {near}")
        return found[0]

    def __contains__(self, label: Label) -> bool:
        return _column(self.classes, label) is not None

    def conflicts(self) -> list[Conflict]:
        """Return the examples that are contained more than once, under different labels."""
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(self.items):
            rows.setdefault(item.key, []).append(row)
        return [
            Conflict(
                tuple(same),
                tuple(self.label(row) for row in same),
                tuple(self.items[row].source for row in same),
            )
            for same in rows.values()
            if len({int(self.y[row]) for row in same}) > 1
        ]

    def with_examples(self, labels: Sequence[Label], items: Sequence[Item], z: Floats) -> Support:
        """Return the support set with more examples, added class by class; a new class comes last.

        Args:
            labels: of the new examples ``[M]``.
            items: the new examples ``[M]``.
            z: their embeddings ``[M, D]``.
        """
        classes, order, y = self.classes, [], []
        for label in dict.fromkeys(labels):
            column = _column(classes, label)
            if column is None:
                column, classes = len(classes), (*classes, label)
            rows = [row for row, other in enumerate(labels) if other == label]
            order += rows
            y += [column] * len(rows)
        return replace(
            self,
            classes=classes,
            items=(*self.items, *(items[row] for row in order)),
            y=np.concatenate([self.y, np.array(y, dtype=np.int64)]),
            z=np.concatenate([self.z, z[order]]),
        )

    def without_class(self, label: Label) -> Support:
        """Return the support set without a class; the columns after it move down by one."""
        kept = self._kept(self.y != self.index(label))
        return kept._without_empty_classes()

    def without_examples(self, rows: Sequence[int]) -> Support:
        """Return the support set without some examples, and without classes that have none left."""
        keep = np.ones(len(self.items), dtype=bool)
        keep[list(rows)] = False
        return self._kept(keep)._without_empty_classes()

    def _kept(self, keep: Bools) -> Support:
        return replace(
            self,
            items=tuple(item for item, kept in zip(self.items, keep, strict=True) if kept),
            y=self.y[keep],
            z=self.z[keep],
        )

    def _without_empty_classes(self) -> Support:
        left = np.unique(self.y)
        classes = tuple(self.classes[c] for c in left)
        return replace(self, classes=classes, y=np.searchsorted(left, self.y).astype(np.int64))

    def relabelled(self, row: int, label: Label) -> Support:
        """Return the support set with one example moved to another class, which may be new."""
        column, classes = _column(self.classes, label), self.classes
        if column is None:
            column, classes = self.n_way, (*classes, label)
        y = self.y.copy()
        y[row] = column
        return replace(self, y=y, classes=classes)._without_empty_classes()

    def renamed(self, old: Label, new: Label) -> Support:
        """Return the support set with another name for a class.

        Raises:
            ConfigError: if there is no such class, or the new name is taken.
        """
        column = self.index(old)
        if new in self:
            raise ConfigError(
                f"cannot rename {old!r} to {new!r}: there is a class of that name already. "
                "To merge two classes, add the examples of one to the other and remove it."
            )
        classes = list(self.classes)
        classes[column] = new
        return replace(self, classes=tuple(classes))


def tensor_of(array: npt.NDArray[Any]) -> Tensor:
    """Return an array as a tensor; a read-only one is copied, because torch would warn about it."""
    return torch.from_numpy(np.require(array, requirements="W"))


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not array.flags.writeable:
        return array
    # a view, so that the caller can still write to the array itself
    view = array.view()
    view.flags.writeable = False
    return view


def _column(classes: Sequence[Label], label: Label) -> int | None:
    """Return the column of a class, or ``None``; no text and no truth value is equal to a label of
    another type, whatever that type's ``==`` says."""
    for column, known in enumerate(classes):
        apart = (str, bool)
        if known == label and all(isinstance(known, k) == isinstance(label, k) for k in apart):
            return column
    return None

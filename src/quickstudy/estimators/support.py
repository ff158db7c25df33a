"""The labelled examples of one task: an immutable version per edit, so that undo is a step back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from quickstudy.core import ConfigError, Examples, nearest_names
from quickstudy.embedders.base import Item
from quickstudy.estimators.answers import Conflict
from quickstudy.estimators.labels import Label

__all__ = ["Floats", "Ints", "Support"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Support:
    """The support set of one task.

    Args:
        classes: the labels, in the order of the columns of every score.
        items: the examples ``[N]``, in the order they came.
        y: class of each example ``[N]``, an index into ``classes``.
        z: embeddings ``[N, D]``.
    """

    classes: tuple[Label, ...]
    items: tuple[Item, ...]
    y: Ints
    z: Floats

    @property
    def counts(self) -> Ints:
        """The number of examples of each class ``[C]``."""
        return np.bincount(self.y, minlength=len(self.classes)).astype(np.int64)

    @property
    def n_way(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def examples(self) -> Examples:
        """Return the support set as one task of the learners' contract, ``[1, N, D]``."""
        x, y = torch.from_numpy(self.z), torch.from_numpy(self.y)
        return Examples.full(x[None], y[None])

    def index(self, label: Label) -> int:
        """Return the column of a class.

        Raises:
            ConfigError: if there is no such class; the nearest names are offered.
        """
        column = self._column(label)
        if column is None:
            near = nearest_names(str(label), map(str, self.classes))
            raise ConfigError(f"there is no class {label!r} in this task. {near}")
        return column

    def __contains__(self, label: Label) -> bool:
        return self._column(label) is not None

    def _column(self, label: Label) -> int | None:
        for column, known in enumerate(self.classes):
            if known == label and isinstance(known, str) == isinstance(label, str):
                return column
        return None

    def conflicts(self) -> list[Conflict]:
        """Return the examples that are there more than once, under different labels."""
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(self.items):
            rows.setdefault(item.key, []).append(row)
        return [
            Conflict(
                tuple(same),
                tuple(self.classes[self.y[row]] for row in same),
                tuple(self.items[row].source for row in same),
            )
            for same in rows.values()
            if len({int(self.y[row]) for row in same}) > 1
        ]

    def with_examples(self, label: Label, items: Sequence[Item], z: Floats) -> Support:
        """Return the support set with more examples, of a class that may be new (then it is
        last)."""
        column, classes = self._column(label), self.classes
        if column is None:
            column, classes = self.n_way, (*classes, label)
        return replace(
            self,
            classes=classes,
            items=(*self.items, *items),
            y=np.concatenate([self.y, np.full(len(items), column, dtype=np.int64)]),
            z=np.concatenate([self.z, z]) if len(self.z) else z,
        )

    def without_class(self, label: Label) -> Support:
        """Return the support set without a class; the columns after it move up."""
        gone = self.index(label)
        keep = self.y != gone
        y = self.y[keep]
        return replace(
            self,
            classes=self.classes[:gone] + self.classes[gone + 1 :],
            items=tuple(item for item, kept in zip(self.items, keep, strict=True) if kept),
            y=y - (y > gone),
            z=self.z[keep],
        )

    def without_examples(self, rows: Sequence[int]) -> Support:
        """Return the support set without some examples; a class that has none left goes too."""
        keep = np.ones(len(self.items), dtype=bool)
        keep[list(rows)] = False
        y = self.y[keep]
        left = np.unique(y)
        return replace(
            self,
            classes=tuple(self.classes[c] for c in left),
            items=tuple(item for item, kept in zip(self.items, keep, strict=True) if kept),
            y=np.searchsorted(left, y).astype(np.int64),
            z=self.z[keep],
        )

    def relabelled(self, row: int, label: Label) -> Support:
        """Return the support set with one example moved to another class, which may be new."""
        column, classes = self._column(label), self.classes
        if column is None:
            column, classes = self.n_way, (*classes, label)
        y = self.y.copy()
        y[row] = column
        moved = replace(self, y=y, classes=classes)
        return moved.without_examples([])  # drops a class that lost its last example

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

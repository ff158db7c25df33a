"""What a task was before its last edits: kept small, so that undo costs little memory.

An edit touches a few examples. So of the task before it only what the task after it lacks is kept:
the embeddings of removed examples, the former classes and labels. Going back puts the two together
and fits the head again, which gives the same numbers bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from quickstudy.core import TaskError
from quickstudy.embedders.base import Embedder, Item
from quickstudy.estimators.answers import Edit
from quickstudy.estimators.labels import Label
from quickstudy.estimators.support import Floats, Ints, Support
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.prior import TaskPrior

__all__ = ["MOST_UNDONE", "History", "Past"]

MOST_UNDONE = 20
"""So many edits can be undone; what lies before is forgotten."""


@dataclass(frozen=True, slots=True)
class Past:
    """A task before one edit, without what it shares with the task after it.

    Args:
        what: the edit did, for people.
        head: that was asked for.
        classes: the labels ``[C]``.
        items: the examples ``[N]``.
        y: class of each example ``[N]``, an index into ``classes``.
        rows: where the embedding of each example is ``[N]``: a row of the task after the edit, or
            -1 = the next row of ``z``.
        z: embeddings that the task after the edit lacks ``[M, D]``; none where the embedder is
            fitted to the examples, which are then embedded again.
        n_features: number of columns, if the inputs were a table.
        embedder: the task's; ``None`` = fitted again, as for a task from a file.
        prior: the task's; ``None`` = that of the task after the edit, if it fits.
        edit: how the task had been made from the one before it.
    """

    what: str
    head: str
    classes: tuple[Label, ...]
    items: tuple[Item, ...]
    y: Ints
    rows: Ints
    z: Floats
    n_features: int | None = None
    embedder: Embedder | None = None
    prior: TaskPrior | None = None
    edit: Edit | None = None

    @classmethod
    def of(cls, before: TaskVersion, after: TaskVersion) -> Past:
        """Return what ``after`` lacks of ``before``."""
        old, new = before.support, after.support
        rows = np.full(len(old.items), -1, dtype=np.int64)
        kept = old.z[:0].copy()  # a view would hold all of it
        if not before.embedder.fitted:
            # the same object, not only the same content: an embedder may be random
            row_of = {id(item): row for row, item in enumerate(new.items)}
            rows = np.array([row_of.get(id(item), -1) for item in old.items], dtype=np.int64)
            kept = old.z[rows < 0].copy()
        return cls(
            "" if after.edit is None else after.edit.what,
            before.head,
            old.classes,
            old.items,
            old.y,
            rows,
            kept,
            before.n_features,
            before.embedder,
            before.prior,
            before.edit,
        )

    def version(self, after: TaskVersion) -> TaskVersion:
        """Return the task before the edit.

        Args:
            after: the task after it.
        """
        embedder = self.embedder or after.embedder.fit(self.items)
        if embedder.fitted:
            z = embedder.embed(self.items)
        else:
            z = np.empty((len(self.items), after.support.z.shape[1]), dtype=np.float32)
            shared = self.rows >= 0
            z[shared] = after.support.z[self.rows[shared]]
            z[~shared] = self.z
        prior = self.prior
        if prior is None:
            same = embedder.dim == after.embedder.dim
            prior = after.prior if same else after.prior.resized(embedder.dim)
        support = Support(self.classes, self.items, self.y, z)
        made = TaskVersion.learn(support, embedder, prior, head=self.head)
        return replace(made, n_features=self.n_features, edit=self.edit)


@dataclass(frozen=True, slots=True)
class History:
    """The last edits of a task, and how to go back.

    Args:
        past: the task before each of them, oldest first; at most :data:`MOST_UNDONE`.
        forgotten: whether there were more edits than that.
    """

    past: tuple[Past, ...] = ()
    forgotten: bool = False

    def after(self, before: TaskVersion, now: TaskVersion) -> History:
        """Return the history with one more edit.

        Args:
            before: the task before the edit.
            now: the task after it.
        """
        past = (*self.past, Past.of(before, now))
        return History(past[-MOST_UNDONE:], self.forgotten or len(past) > MOST_UNDONE)

    def back(self, now: TaskVersion) -> tuple[TaskVersion, History]:
        """Return the task before the last edit, and its history.

        Args:
            now: the task after it.

        Raises:
            TaskError: if there is nothing to undo.
        """
        if not self.past:
            raise TaskError(
                f"there is nothing more to undo: only the last {MOST_UNDONE} changes are kept."
                if self.forgotten
                else "there is nothing to undo: the task is as it was fitted or loaded."
            )
        return self.past[-1].version(now), History(self.past[:-1], self.forgotten)

"""The record of a change: what it did, and whether it moved the scores of the other classes."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from quickstudy.embedders.base import Embedder
from quickstudy.estimators.answers import Edit
from quickstudy.estimators.support import Support

__all__ = ["edit_between"]


class _Version(Protocol):
    """What is compared of two versions of a task."""

    @property
    def support(self) -> Support: ...
    @property
    def embedder(self) -> Embedder: ...
    @property
    def head(self) -> str: ...
    @property
    def head_name(self) -> str: ...


def edit_between(before: _Version, after: _Version, what: str, start: float) -> Edit:
    """Return the record of a change.

    Args:
        before: the version that was changed.
        after: what it became.
        what: for people, for example ``"removed class 'okapi'"``.
        start: ``time.perf_counter()`` when the change began.
    """
    old, new = before.support, after.support
    # all other heads subtract the task's mean, which moves when a class comes or goes
    unmoved = after.head_name == "class-mean"
    if before.head == after.head and np.array_equal(old.y, new.y):
        unmoved |= np.array_equal(old.z, new.z)  # only names differ, which heads do not use
    unmoved &= before.embedder.fingerprint == after.embedder.fingerprint
    return Edit(what, new.n_way, len(new.items), unmoved, time.perf_counter() - start)

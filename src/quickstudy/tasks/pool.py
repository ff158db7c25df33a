"""A pool: all examples of a data set in memory, sorted by class, so that one gather makes a batch
of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import DataError
from quickstudy.core.arguments import checked

__all__ = ["Pool"]

Ints = npt.NDArray[np.int64]


@checked
@dataclass(frozen=True, slots=True)
class Pool:
    """Examples of many classes, sorted by class.

    Args:
        x: examples ``[M, ...]``: uint8 images ``[M, channels, height, width]`` or floating vectors.
        y: class index ``[M]`` int64, ascending; every class ``0 ... n_classes-1`` has at least one
            row.
        class_names: a name for each class.
        name: data set, for reports.
        split: part of the data set (``"train"``, ``"val"``, ``"test"``, ``"all"``).
        groups: drawer, track or the like of each row ``[M]`` int64, or ``None``. Equal numbers mean
            one group, also across classes.

    Raises:
        DataError: if the shapes disagree, the rows are not sorted by class or values are not
            finite.

    Example::

        x = torch.rand(6, 8)
        pool = Pool.build(x, ["cat", "dog", "cat", "dog", "owl", "owl"], name="animals")
        print(pool.class_names, pool.counts)
        source = PoolSource(pool)
        episode = source.episodes(EpisodeSpec(n_way=3, k_shot=1, n_query=1), [0], seed=0)
    """

    x: Tensor
    y: Tensor
    class_names: tuple[str, ...]
    name: str = "unnamed"
    split: str = "all"
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        self._check_types()
        counts = torch.bincount(self.y, minlength=len(self.class_names))
        if (
            len(self.x) != len(self.y)
            or len(counts) != len(self.class_names)
            or (self.groups is not None and self.groups.shape != self.y.shape)
        ):
            raise DataError(
                f"{self.name}: x {tuple(self.x.shape)}, y {tuple(self.y.shape)} and "
                f"{len(self.class_names)} class names do not belong together."
            )
        if bool((self.y[1:] < self.y[:-1]).any()) or bool((counts == 0).any()):
            raise DataError(
                f"{self.name}: rows must be sorted by class, without empty classes. Use Pool.build."
            )
        if self.x.is_floating_point() and not bool(torch.isfinite(self.x).all()):
            bad = int((~torch.isfinite(self.x)).flatten(1).any(1).nonzero()[0])
            raise DataError(
                f"{self.name}: row {bad} (class {self.class_names[int(self.y[bad])]!r}) has NaN or "
                "infinite values. Drop or repair it."
            )

    def _check_types(self) -> None:
        if self.x.dtype != torch.uint8 and not self.x.is_floating_point():
            raise DataError(
                f"{self.name}: x must be uint8 images or floating numbers; got {self.x.dtype}. "
                "Use x.float(), or x.to(torch.uint8) for pixels from 0 to 255."
            )
        if self.y.dtype != torch.int64 or self.y.ndim != 1:
            raise DataError(
                f"{self.name}: y must be int64 [M]; got {self.y.dtype} {list(self.y.shape)}. "
                "Pool.build takes labels of any kind."
            )
        if len(self.y) == 0 or int(self.y.min()) < 0:
            what = "there are no rows" if len(self.y) == 0 else f"label {int(self.y.min())}"
            raise DataError(
                f"{self.name}: {what}; classes are numbered from 0. Pool.build takes labels of "
                "any kind."
            )

    @classmethod
    def build(
        cls,
        x: Tensor,
        labels: Sequence[object],
        *,
        name: str,
        split: str = "all",
        groups: Sequence[object] | None = None,
    ) -> Pool:
        """Return a pool from rows in any order with labels of any kind (``3``, ``7``, ``"cat"``).

        Args:
            x: examples ``[M, ...]``.
            labels: one hashable label per row; classes are ordered by their text.
            name: data set, for reports.
            split: part of the data set.
            groups: one hashable value per row (drawer, track), or ``None``.

        Raises:
            DataError: if there is no row.
        """
        if len(labels) == 0 or len(labels) != len(x):
            raise DataError(
                f"{name}: {len(x)} examples with {len(labels)} labels. Check the source."
            )
        texts = np.array([str(label) for label in labels])
        class_names, y = np.unique(texts, return_inverse=True)
        order = np.argsort(y, kind="stable")
        group_ids = None
        if groups is not None:
            _, ids = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
            group_ids = torch.from_numpy(ids[order].astype(np.int64))
        rows = torch.from_numpy(order)
        return cls(
            x[rows],
            torch.from_numpy(y[order].astype(np.int64)),
            tuple(str(class_name) for class_name in class_names),
            name,
            split,
            group_ids,
        )

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def counts(self) -> Ints:
        """Examples per class ``[n_classes]``."""
        return np.bincount(self.y.numpy(), minlength=self.n_classes).astype(np.int64)

    @property
    def offsets(self) -> Ints:
        """First row of each class ``[n_classes]``."""
        counts = self.counts
        return np.cumsum(counts) - counts

    def with_x(self, x: Tensor) -> Pool:
        """Return the same pool with other inputs, for example cached embeddings ``[M, D]``."""
        return replace(self, x=x)

    def select(self, classes: Sequence[int], *, split: str | None = None) -> Pool:
        """Return the pool of some classes, in the order of their indices."""
        chosen = sorted(set(classes))
        if not chosen or not 0 <= chosen[0] <= chosen[-1] < self.n_classes:
            raise DataError(
                f"{self.name} has classes 0 to {self.n_classes - 1}; the selection "
                f"{chosen[:1]} to {chosen[-1:]} is empty or leaves them."
            )
        renumber = torch.full((self.n_classes,), -1, dtype=torch.int64)
        renumber[chosen] = torch.arange(len(chosen))
        keep = renumber[self.y] >= 0
        return Pool(
            self.x[keep],
            renumber[self.y[keep]],
            tuple(self.class_names[c] for c in chosen),
            self.name,
            split or self.split,
            None if self.groups is None else self.groups[keep],
        )

    def with_rotations(self) -> Pool:
        """Return the pool with each class turned by 0, 90, 180 and 270 degrees: four classes for
        one.

        Rotations as new classes follow Santoro et al. (2016), section 4.1.
        """
        if self.x.ndim != 4 or self.x.shape[2] != self.x.shape[3]:
            raise DataError(
                f"{self.name}: only square images [M, channels, side, side] can be turned; "
                f"got {list(self.x.shape)}."
            )
        n, m = self.n_classes, len(self.y)
        x = torch.stack([torch.rot90(self.x, turn, (2, 3)) for turn in range(4)], dim=1)
        y = self.y[:, None] * 4 + torch.arange(4)  # [M, 4]
        order = torch.argsort(y.flatten(), stable=True)
        names = tuple(f"{c}@{90 * turn}" for c in self.class_names for turn in range(4))
        assert len(names) == 4 * n
        groups = None if self.groups is None else self.groups[:, None].expand(m, 4).flatten()[order]
        return Pool(
            x.flatten(0, 1)[order], y.flatten()[order], names, self.name, self.split, groups
        )

    def sha256(self) -> str:
        """Return a hash of the contents: inputs, classes and groups."""
        digest = hashlib.sha256()
        digest.update(repr((tuple(self.x.shape), str(self.x.dtype), self.class_names)).encode())
        digest.update(self.x.contiguous().numpy().tobytes())
        digest.update(self.y.numpy().tobytes())
        if self.groups is not None:
            digest.update(self.groups.numpy().tobytes())
        return digest.hexdigest()

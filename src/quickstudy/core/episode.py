"""Episodes: batches of tasks, each with a support set to learn from and a query set to be judged
on.

Axes (see ``docs/axes.md``): ``T`` tasks, ``N`` examples, ``S`` support and ``Q`` query examples,
``C`` ways.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from quickstudy.core.errors import ConfigError, TaskError

__all__ = ["Episode", "EpisodeSpec", "Examples"]


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled examples of ``T`` tasks, padded to the longest.

    Args:
        x: inputs ``[T, N, ...]``.
        y: labels ``[T, N]``: int64 in ``[0, n_way)`` for classification (other whole numbers become
            int64), floating for regression.
        mask: bool ``[T, N]``; ``False`` marks padding (uneven shots or ways), which may hold
            anything.

    Raises:
        TaskError: if something is not a tensor, shapes or devices disagree, ``mask`` is not boolean
            or the labels are complex.

    Example::

        x = torch.tensor([[[0.1], [0.2], [0.0]]])  # [1, 3, 1]
        y = torch.tensor([[0, 1, 0]])
        mask = torch.tensor([[True, True, False]])
        support = Examples(x, y, mask).trimmed()  # without the padding at the end
    """

    x: Tensor
    y: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        for name in ("x", "y", "mask"):
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                raise TaskError(
                    f"{name} must be one tensor; got a {type(value).__name__}. "
                    + (
                        "Put several inputs beside each other, as [T, N, inputs, ...], and take "
                        "them apart in the network's forward."
                        if isinstance(value, dict | list | tuple) and name == "x"
                        else "Use torch.as_tensor()."
                    )
                )
        if self.x.ndim < 2 or self.y.shape != self.x.shape[:2] or self.mask.shape != self.y.shape:
            raise TaskError(
                "examples need x [T, N, ...], y [T, N] and mask [T, N]; got x "
                f"{tuple(self.x.shape)}, y {tuple(self.y.shape)}, mask {tuple(self.mask.shape)}. "
                "Add the task axis in front."
            )
        if self.mask.dtype != torch.bool:
            raise TaskError(f"mask must be bool; got {self.mask.dtype}. Use mask.bool().")
        if not self.x.device == self.y.device == self.mask.device:
            raise TaskError(
                f"x is on {self.x.device}, y on {self.y.device} and mask on {self.mask.device}. "
                "Move them to one device with .to()."
            )
        if self.y.is_complex():
            raise TaskError(f"labels are whole or real numbers; got {self.y.dtype}.")
        if not self.y.is_floating_point() and self.y.dtype != torch.int64:
            object.__setattr__(self, "y", self.y.long())

    @classmethod
    def full(cls, x: Tensor, y: Tensor) -> Examples:
        """Return examples without padding: the mask is ``True`` everywhere."""
        return cls(x, y, torch.ones(y.shape, dtype=torch.bool, device=y.device))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Examples:
        """Return the examples on ``device``; floating inputs become ``dtype`` if it is given."""
        x = self.x.to(device, dtype if dtype and self.x.is_floating_point() else None)
        return Examples(x, self.y.to(device), self.mask.to(device))

    def tasks(self, index: slice) -> Examples:
        """Return the tasks of a slice, as views."""
        return Examples(self.x[index], self.y[index], self.mask[index])

    def trimmed(self) -> Examples:
        """Return the examples without the last columns that are padding in every task."""
        used = self.mask.any(0).nonzero()
        length = int(used[-1]) + 1 if len(used) else 0
        return (
            self
            if length == self.y.shape[1]
            else Examples(self.x[:, :length], self.y[:, :length], self.mask[:, :length])
        )

    def check_labels(self, n_way: int) -> None:
        """Check that these can be support sets.

        Raises:
            TaskError: if there is no task, a task is all padding, a label that is not padding lies
                outside ``[0, n_way)``, or labels are real numbers though there are several classes.
        """
        _check_kind(self.y, n_way, "support")
        if torch.compiler.is_exporting():
            return  # an exported graph cannot raise
        if not len(self.y):
            raise TaskError("there are no tasks: x has shape [0, ...]. Give at least one.")
        empty = (~self.mask.any(1)).nonzero().flatten().tolist()
        if empty:
            raise TaskError(
                f"task {empty[0]} (of {len(self.y)}) has no support: its mask is False everywhere. "
                "Leave the task out, or unmask an example."
            )
        if self.y.is_floating_point():
            return
        labels = self.y[self.mask]
        if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= n_way):
            raise TaskError(
                f"labels must lie in [0, {n_way}); got {int(labels.min())} to {int(labels.max())}. "
                "Map the class names to 0 ... n_way-1 first."
            )


def _check_kind(y: Tensor, n_way: int, what: str) -> None:
    """Refuse real numbers as labels of several classes: they would be taken for regression.

    Raises:
        TaskError: naming the side and the type.
    """
    if y.is_floating_point() and n_way > 1:
        raise TaskError(
            f"the labels of the {what} are {y.dtype}, real numbers, and n_way={n_way} classes need "
            "whole ones. Use y.long(), or n_way=1 for regression."
        )


def _plain(value: Any) -> Any:
    """Return whole numbers of any type as Python's; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_plain(v) for v in value)
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return int(value) if whole else value


@dataclass(frozen=True, slots=True)
class EpisodeSpec:
    """How large an episode is: N-way K-shot, fixed or drawn from a range.

    Args:
        n_way: classes per task, or an inclusive range ``(low, high)``.
        k_shot: support examples per class, or an inclusive range.
        n_query: query examples per class.

    Ranges give variable way and shot with class imbalance (Triantafillou et al. 2020,
    "Meta-Dataset", section 3.2).

    Raises:
        ConfigError: if a number is not whole or is below 1, or a range is empty.

    Example::

        spec = EpisodeSpec(n_way=(5, 10), k_shot=1, n_query=15)
        print(spec)  # 5-10-way 1-shot
        spec.variable, spec.min_way, spec.max_way
        source = PoolSource(load_pool("digits"))
        episode = source.episodes(spec, [0, 1], seed=0)
    """

    n_way: int | tuple[int, int]
    k_shot: int | tuple[int, int]
    n_query: int = 15

    def __post_init__(self) -> None:
        for name in ("n_way", "k_shot", "n_query"):
            value = _plain(getattr(self, name))
            # NumPy's whole numbers are whole numbers; a document wants Python's
            object.__setattr__(self, name, value)
            ends = value if isinstance(value, tuple) else (value, value)
            whole = len(ends) == 2 and all(type(v) is int for v in ends)
            if (
                not whole
                or ends[0] < 1
                or ends[1] < ends[0]
                or (name == "n_query" and ends != (value, value))
            ):
                raise ConfigError(
                    f"{name} must be a whole number of at least 1"
                    + (" or a range from low to high" if name != "n_query" else "")
                    + f"; got {value!r}."
                )

    @property
    def variable(self) -> bool:
        """Whether the way or the shot is drawn from a range."""
        return isinstance(self.n_way, tuple) or isinstance(self.k_shot, tuple)

    @property
    def min_way(self) -> int:
        """The smallest number of classes in a task."""
        return self.n_way[0] if isinstance(self.n_way, tuple) else self.n_way

    @property
    def max_way(self) -> int:
        """The largest number of classes in a task."""
        return self.n_way[1] if isinstance(self.n_way, tuple) else self.n_way

    @property
    def min_shot(self) -> int:
        """The smallest number of support examples of a class."""
        return self.k_shot[0] if isinstance(self.k_shot, tuple) else self.k_shot

    @property
    def max_shot(self) -> int:
        """The largest number of support examples of a class."""
        return self.k_shot[1] if isinstance(self.k_shot, tuple) else self.k_shot

    def __str__(self) -> str:
        way, shot = (
            f"{v[0]}-{v[1]}" if isinstance(v, tuple) else str(v) for v in (self.n_way, self.k_shot)
        )
        return f"{way}-way {shot}-shot"


@dataclass(frozen=True, slots=True)
class Episode:
    """A batch of ``T`` tasks.

    Args:
        support: examples to adapt to, ``[T, S, ...]``.
        query: examples to be judged on, ``[T, Q, ...]``.
        n_way: number of logits ``C``; a task with fewer classes simply has absent ones. 1 for
            regression.
        info: where the examples came from, for reports and leak checks, never for learners:
            ``classes`` ``[T, C]`` (class index in the source, -1 = absent), ``support_index`` ``[T,
            S]`` and ``query_index`` ``[T, Q]`` (rows of the source's pool, -1 = padding).

    Raises:
        TaskError: if support and query disagree on the number of tasks, or labels are real numbers
            though there are several classes.
        ConfigError: if ``n_way`` is not a whole number of at least 1.

    Example::

        support = Examples.full(torch.rand(2, 5, 1, 28, 28), torch.arange(5).expand(2, 5))
        query = Examples.full(torch.rand(2, 3, 1, 28, 28), torch.zeros(2, 3).long())
        episode = Episode(support, query, n_way=5)
        episode.n_tasks, episode.regression
        first = episode.tasks(slice(0, 1))
    """

    support: Examples
    query: Examples
    n_way: int
    info: dict[str, Tensor] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.support.x.shape[0] != self.query.x.shape[0]:
            raise TaskError(
                f"support has {self.support.x.shape[0]} tasks, query has {self.query.x.shape[0]}: "
                "both need the same leading task axis."
            )
        n_way = _plain(self.n_way)
        if type(n_way) is not int or n_way < 1:
            raise ConfigError(f"n_way must be a whole number of at least 1; got {self.n_way!r}.")
        object.__setattr__(self, "n_way", n_way)
        _check_kind(self.support.y, n_way, "support")
        _check_kind(self.query.y, n_way, "query")
        if self.support.y.is_floating_point() != self.query.y.is_floating_point():
            raise TaskError(
                f"the labels of the support are {self.support.y.dtype}, those of the query "
                f"{self.query.y.dtype}. Both are whole numbers for classes, or both are real for "
                "regression."
            )

    @property
    def n_tasks(self) -> int:
        """The number of tasks ``T``."""
        return int(self.support.x.shape[0])

    @property
    def regression(self) -> bool:
        """Whether the targets are real numbers."""
        return self.query.y.is_floating_point()

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Episode:
        """Return the episode on ``device``; ``info`` stays where it is."""
        return replace(
            self, support=self.support.to(device, dtype), query=self.query.to(device, dtype)
        )

    def tasks(self, index: slice) -> Episode:
        """Return the tasks of a slice, as views."""
        info: dict[str, Any] = {name: value[index] for name, value in self.info.items()}
        return Episode(self.support.tasks(index), self.query.tasks(index), self.n_way, info)

"""Normalisation layers that say whose statistics they use.

* :class:`BatchNorm`: batch statistics while meta-training, frozen running averages at test:
  inductive.
* :class:`GroupNorm`: statistics of each example alone.
* :class:`SupportNorm`: statistics of the task's support set, for support and query alike: inductive
  and adaptive ("contextual batch norm" is what MAML's code does with support and query apart; here
  the query never enters).

Under ``torch.func.vmap`` batch norm is computed in plain operations: PyTorch's own kernel gives
wrong second-order gradients there (seen on torch 2.13).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, TaskState

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "Norm",
    "NormContext",
    "SupportNorm",
    "build_norm",
    "under_vmap",
]


@dataclass(slots=True)
class NormContext:
    """What a normalisation layer may know of the batch that passes through.

    Args:
        owner: task of each row of the flat batch ``[B]``; ``None``: the batch is one task, and
            whoever runs the network minds its statistics (as gradient learners do).
        tasks: number of tasks ``T``.
        stats: statistics of the support sets, or ``None`` if this batch is the support.
        track: whether running averages are updated.
        found: statistics found on the way, by layer name.
    """

    owner: Tensor | None
    tasks: int
    stats: TaskState | None = None
    track: bool = False
    found: TaskState = field(default_factory=dict)


class Norm(nn.Module, ABC):
    """Normalises the channels (axis 1) of ``[B, C]`` or ``[B, C, H, W]``, then scales and shifts
    them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    @abstractmethod
    def forward(self, x: Tensor, context: NormContext) -> Tensor:
        """Return the normalised batch."""


class BatchNorm(Norm):
    """Batch norm (Ioffe and Szegedy 2015) with running averages that only the meta-training step
    updates."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__(channels)
        self._momentum, self._eps = momentum, eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, context: NormContext) -> Tensor:
        """Return the normalised batch."""
        if self.training and under_vmap(x):
            return self._plain(x)
        # None keeps F.batch_norm from touching the buffers
        keep = context.track or not self.training
        return F.batch_norm(
            x,
            self.running_mean if keep else None,
            self.running_var if keep else None,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self._momentum,
            eps=self._eps,
        )

    def _plain(self, x: Tensor) -> Tensor:
        """Return what :func:`torch.nn.functional.batch_norm` does, in operations vmap knows."""
        axes = [0, *range(2, x.ndim)]
        mean = x.mean(axes, keepdim=True)
        var = (x - mean).square().mean(axes, keepdim=True)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        scale = self.weight.view(shape) * torch.rsqrt(var + self._eps)
        return (x - mean) * scale + self.bias.view(shape)


class GroupNorm(Norm):
    """Group norm (Wu and He 2018): each example is normalised alone."""

    def __init__(self, channels: int, *, groups: int = 8, eps: float = 1e-5) -> None:
        super().__init__(channels)
        if channels % groups:
            raise ConfigError(f"{channels} channels cannot be split into {groups} groups.")
        self._groups, self._eps = groups, eps

    def forward(self, x: Tensor, context: NormContext) -> Tensor:  # noqa: ARG002
        """Return the normalised batch."""
        return F.group_norm(x, self._groups, self.weight, self.bias, self._eps)


class SupportNorm(Norm):
    """Normalises every example of a task with the channel statistics of the task's support set.

    The inductive half of Bronskill et al. (2020), "TaskNorm", section 3.2 ("conditional batch norm
    on the context set"): support statistics serve the query.
    """

    def __init__(self, channels: int, *, name: str, eps: float = 1e-5) -> None:
        super().__init__(channels)
        self._name, self._eps = name, eps

    def forward(self, x: Tensor, context: NormContext) -> Tensor:
        """Return the normalised batch, and leave the statistics in ``context.found``."""
        if context.owner is None:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, eps=self._eps)
        if context.stats is None:
            mean, var = self._statistics(x, context.owner, context.tasks)
        else:
            mean = context.stats[f"{self._name}.mean"]
            var = context.stats[f"{self._name}.var"]
        context.found[f"{self._name}.mean"], context.found[f"{self._name}.var"] = mean, var
        scale = self.weight * torch.rsqrt(var + self._eps)  # [T, C]
        shift = self.bias - mean * scale
        shape = (len(x), -1, *(1,) * (x.ndim - 2))
        # index_select: its gradient adds rows in a fixed order, that of indexing may not
        scale, shift = (v.index_select(0, context.owner).view(shape) for v in (scale, shift))
        return x * scale.to(x.dtype) + shift.to(x.dtype)

    def _statistics(self, x: Tensor, owner: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of each task's rows: ``[B, C, ...] -> [T, C], [T,
        C]``."""
        # at least float32: bfloat16 sums lose the variance
        rows = (
            x.to(torch.promote_types(x.dtype, torch.float32)).flatten(2)
            if x.ndim > 2
            else x[..., None]
        )
        zeros = rows.new_zeros(tasks, rows.shape[1])
        size = zeros.index_add(0, owner, torch.ones_like(rows[..., 0])) * rows.shape[2]
        size = size.clamp(min=1)
        mean = zeros.index_add(0, owner, rows.sum(2)) / size
        centred = rows - mean.index_select(0, owner)[..., None]
        return mean, zeros.index_add(0, owner, centred.square().sum(2)) / size


def under_vmap(x: Tensor) -> bool:
    """Return whether a tensor is being traced by ``torch.func.vmap``."""
    # no public call tells; the test suite notices if these go
    while torch._C._functorch.is_gradtrackingtensor(x):  # the wrapper of torch.func.grad
        x = torch._C._functorch.get_unwrapped(x)
    return bool(torch._C._functorch.is_batchedtensor(x))


def build_norm(kind: str, channels: int, *, name: str) -> Norm:
    """Return the normalisation layer called ``"batch"``, ``"group"`` or ``"support"``."""
    if kind == "batch":
        return BatchNorm(channels)
    if kind == "group":
        return GroupNorm(channels, groups=8 if channels % 8 == 0 else 1)
    if kind == "support":
        return SupportNorm(channels, name=name)
    raise ConfigError(f"norm must be 'batch', 'group' or 'support'; got {kind!r}.")

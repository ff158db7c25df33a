"""Normalisation layers, which differ in whose statistics they use.

* :class:`BatchNorm`: batch statistics while meta-training, frozen running averages at test:
  inductive.
* :class:`GroupNorm`: statistics of each example alone.
* :class:`SupportNorm`: statistics of the task's support set, for support and query alike: inductive
  and adaptive. (MAML's own code normalises the queries with their own batch statistics, which makes
  it transductive.)

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
from quickstudy.core.arguments import checked

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
        owner: task of each row of the flat batch ``[B]``; ``None``: the batch is one task, and the
            caller keeps its statistics (as gradient learners do).
        tasks: number of tasks ``T``.
        stats: statistics of the support sets, or ``None`` if this batch is the support.
        track: whether running averages are updated.
        found: filled by the layers: the statistics they used, by layer name.

    Example::

        owner = torch.tensor([0, 0, 1, 1])  # two rows of each of two tasks
        context = NormContext(owner, tasks=2)
        y = SupportNorm(8, name="norm0")(torch.rand(4, 8), context)
        mean = context.found["norm0.mean"]  # [2, 8]
    """

    owner: Tensor | None
    tasks: int
    stats: TaskState | None = None
    track: bool = False
    found: TaskState = field(default_factory=dict)


@checked
class Norm(nn.Module, ABC):
    """Normalises the channels (axis 1) of ``[B, C]`` or ``[B, C, H, W]``, then scales and shifts
    them.

    Args:
        channels: ``C``.

    Example::

        class NoNorm(Norm):
            def forward(self, x, context):
                return x * self.weight + self.bias

        y = NoNorm(8)(torch.rand(4, 8), NormContext(None, tasks=1))  # [4, 8]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    @abstractmethod
    def forward(self, x: Tensor, context: NormContext) -> Tensor:
        """Return the normalised batch."""


@checked
class BatchNorm(Norm):
    """Batch norm (Ioffe and Szegedy 2015) with running averages that only the meta-training step
    updates.

    Args:
        channels: ``C``.
        momentum: weight of the newest batch in the running averages.
        eps: added to the variance.

    Example::

        norm = BatchNorm(8)
        norm(torch.rand(4, 8), NormContext(None, 1, track=True))  # updates the running averages
        norm.eval()  # from now on they normalise
        y = norm(torch.rand(1, 8), NormContext(None, 1))  # [1, 8]
    """

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
        # handed None, F.batch_norm uses the batch's statistics and leaves the buffers alone
        running = context.track or not self.training
        return F.batch_norm(
            x,
            self.running_mean if running else None,
            self.running_var if running else None,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self._momentum,
            eps=self._eps,
        )

    def _plain(self, x: Tensor) -> Tensor:
        """Return what ``F.batch_norm`` gives, in plain operations: those are right under vmap."""
        axes = [0, *range(2, x.ndim)]
        mean = x.mean(axes, keepdim=True)
        var = (x - mean).square().mean(axes, keepdim=True)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        scale = self.weight.view(shape) * torch.rsqrt(var + self._eps)
        return (x - mean) * scale + self.bias.view(shape)


@checked
class GroupNorm(Norm):
    """Group norm (Wu and He 2018): each example is normalised alone.

    Args:
        channels: ``C``.
        groups: number of groups that the channels are split into.
        eps: added to the variance.

    Raises:
        ConfigError: if the channels cannot be split evenly.

    Example::

        norm = GroupNorm(16, groups=8)
        y = norm(torch.rand(4, 16, 7, 7), NormContext(None, 1))  # [4, 16, 7, 7]
        encoder = Conv4(norm="group")
    """

    def __init__(self, channels: int, *, groups: int = 8, eps: float = 1e-5) -> None:
        super().__init__(channels)
        if channels % groups:
            raise ConfigError(
                f"{channels} channels cannot be split into {groups} groups. Choose groups that "
                "divide them."
            )
        self._groups, self._eps = groups, eps

    def forward(self, x: Tensor, context: NormContext) -> Tensor:  # noqa: ARG002
        """Return the normalised batch."""
        return F.group_norm(x, self._groups, self.weight, self.bias, self._eps)


@checked
class SupportNorm(Norm):
    """Normalises every example of a task with the channel statistics of the task's support set.

    The inductive half of Bronskill et al. (2020), "TaskNorm", section 3.2 ("conditional batch norm
    on the context set"): support statistics serve the query.

    Args:
        channels: ``C``.
        name: names the statistics of this layer in the task state.
        eps: added to the variance.

    Example::

        encoder = Conv4(norm="support")
        z, stats = encoder.encode(torch.rand(2, 5, 1, 28, 28))  # [2, 5, 64]
        queries, _ = encoder.encode(torch.rand(2, 9, 1, 28, 28), stats=stats)  # [2, 9, 64]
        stats["norm0.mean"], stats["norm0.var"]  # [2, 64] each
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
        # index_select: its gradient adds rows in a fixed order, which that of indexing may not
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
    # PyTorch has no public function for this; tests fail if these private ones disappear
    while torch._C._functorch.is_gradtrackingtensor(x):  # the wrapper of torch.func.grad
        x = torch._C._functorch.get_unwrapped(x)
    return bool(torch._C._functorch.is_batchedtensor(x))


@checked
def build_norm(kind: str, channels: int, *, name: str) -> Norm:
    """Return the normalisation layer called ``"batch"``, ``"group"`` or ``"support"``.

    Args:
        kind: which one.
        channels: ``C``.
        name: names the statistics of a ``"support"`` layer in the task state.

    Raises:
        ConfigError: if the kind is unknown.
    """
    if kind == "batch":
        return BatchNorm(channels)
    if kind == "group":
        return GroupNorm(channels, groups=8 if channels % 8 == 0 else 1)
    if kind == "support":
        return SupportNorm(channels, name=name)
    raise ConfigError(f"norm must be 'batch', 'group' or 'support'; got {kind!r}.")

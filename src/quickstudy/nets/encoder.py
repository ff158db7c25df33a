"""The encoder contract: examples of T tasks in, embeddings out, and the statistics that normalised
them.

An encoder keeps the promises of the learner contract: it never looks at other queries unless it
declares so, and it changes its buffers only with ``track=True``, which the meta-training step sets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from quickstudy.core import ConfigError, TaskState
from quickstudy.nets.norm import NormContext

__all__ = ["Encoder"]


class Encoder(nn.Module, ABC):
    """Maps inputs to embeddings of ``out_features`` numbers.

    Subclasses define :meth:`features`, :attr:`in_shape`, ``out_features`` and ``episodic``.

    Example::

        class Pixels(Encoder):
            in_shape, out_features, episodic = (1, 8, 8), 64, False

            def features(self, x, context):
                return x.flatten(1)

        z, _ = Pixels().encode(torch.rand(2, 5, 1, 8, 8))  # [2, 5, 64]
    """

    out_features: int
    episodic: bool
    """Whether an embedding depends on the support set (statistics of the support normalise it)."""

    @abstractmethod
    def features(self, x: Tensor, context: NormContext) -> Tensor:
        """Return embeddings ``[B, D]`` of a flat batch of inputs ``[B, ...]``."""

    def encode(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        stats: TaskState | None = None,
        *,
        track: bool = False,
    ) -> tuple[Tensor, TaskState]:
        """Return the embeddings of ``T`` tasks and the statistics to embed more examples of them.

        Args:
            x: inputs ``[T, N, ...]``.
            mask: bool ``[T, N]``, ``False`` = padding (embedded as zeros), or ``None`` for no
                padding.
            stats: statistics returned for the support set of the same tasks, or ``None`` to take
                them from ``x``.
            track: update running statistics (only the meta-training step does).

        Returns:
            Embeddings ``[T, N, D]`` and statistics ``{name: [T, ...]}`` (empty unless the encoder
            is episodic).

        Raises:
            ConfigError: if the inputs do not fit the encoder.
        """
        tasks, width = x.shape[:2]
        flat = x.flatten(0, 1)  # [T, N, ...] -> [T*N, ...]
        self.check(flat)
        if mask is None or bool(mask.all()):
            owner = torch.arange(tasks, device=x.device).repeat_interleave(width)
            context = NormContext(owner, tasks, stats, track)
            return self.features(flat, context).unflatten(0, (tasks, width)), context.found
        # only real examples are embedded: padding enters no batch statistic and costs nothing
        keep = mask.flatten().nonzero()[:, 0]
        owner = keep.div(width, rounding_mode="floor")
        context = NormContext(owner, tasks, stats, track)
        z = self.features(flat[keep], context)  # [kept, D]
        full = z.new_zeros(tasks * width, z.shape[1]).index_copy(0, keep, z)
        return full.unflatten(0, (tasks, width)), context.found

    def check(self, x: Tensor) -> None:
        """Raise :class:`ConfigError` if a flat batch of inputs does not fit the encoder."""
        expected: tuple[int, ...] = self.in_shape
        if tuple(x.shape[1:]) != expected:
            raise ConfigError(
                f"the encoder was built for inputs of shape {list(expected)}; got "
                f"{list(x.shape[1:])}. Read the data with the size and channels of the recipe that "
                "trained it."
            )

    @property
    @abstractmethod
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one input."""

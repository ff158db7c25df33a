"""A multilayer perceptron, and an encoder that only flattens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from quickstudy.core.arguments import checked
from quickstudy.nets.encoder import Encoder
from quickstudy.nets.norm import NormContext

__all__ = ["MLP", "Identity"]


@checked
class MLP(Encoder):
    """Linear layers with an activation between them.

    Args:
        in_shape: shape of one input; it is flattened.
        widths: widths of the layers; the last one is the embedding.
        activation: ``torch.nn`` class used between layers.
        last_activation: whether an activation also follows the last layer; set it where the layers
            are the hidden layers below a head.
        standardise: whether inputs are first brought to mean 0 and standard deviation 1, with the
            statistics that :meth:`measure` takes from the training inputs.

    Example::

        encoder = MLP((1,), (40, 40), last_activation=True)
        z, _ = encoder.encode(torch.rand(2, 10, 1))  # [2, 10, 40]
        learner = MAML(encoder, n_way=1)
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        in_shape: Sequence[int],
        widths: Sequence[int] = (64, 64),
        *,
        activation: type[nn.Module] = nn.ReLU,
        last_activation: bool = False,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        sizes = [math.prod(in_shape), *widths]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), activation()]
        self.layers = nn.Sequential(*(layers if last_activation else layers[:-1]))
        self._in_shape = tuple(in_shape)
        self.out_features = sizes[-1]
        self.episodic = False
        self.standardise = standardise
        if standardise:
            self.register_buffer("centre", torch.zeros(sizes[0]))
            self.register_buffer("scale", torch.ones(sizes[0]))

    def measure(self, x: Tensor) -> None:
        """Take mean and standard deviation of each number of the training inputs ``[M, ...]``.

        They are kept with the weights. A number that never changes keeps its scale.
        """
        if not self.standardise:
            return
        values = x.flatten(1).double()
        spread = values.std(0, correction=0)
        self.centre.copy_(values.mean(0))
        self.scale.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self._in_shape

    def features(self, x: Tensor, context: NormContext) -> Tensor:  # noqa: ARG002
        """Return embeddings ``[B, D]`` of inputs ``[B, ...]``."""
        flat = x.flatten(1)
        if self.standardise:
            flat = (flat - self.centre) / self.scale
        return torch.as_tensor(self.layers(flat))


@checked
class Identity(Encoder):
    """An encoder that only flattens: for cached embeddings, and for baselines on raw pixels.

    Args:
        in_shape: shape of one input.

    Example::

        encoder = Identity((1, 28, 28))
        z, _ = encoder.encode(torch.rand(2, 5, 1, 28, 28))  # [2, 5, 784]
        baseline = PrototypicalNetwork(encoder)
    """

    def __init__(self, in_shape: Sequence[int]) -> None:
        super().__init__()
        self._in_shape = tuple(in_shape)
        self.out_features = math.prod(in_shape)
        self.episodic = False

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self._in_shape

    def features(self, x: Tensor, context: NormContext) -> Tensor:  # noqa: ARG002
        """Return the inputs, flattened: ``[B, ...] -> [B, D]``."""
        return x.flatten(1)

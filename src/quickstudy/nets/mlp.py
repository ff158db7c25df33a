"""A multilayer perceptron, and an encoder that only flattens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from quickstudy.nets.encoder import Encoder
from quickstudy.nets.norm import NormContext

__all__ = ["MLP", "Identity"]


class MLP(Encoder):
    """Linear layers with an activation between them.

    Args:
        in_shape: shape of one input; it is flattened.
        widths: widths of the layers; the last one is the embedding.
        activation: ``torch.nn`` class used between layers.
        last_activation: whether an activation also follows the last layer; set it where the layers
            are the hidden layers below a head.

    Example::

        encoder = MLP((1,), (40, 40), last_activation=True)
        z, _ = encoder.encode(torch.rand(2, 10, 1))  # [2, 10, 40]
        learner = MAML(encoder, n_way=1)
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        widths: Sequence[int] = (64, 64),
        *,
        activation: type[nn.Module] = nn.ReLU,
        last_activation: bool = False,
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

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self._in_shape

    def features(self, x: Tensor, context: NormContext) -> Tensor:  # noqa: ARG002
        """Return embeddings ``[B, D]`` of inputs ``[B, ...]``."""
        return torch.as_tensor(self.layers(x.flatten(1)))


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

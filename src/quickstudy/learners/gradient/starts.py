"""The last layer of a gradient learner: its parameters before the first step, and its logits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from quickstudy.core import ConfigError, Examples
from quickstudy.core.arguments import checked
from quickstudy.learners.classes import class_weights

__all__ = ["Head", "LinearHead", "PrototypeStart", "SharedHead", "build_head"]

WEIGHT, BIAS = "head.weight", "head.bias"
# deviation of the initial weights, as in the code of MAML: so small that the first inner step makes
# most of the classifier
_INITIAL_DEVIATION = 0.01


class Head(nn.Module, ABC):
    """A linear classifier on features, whose start is meta-learned or made from the support."""

    permutation_equivariant: bool
    """Whether all classes start in the same way. Then renaming the labels only renames the
    predictions, and a task may have any number of classes."""

    needs_features: bool = False
    """Whether :meth:`start` needs the features of the support."""

    @abstractmethod
    def start(self, tasks: int, n_way: int, features: Examples | None) -> dict[str, Tensor]:
        """Return ``head.weight`` ``[T, C, D]`` and ``head.bias`` ``[T, C]`` before the first step.

        Args:
            tasks: number of tasks ``T``.
            n_way: number of classes ``C``.
            features: embedded support ``[T, S, D]``, if ``needs_features``; else ``None``.

        Raises:
            ConfigError: if there are more classes than the head was made for.
        """

    @abstractmethod
    def rate_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of learned inner rates, by the names of the head's tensors."""


def logits(params: dict[str, Tensor], z: Tensor) -> Tensor:
    """Return ``z W' + b``: ``[T, N, D] -> [T, N, C]``."""
    return torch.baddbmm(params[BIAS][:, None], z, params[WEIGHT].transpose(1, 2))


@checked
class LinearHead(Head):
    """A meta-learned start for each class (Finn et al. 2017). The first label starts elsewhere than
    the second, so predictions depend on how the classes are numbered.

    Args:
        features: width ``D`` of the features.
        n_way: largest number of classes; a task with fewer uses the first ones.

    Example::

        head = LinearHead(64, n_way=5)
        params = head.start(tasks=2, n_way=3, features=None)
        params["head.weight"]  # [2, 3, 64]
        learner = MAML(Conv4(norm="support"), head="linear", n_way=5)  # makes such a head
    """

    permutation_equivariant = False

    def __init__(self, features: int, n_way: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_INITIAL_DEVIATION * torch.randn(n_way, features))
        self.bias = nn.Parameter(torch.zeros(n_way))

    def start(self, tasks: int, n_way: int, features: Examples | None) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the learned start of the first ``n_way`` classes."""
        if n_way > len(self.weight):
            raise ConfigError(
                f"the head was made for {len(self.weight)} classes; the task has {n_way}. Train "
                "with a larger n_way, or take head='shared' or 'prototype', which fit any number."
            )
        return {
            WEIGHT: self.weight[:n_way].expand(tasks, -1, -1),
            BIAS: self.bias[:n_way].expand(tasks, -1),
        }

    def rate_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one rate for each number."""
        return {WEIGHT: tuple(self.weight.shape), BIAS: tuple(self.bias.shape)}


@checked
class SharedHead(Head):
    """One start for all classes: independent of label order, for any number of classes.

    Weights that all classes share change no probability, so the start itself gets no meta-gradient;
    the first inner step makes the classifier.

    Ye and Chao (2022), "How to train your MAML to excel in few-shot classification", section 5
    (UNICORN-MAML).

    Args:
        features: width ``D`` of the features.

    Example::

        head = SharedHead(64)
        params = head.start(tasks=2, n_way=7, features=None)
        params["head.weight"]  # [2, 7, 64]
        learner = MAML(Conv4(norm="support"), head="shared")  # makes such a head
    """

    permutation_equivariant = True

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_INITIAL_DEVIATION * torch.randn(1, features))

    def start(self, tasks: int, n_way: int, features: Examples | None) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the learned start, repeated for each class, and zero biases: a bias that all
        classes share would change nothing."""
        zero = self.weight.new_zeros(1, 1)
        return {WEIGHT: self.weight.expand(tasks, n_way, -1), BIAS: zero.expand(tasks, n_way)}

    def rate_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return one rate for each feature, and one for the biases."""
        return {WEIGHT: (1, self.weight.shape[1]), BIAS: (1,)}


@checked
class PrototypeStart(Head):
    """The classifier starts as the Prototypical Network of the support.

    ``W = 2 c / tau``, ``b = -|c|^2 / tau`` for prototypes ``c``: Triantafillou et al. (2020),
    "Meta-Dataset", section 3.3 (Proto-MAML). The gradient through the prototypes is kept.

    Args:
        features: width ``D`` of the features.
        temperature: ``tau`` before the first outer step; it is learned. 1 is the paper's.

    Example::

        head = PrototypeStart(64)
        support = Examples.full(torch.rand(2, 10, 64), torch.arange(5).repeat(2, 2))
        params = head.start(tasks=2, n_way=5, features=support)
        params["head.weight"]  # [2, 5, 64]
        learner = MAML(Conv4(norm="support"), head="prototype")  # makes such a head
    """

    permutation_equivariant = True
    needs_features = True

    def __init__(self, features: int, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(f"temperature must be greater than 0; got {temperature}.")
        self._features = features
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def start(self, tasks: int, n_way: int, features: Examples | None) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the prototypes as a linear classifier."""
        assert features is not None  # needs_features
        members, _ = class_weights(features.y, features.mask, n_way)  # [T, S, C]
        share = members / members.sum(1, keepdim=True).clamp(min=1)
        prototypes = share.to(features.x.dtype).transpose(1, 2) @ features.x  # [T, C, D]
        # -|z - c|^2 / tau = (2 c z - |c|^2) / tau but for |z|^2, which all classes share
        scale = torch.exp(-self.log_temperature)
        return {WEIGHT: 2 * scale * prototypes, BIAS: -scale * prototypes.square().sum(2)}

    def rate_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return one rate for each feature, and one for the biases."""
        return {WEIGHT: (1, self._features), BIAS: (1,)}


def build_head(kind: str, features: int, n_way: int, temperature: float) -> Head:
    """Return the head called ``"linear"``, ``"shared"`` or ``"prototype"``."""
    if kind == "linear":
        return LinearHead(features, n_way)
    if kind == "shared":
        return SharedHead(features)
    if kind == "prototype":
        return PrototypeStart(features, temperature)
    raise ConfigError(f"head must be 'linear', 'shared' or 'prototype'; got {kind!r}.")

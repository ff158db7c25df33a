"""Gradient adaptation of a last layer and a classifier, for embeddings that are nearly right."""

from __future__ import annotations

import torch
from torch import nn

from quickstudy.core import ConfigError
from quickstudy.learners.base import Family
from quickstudy.learners.gradient import InnerLoop, ProtoMAML

__all__ = ["GradientHead"]


class GradientHead(ProtoMAML):
    """Fine-tunes a linear layer on the embeddings, and a classifier that starts as prototypes.

    :class:`~quickstudy.learners.ProtoMAML` whose network is one linear layer that starts as the
    identity: before the first step this is the nearest prototype.

    *Difference from Proto-MAML*: the rates are fixed, so that nothing has to be meta-trained.

    Args:
        features: ``D``.
        steps: gradient steps.
        lr: their rate.
        temperature: of the prototypes it starts from.

    Raises:
        ConfigError: if a number is not positive.
    """

    family: Family = "gradient"

    def __init__(
        self, features: int, *, steps: int = 10, lr: float = 0.1, temperature: float = 1.0
    ) -> None:
        if features < 1:
            raise ConfigError(f"features must be at least 1; got {features}.")
        layer = nn.Linear(features, features, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.eye(features))
        super().__init__(
            layer,
            features=features,
            temperature=temperature,
            inner=InnerLoop(steps=steps, lr=lr),
            rates="fixed",
        )

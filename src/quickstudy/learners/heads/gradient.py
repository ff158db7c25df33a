"""Gradient steps on a last linear layer and a classifier, for embeddings that nearly fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_at_least, check_positive, check_size
from quickstudy.learners.base import Family
from quickstudy.learners.gradient import InnerLoop, ProtoMAML

__all__ = ["GradientHead"]


@checked
class GradientHead(ProtoMAML):
    """Fine-tunes a linear layer on the embeddings, and a classifier that starts as prototypes.

    :class:`~quickstudy.learners.ProtoMAML` whose network is one linear layer that starts as the
    identity. Before the first step it classifies by the nearest prototype.

    *Difference from Proto-MAML*: the rates are fixed, so that nothing has to be meta-trained.

    Args:
        features: width ``D`` of an embedding.
        steps: gradient steps; 0 = the nearest prototype.
        lr: learning rate of the steps.
        temperature: logits of the prototypes that it starts from are divided by it.

    Raises:
        ConfigError: if a number is not positive.

    Example::

        head = GradientHead(64, steps=10)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "gradient"

    def __init__(
        self, features: int, *, steps: int = 10, lr: float = 0.1, temperature: float = 1.0
    ) -> None:
        check_size(features=features)
        check_at_least(0, steps=steps)
        check_positive(lr=lr, temperature=temperature)
        layer = nn.Linear(features, features, bias=False)
        with torch.no_grad():  # the identity: the first step starts from the embeddings as they are
            layer.weight.copy_(torch.eye(features))
        super().__init__(
            layer,
            features=features,
            temperature=temperature,
            inner=InnerLoop(steps=steps, lr=lr),
            rates="fixed",
        )

    def _check_input(self, x: Tensor) -> None:
        """Refuse embeddings of another width too."""
        super()._check_input(x)
        if x.shape[2:] != (self._width,):
            raise ConfigError(
                f"the head was made for embeddings of features={self._width} numbers; got "
                f"{list(x.shape[2:])}. Give features= their width."
            )

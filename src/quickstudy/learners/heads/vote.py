"""Several heads that answer together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_positive
from quickstudy.learners.base import Family, Learner

__all__ = ["VoteHead"]


@checked
class VoteHead(Learner):
    """The weighted mean of the probabilities of several heads (a soft vote, or linear opinion pool;
    Stone 1961).

    The mean answers better than most of its members where they err on different examples, and one
    member that is sure and wrong cannot outvote the others.

    Args:
        members: heads by name.
        weights: one for each member; ``None`` = all equal.
        temperatures: each member's logits are divided by its temperature; ``None`` = all 1.

    Raises:
        ConfigError: if there is no member, a weight or temperature is missing, or one is not
            positive.

    Example::

        head = VoteHead({"lda": DiscriminantHead(), "trees": ForestHead("extra-trees", trees=20)})
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    weights: Tensor
    temperatures: Tensor

    def __init__(
        self,
        members: Mapping[str, Learner],
        *,
        weights: Sequence[float] | None = None,
        temperatures: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        n = len(members)
        weights = [1.0] * n if weights is None else weights
        temperatures = [1.0] * n if temperatures is None else temperatures
        if not n or len(weights) != n or len(temperatures) != n:
            raise ConfigError(
                f"a vote needs members, and a weight and a temperature for each; got {n} members, "
                f"{len(weights)} weights and {len(temperatures)} temperatures."
            )
        for weight, temperature in zip(weights, temperatures, strict=True):
            check_positive(weights=weight, temperatures=temperature)
        self.names = tuple(members)
        self.members = nn.ModuleDict(members)
        shares = torch.tensor(weights, dtype=torch.float64)
        self.register_buffer("weights", shares / shares.sum())
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float64))
        self.order_sensitive = any(one.order_sensitive for one in members.values())
        self.label_sensitive = any(one.label_sensitive for one in members.values())
        self.transductive = any(one.transductive for one in members.values())

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the states of the members, their names before those of their tensors."""
        return {
            f"{name}.{key}": value
            for name in self.names
            for key, value in self._member(name).adapt(support, n_way=n_way).items()
        }

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logarithms of the mean probabilities ``[T, Q, C]``."""
        answers = []
        for name in self.names:
            start = name + "."
            own = {n.removeprefix(start): v for n, v in state.items() if n.startswith(start)}
            answers.append(self._member(name).predict(own, x))
        return self.pooled(answers)

    def pooled(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the logarithm of the weighted mean of the members' probabilities ``[..., C]``.

        Args:
            logits: of each member ``[..., C]``.
        """
        absent = torch.stack([one == -torch.inf for one in logits]).all(0)
        mean = torch.zeros_like(logits[0])
        for one, weight, temperature in zip(logits, self.weights, self.temperatures, strict=True):
            mean = mean + weight.to(one.dtype) * (one / temperature.to(one.dtype)).softmax(-1)
        # only a class without support is impossible: a probability may round to zero
        mean = mean.clamp(min=torch.finfo(mean.dtype).tiny)
        return mean.log().masked_fill(absent, -torch.inf)

    def _member(self, name: str) -> Learner:
        member = self.members[name]
        assert isinstance(member, Learner)  # as they were given
        return member

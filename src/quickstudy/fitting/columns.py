"""Heads for columns of a table: their settings and their vote, chosen on held-out examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.fitting.evidence import Evidence, log_loss
from quickstudy.fitting.heads import (
    COLUMN_SETTINGS,
    HEADS,
    Settings,
    usual_settings,
)
from quickstudy.fitting.prior import TaskPrior
from quickstudy.learners.heads import CentredHead, ForestHead, VoteHead

__all__ = ["column_heads", "takes_columns"]

Judge = Callable[[CentredHead], Evidence]
"""Returns what a head says of support examples that it has not seen."""

_FORESTS = ("extra-trees", "random-forest")
# trees of a forest that is grown for held-out examples alone. Five are, so few trees save time; but
# the log loss of a share p that few trees estimate is too large by about (1 - p) / (2 p trees), and
# shares of the right class are small where there are many classes: forests would lose their weight
_LEAST_TREES, _TREES_PER_CLASS, _MOST_TREES = 20, 10, 100
# how fast the weight of a voter falls with its held-out log loss: exp(-0.25 nats). At 1 it would be
# the posterior probability of the voter, were each held-out example new evidence; but one example
# moves all of them, and few examples would then leave one voter alone
_TRUST = 0.25
_LEAST_WEIGHT = 1e-3
_LOSS_CAP = 6.0  # nats: one example that is held out must not decide alone
# log temperatures tried, and the weight of their squares in examples
_LOG_TEMPERATURES = torch.linspace(-2, 2, 33, dtype=torch.float64)
_TEMPERATURE_PENALTY = 1.0
# of one head on one core, with all that is held out
_MOST_SECONDS = 10.0
_MOST_MULTIPLICATIONS = 2e11


def takes_columns(prior: TaskPrior, head: str) -> bool:
    """Return whether :func:`column_heads` fits this head.

    Args:
        prior: of the task.
        head: as it was asked for; ``"auto"`` is the vote on columns of a table.
    """
    own = {"lda", *_FORESTS, "vote"}
    return head in own or (prior.columns and head in ("auto", "logistic"))


@dataclass(frozen=True, slots=True)
class _Voter:
    """A head with its settings, and how it did on held-out examples."""

    settings: Settings
    evidence: Evidence
    temperature: float
    loss: float


def column_heads(
    prior: TaskPrior, head: str, support: Examples, *, n_way: int, judge: Judge
) -> tuple[str, dict[str, CentredHead], dict[str, Evidence]]:
    """Return the name of the head that answers, and by name the heads considered with what they say
    of held-out examples.

    The settings of a head are those with the least log loss on held-out examples. The vote is of
    the four :data:`~quickstudy.fitting.heads.VOTERS`, each at its own temperature, with weights
    that fall with their log loss. So it is an equal vote where nothing can be held out, and comes
    near a choice of the best head where hundreds of examples are.

    Args:
        prior: of the task.
        head: as it was asked for, see :func:`takes_columns`.
        support: the examples in the prior's metric ``[1, S, D]``.
        n_way: number of classes ``C``.
        judge: fits a head to parts of the support.
    """
    several = head in ("auto", "vote")
    names = _affordable(support, n_way) if several else (head,)
    voters = {name: _voter(prior, name, judge, n_way) for name in names}
    heads = {name: prior.build(name, voter.settings) for name, voter in voters.items()}
    evidence = {name: voter.evidence for name, voter in voters.items()}
    if not several:
        return head, heads, evidence
    least = min(voter.loss for voter in voters.values())
    weights = [
        max(_LEAST_WEIGHT, math.exp(-_TRUST * (voter.loss - least))) for voter in voters.values()
    ]
    vote = VoteHead(
        {name: made.head for name, made in heads.items()},
        weights=weights,
        temperatures=[voter.temperature for voter in voters.values()],
    )
    first = heads[names[0]]
    made = CentredHead(vote, prior=first.prior, lengths=first.lengths).eval()
    pooled = vote.pooled([one.held_out for one in evidence.values()])
    seen = replace(evidence[names[0]], held_out=pooled)
    return "vote", heads | {"vote": made}, evidence | {"vote": seen}


def _affordable(support: Examples, n_way: int) -> tuple[str, ...]:
    """Return the voters that take at most some ten seconds for a task of this size."""
    _, size, dim = support.x.shape
    narrow = min(size, dim)
    linear = {
        "logistic": len(COLUMN_SETTINGS["logistic"]) * 300.0 * size * narrow * n_way,
        "lda": 6.0 * len(HEADS["lda"]) * (size * dim**2 + dim**3),
    }
    names = [name for name, cost in linear.items() if cost <= _MOST_MULTIPLICATIONS]
    # seconds of one tree, as measured: sorting the examples at each level, by the root of the
    # number of columns
    sorting = size * math.log2(size + 1) * dim**0.5
    trees = HEADS["extra-trees"][0]["trees"] + 5 * _trees_held_out(n_way)
    for name, rate in (("extra-trees", 3e-8), ("random-forest", 8e-8)):
        if trees * (1e-3 + rate * sorting) <= _MOST_SECONDS:
            names.append(name)
    return tuple(names) or (min(linear, key=linear.__getitem__),)


def _trees_held_out(n_way: int) -> int:
    return min(_MOST_TREES, max(_LEAST_TREES, _TREES_PER_CLASS * n_way))


def _voter(prior: TaskPrior, name: str, judge: Judge, n_way: int) -> _Voter:
    """Return a head with the settings that do best on held-out examples."""
    grid: Sequence[Settings] = (COLUMN_SETTINGS if prior.columns else HEADS)[name]
    usual = usual_settings(name, columns=prior.columns)
    tried = [_tried(prior, name, usual, judge, n_way)]
    # where nothing could be judged, all are as good
    if len(grid) > 1 and bool(tried[0].evidence.judged.any()):
        tried += [_tried(prior, name, other, judge, n_way) for other in grid if other != usual]
    return min(tried, key=lambda voter: voter.loss)


def _tried(prior: TaskPrior, name: str, settings: Settings, judge: Judge, n_way: int) -> _Voter:
    head = prior.build(name, settings)
    if isinstance(head.head, ForestHead):
        few = {**settings, "trees": min(_trees_held_out(n_way), settings["trees"])}
        head = prior.build(name, few)
    evidence = judge(head)
    judged = evidence.judged[0]
    logits, y = evidence.held_out[0][judged], evidence.y[0][judged]
    temperature = _temperature(logits, y)
    return _Voter(settings, evidence, temperature, float(_losses(logits, y, temperature).sum()))


def _losses(logits: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Return the capped log loss of each example ``[N]``, in nats."""
    scale = torch.tensor([temperature], dtype=torch.float64)
    return log_loss(logits[None], y[None], scale)[0].clamp(max=_LOSS_CAP)


def _temperature(logits: Tensor, y: Tensor) -> float:
    """Return the temperature with the least log loss, drawn towards 1.

    All these heads return log probabilities, so that 1 is right unless examples say otherwise.

    Args:
        logits: ``[N, C]``.
        y: labels ``[N]``.
    """
    costs = [
        float(_losses(logits, y, math.exp(step)).sum()) + _TEMPERATURE_PENALTY * step * step
        for step in _LOG_TEMPERATURES.tolist()
    ]
    best = min(range(len(costs)), key=costs.__getitem__)
    return math.exp(_LOG_TEMPERATURES[best])


def voter_weights(head: CentredHead) -> Mapping[str, float]:
    """Return how much each head counts in a vote; nothing for other heads."""
    if not isinstance(head.head, VoteHead):
        return {}
    return dict(zip(head.head.names, head.head.weights.tolist(), strict=True))

"""Heads by name, made with a prior's settings, and the rule behind ``head="auto"``."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, nearest_names
from quickstudy.fitting.incontext import shipped_incontext
from quickstudy.learners.base import Learner
from quickstudy.learners.heads import (
    CentredHead,
    ClassMeanHead,
    DiscriminantHead,
    ForestHead,
    GradientHead,
    LogisticHead,
    NeighbourHead,
    PrototypeHead,
    RidgeHead,
    VoteHead,
)
from quickstudy.learners.heads.centred import Lengths

__all__ = [
    "CANDIDATES",
    "COLUMN_SETTINGS",
    "HEADS",
    "VOTERS",
    "Settings",
    "affordable",
    "build_head",
    "nearest_size",
    "preferred_unless_beaten",
    "quick_twin",
    "usual_settings",
]

Settings = Mapping[str, float]

HEADS: dict[str, tuple[dict[str, float], ...]] = {
    "prototype": ({"shrinkage": 0.0},),
    "ridge": tuple({"penalty": p, "kernel_width": 0.7} for p in (0.03, 0.1, 0.3, 1.0, 3.0)),
    "logistic": tuple({"c": c} for c in (1.0, 3.0, 10.0, 30.0, 100.0)),
    "kernel": tuple({"c": c, "kernel_width": 0.5} for c in (3.0, 10.0, 30.0, 100.0)),
    "neighbours": tuple({"temperature": t} for t in (0.05, 0.1, 0.2, 0.4)),
    "class-mean": ({},),
    "incontext": ({},),
    "gradient": ({"steps": 5, "lr": 0.05, "temperature": 0.1},),
    "lda": tuple({"shrinkage": s} for s in (0.1, 0.3, 0.6)),
    "extra-trees": ({"trees": 100},),
    "random-forest": ({"trees": 100},),
    "vote": ({},),
}
"""Names of heads, and for each the settings that a prior chooses from."""

VOTERS = ("logistic", "lda", "extra-trees", "random-forest")
"""Heads that vote together in ``"vote"``."""

# on columns of deviation 1, C=1 is scikit-learn's default; embeddings of length 1 need more
COLUMN_SETTINGS = HEADS | {"logistic": tuple({"c": c} for c in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0))}
"""The same for columns of a table, whose heads choose on the task's own held-out examples."""

_COLUMN_DEFAULTS: dict[str, dict[str, float]] = {"logistic": {"c": 1.0}}

CANDIDATES = ("prototype", "ridge", "logistic", "kernel")
"""Heads that ``head="auto"`` chooses from."""

# standard errors by which another head must be better than the preferred one
_CLEAR_LEAD = 2.0
# multiplications of one fit with cross-validation, at most: about ten seconds of one core
_MOST_MULTIPLICATIONS = 2e11


def usual_settings(name: str, *, columns: bool = False) -> Settings:
    """Return the settings of a head where nothing is known that they could be chosen by.

    Args:
        name: one of :data:`HEADS`.
        columns: whether embeddings are columns of a table.
    """
    if columns and name in _COLUMN_DEFAULTS:
        return _COLUMN_DEFAULTS[name]
    return HEADS[name][len(HEADS[name]) // 2]


def build_head(
    name: str,
    settings: Settings,
    *,
    dim: int,
    centre_prior: float,
    columns: bool = False,
    fingerprint: str | None = None,
) -> CentredHead:
    """Return a head behind a :class:`~quickstudy.learners.heads.CentredHead`.

    Every head but ``"class-mean"`` sees embeddings relative to a centre of the task. That centre
    moves when a class is added or removed, and scores of class means must not change then.

    Args:
        name: one of :data:`HEADS`.
        settings: its hyperparameters; missing ones are taken from :data:`HEADS`.
        dim: features of the embeddings, ``D``.
        centre_prior: see :class:`~quickstudy.learners.heads.CentredHead`.
        columns: whether embeddings are columns of a table. Then nothing is scaled to length one,
            and classes count as likely as they are frequent: a table is a sample of rows as a rule,
            and pictures and texts are collected class by class.
        fingerprint: of the encoder, for ``"incontext"``: that head was trained on its embeddings.

    Raises:
        ConfigError: if there is no such head, or it does not read columns.
    """
    if name not in HEADS:
        offered = nearest_names(str(name), [*HEADS, "auto"])
        raise ConfigError(f"there is no head {name!r}. {offered}")
    if name == "incontext":
        if columns:
            raise ConfigError(
                "the head 'incontext' reads directions of embeddings, and columns of a table are "
                "none. Use 'vote', which is 'auto' on tables."
            )
        return CentredHead(shipped_incontext(fingerprint), prior=centre_prior).eval()
    if columns:
        # columns have their mean at zero already; kernels and distances need a unit
        lengths: Lengths = "raw" if name in (*VOTERS, "vote", "class-mean") else "task"
        head = _inner_head(name, settings, dim, columns=True)
        return CentredHead(head, prior=math.inf, lengths=lengths).eval()
    centre_prior = math.inf if name == "class-mean" else centre_prior
    return CentredHead(_inner_head(name, settings, dim), prior=centre_prior).eval()


def _inner_head(name: str, settings: Settings, dim: int, *, columns: bool = False) -> Learner:
    """Return the head behind the :class:`~quickstudy.learners.heads.CentredHead`."""
    numbers = {**HEADS[name][0], **settings}
    distance, balanced = "euclidean" if columns else "cosine", not columns
    if name == "prototype":
        return PrototypeHead(distance=distance, temperature=1.0, shrinkage=numbers["shrinkage"])
    if name == "ridge":
        return RidgeHead(
            penalty=numbers["penalty"], scale=1.0, kernel_width=numbers["kernel_width"]
        )
    if name in ("logistic", "kernel"):
        return LogisticHead(
            c=numbers["c"],
            balanced=balanced,
            kernel_width=numbers.get("kernel_width"),
            tolerance=1e-3,
        )
    if name == "class-mean":
        return ClassMeanHead(distance=distance)
    if name == "neighbours":
        return NeighbourHead(temperature=2 * numbers["temperature"])
    if name == "lda":
        return DiscriminantHead(shrinkage=numbers["shrinkage"], balanced=balanced)
    if name in ("extra-trees", "random-forest"):
        return ForestHead(name, trees=int(numbers["trees"]))
    if name == "vote":
        members = {one: usual_settings(one, columns=columns) for one in VOTERS}
        return VoteHead({n: _inner_head(n, s, dim, columns=columns) for n, s in members.items()})
    return GradientHead(
        dim, steps=int(numbers["steps"]), lr=numbers["lr"], temperature=numbers["temperature"]
    )


def quick_twin(head: CentredHead) -> CentredHead:
    """Return a fast head with the same answers up to rounding.

    Only ``"class-mean"`` has one: its exact sums take long where every support example is held out.
    Other heads are returned as they are.
    """
    if not isinstance(head.head, ClassMeanHead):
        return head
    twin = PrototypeHead(distance=head.head.distance, temperature=1.0)
    return CentredHead(twin, prior=head.prior, lengths=head.lengths).eval()


def affordable(name: str, support: Examples, n_way: int) -> bool:
    """Return whether ``auto`` considers a head on a task of this size.

    The cost is counted in multiplications of a fit with five-fold cross-validation; above 2e11 a
    head takes longer than some ten seconds on one core. Prototypes are always affordable.
    """
    _, size, dim = support.x.shape
    if name == "prototype":
        return True
    if name == "ridge":
        return 12.0 * size**3 <= _MOST_MULTIPLICATIONS
    width = size if name == "kernel" else min(size, dim)
    return 300.0 * size * width * n_way + size**3 <= _MOST_MULTIPLICATIONS


def preferred_unless_beaten(losses: Mapping[str, Tensor], preferred: str) -> str:
    """Return the preferred head, unless another one's held-out losses are clearly lower.

    Clearly lower: the mean of the paired differences is below zero by more than two standard
    errors. Of several such heads the one with the lowest mean is returned.

    Breiman et al. (1984), section 3.4.3. *Difference*: they ask for one standard error. On
    auxiliary tasks two are better, because one of several heads is often one error ahead by chance.

    Args:
        losses: by head, of each held-out support example ``[N]``; here errors, 0 or 1.
        preferred: the head that the prior expects to be best.
    """
    best, lowest = preferred, 0.0
    base = losses[preferred]
    if len(base) < 2:
        return preferred
    for name, loss in losses.items():
        difference = loss - base
        mean = float(difference.mean())
        error = float(difference.std() / len(base) ** 0.5)
        if mean + _CLEAR_LEAD * error < 0 and mean < lowest:
            best, lowest = name, mean
    return best


def nearest_size(ways: float, shots: float, known: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the size of ``known`` that is nearest: least squared distance of the logarithms."""
    sizes = torch.tensor(known, dtype=torch.float64).log()
    wanted = torch.tensor([max(ways, 1.0), max(shots, 1.0)], dtype=torch.float64).log()
    return known[int((sizes - wanted).square().sum(1).argmin())]

"""A task learned from its support: answers, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskError, TaskState
from quickstudy.fitting.evidence import (
    Evidence,
    gather_evidence,
    held_out_features,
    log_loss,
)
from quickstudy.fitting.heads import (
    CANDIDATES,
    affordable,
    preferred_unless_beaten,
    quick_twin,
)
from quickstudy.fitting.novelty import distances
from quickstudy.fitting.prior import HeadPrior, TaskPrior
from quickstudy.fitting.surfaces import Surface
from quickstudy.learners.heads import CentredHead, held_out_in, held_out_logits

__all__ = ["Estimate", "FittedTask", "fit_task", "held_out_quantile"]

_FOLDS = 5
# examples times classes from which one part of every class is held out, not five in turn
_LARGE = 1_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """The accuracy to expect on new examples of the task's classes.

    Args:
        mean: expected accuracy, a fraction.
        low: lower end of the interval.
        high: upper end.
        coverage: share of tasks whose accuracy lies in such an interval.
        method: what it was drawn from.
    """

    mean: float
    low: float
    high: float
    coverage: float
    method: str

    def __str__(self) -> str:
        return (
            f"{100 * self.mean:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f} %, "
            f"{100 * self.coverage:.0f} % interval over tasks; {self.method})"
        )


@dataclass(frozen=True, slots=True)
class FittedTask:
    """What a prior and a support set make of a task. Made by :func:`fit_task`.

    Args:
        prior: what other tasks teach.
        head_name: the head that answers.
        head: the same.
        state: what it learned.
        support: the examples in the prior's metric ``[1, S, D]``.
        n_way: number of classes ``C``.
        evidence: what the support says of itself; of a large task, what a part of it says.
        features: what the prior's surfaces are asked with: of size, and of the held-out examples
            where they say something ``[1, F]``.
        temperature: logits are divided by it.
        held_out_errors: of every head considered, 0 or 1 for each held-out example ``[N]``.
    """

    prior: TaskPrior
    head_name: str
    head: CentredHead
    state: TaskState
    support: Examples
    n_way: int
    evidence: Evidence
    features: Tensor
    temperature: float
    held_out_errors: Mapping[str, Tensor]

    # ------------------------------------------------------------------------------ answers

    def logits(self, z: Tensor) -> Tensor:
        """Return calibrated logits of queries ``[Q, D] -> [Q, C]``; classes without support have
        minus infinity.

        Args:
            z: embeddings as the encoder gives them.

        Raises:
            TaskError: if the width is another, or a number is not finite.
        """
        return self.scores(z) / self.temperature

    @torch.no_grad()
    def scores(self, z: Tensor) -> Tensor:
        """Return the head's logits as they are, before calibration ``[Q, D] -> [Q, C]``."""
        return self.head.predict(self.state, self.prior.transform(z.float())[None])[0]

    def proba(self, z: Tensor) -> Tensor:
        """Return probabilities ``[Q, C]``, each row summing to 1."""
        return self.logits(z).double().softmax(1)

    def sets(self, z: Tensor, *, coverage: float = 0.9) -> Tensor:
        """Return which classes are in the prediction set of each query, bool ``[Q, C]``.

        On tasks like the auxiliary ones the sets hold the true class in ``coverage`` of all
        queries, on average over tasks. A set may be empty: the query is unlike what its nearest
        class shows. Without auxiliary tasks the thresholds come from the held-out support examples
        alone, and with one example per class every class is in every set.

        Args:
            z: embeddings ``[Q, D]``.
            coverage: in (0, 1).

        Raises:
            ConfigError: if the coverage is out of range.
        """
        return self.sets_of(self.logits(z), coverage=coverage)

    def sets_of(self, logits: Tensor, *, coverage: float = 0.9) -> Tensor:
        """Return the same from what :meth:`logits` returned ``[Q, C]``."""
        if not isinstance(coverage, int | float) or not 0 < coverage < 1:
            raise ConfigError(f"coverage is a share between 0 and 1; got {coverage}.")
        scores = -logits.double().log_softmax(1)
        return scores <= self._set_threshold(coverage)

    def _set_threshold(self, coverage: float) -> float:
        known = self._head_prior
        if known is None:
            return held_out_quantile(self._held_out_scores(), coverage)
        told = self._told
        return _between(known.sets[int(told)], self.features, coverage)

    def novelty(self, z: Tensor) -> Tensor:
        """Return how unlike everything in the task a query is ``[Q]``: log odds of being a
        stranger, if the prior was learned, or else the cosine distance to the nearest example."""
        seen = self.head.seen(self.support, n_way=self.n_way)
        x = self.prior.transform(z.float())[None] - self.state["centre"]
        found = distances(seen, x, n_way=self.n_way)[0].double()  # [Q, 4]
        if self.prior.open_set is None:
            return found[:, 0]
        size = self.evidence.size.expand(len(found), -1)
        return self.prior.open_set.score(torch.cat([found, size], 1))

    def accepts(self, z: Tensor, *, accept: float = 0.95) -> Tensor:
        """Return which queries may belong to one of the classes, bool ``[Q]``.

        Args:
            z: embeddings ``[Q, D]``.
            accept: share of queries of known classes to accept, on average over tasks.

        Raises:
            ConfigError: if the share is out of range.
        """
        if not 0 < accept < 1:
            raise ConfigError(f"accept is a share between 0 and 1; got {accept}.")
        return self.novelty(z) <= self.novelty_threshold(accept)

    def novelty_threshold(self, accept: float = 0.95) -> float:
        """Return the largest :meth:`novelty` that is accepted; without auxiliary tasks, what the
        support's own nearest neighbours say."""
        if self.prior.open_set is not None:
            return _between(self.prior.open_set.thresholds, self.evidence.size, accept)
        seen = self.head.seen(self.support, n_way=self.n_way)
        cosine = torch.nn.functional.normalize(seen.x[0], dim=1)
        gaps = 1 - (cosine @ cosine.T).fill_diagonal_(-1.0)
        same = seen.y[0, :, None] == seen.y[0]
        own = gaps.masked_fill(~same | torch.eye(len(gaps), dtype=torch.bool), math.inf).amin(1)
        return held_out_quantile(own[own.isfinite()].double(), accept)

    # --------------------------------------------------------------------------------- help

    def expected_accuracy(self) -> Estimate:
        """Return the accuracy to expect on queries like the support, with a 90 % interval.

        Without auxiliary tasks: the held-out accuracy and its Wilson interval (1927).
        """
        known, told = self._head_prior, self._told
        method = "leaving examples out" if told else "the size of the task alone"
        if self.prior.learned:
            method += ", and what came of it in other tasks"
        elif not told:
            method = "nothing: with one example each, nothing can be held out"
        if known is not None:
            logit = float(known.accuracy[int(told)](self.features))
            low, high = known.spread[int(told)]
            mean, low, high = (1 / (1 + math.exp(-(logit + by))) for by in (0.0, low, high))
            return Estimate(mean, low, high, 0.9, method)
        judged = self.evidence.judged[0]
        n = int(judged.sum())
        classes = max(1, int(self.state_classes))
        if n == 0:
            return Estimate(1 / classes if classes > 1 else 1.0, 0.0, 1.0, 0.9, method)
        right = self.evidence.held_out[0].argmax(1) == self.evidence.y[0]
        share, z = float(right[judged].double().mean()), 1.645
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), 0.9, method)

    @property
    def state_classes(self) -> int:
        """The number of classes with support."""
        return len(self.support.y[self.support.mask].unique())

    def suspects(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the support examples, the likeliest wrong label first, and their scores.

        The score is the log odds of the best other label against the given one, held out: above 0
        the rest of the support contradicts the label. Examples that are alone in their class come
        last, with minus infinity: nothing speaks for or against their label.

        Returns:
            Rows of the support ``[S]`` and scores ``[S]`` in that order, and the label that is the
            best other one for each of them ``[S]``.
        """
        evidence = self.evidence
        if _is_large(self.support, self.n_way):
            evidence = _evidence(self.prior, self.head, self.support, self.n_way, whole=True)
        log_p = (evidence.held_out[0].double() / self.temperature).log_softmax(1)
        own = torch.nn.functional.one_hot(evidence.y[0], self.n_way).bool()
        given = log_p[own]
        other, best = log_p.masked_fill(own, -math.inf).max(1)
        score = torch.where(evidence.judged[0], other - given, -math.inf)
        order = score.argsort(descending=True, stable=True)
        return order, score[order], best[order]

    # ------------------------------------------------------------------------------- inside

    @property
    def _head_prior(self) -> HeadPrior | None:
        return _known(self.prior, self.head_name)

    @property
    def _told(self) -> bool:
        return bool(self.evidence.enough[0])

    def _held_out_scores(self) -> Tensor:
        evidence, judged = self.evidence, self.evidence.judged[0]
        temperature = torch.tensor([self.temperature], dtype=torch.float64)
        return log_loss(evidence.held_out, evidence.y, temperature)[0][judged]


def fit_task(
    prior: TaskPrior, z: Tensor, y: Tensor, *, n_way: int, head: str = "auto"
) -> FittedTask:
    """Learn one task.

    ``head="auto"``: of the heads in :data:`~quickstudy.fitting.heads.CANDIDATES` that the size
    of the task affords, the one that the prior prefers for that size, unless another makes fewer
    errors on held-out examples, by more than two standard errors (see
    :func:`~quickstudy.fitting.heads.preferred_unless_beaten`). With one example per class
    nothing can be held out, and it is the prior's.

    Args:
        prior: what other tasks teach of this encoder.
        z: embeddings of the support ``[S, D]``, as the encoder gives them.
        y: labels in ``[0, n_way)`` ``[S]``.
        n_way: number of classes ``C``.
        head: a name, or ``"auto"``.

    Raises:
        TaskError: if there is no example, or shapes, labels or numbers are not usable.
        ConfigError: if there is no such head.
    """
    if z.ndim != 2 or y.shape != z.shape[:1] or not len(z):
        raise TaskError(
            f"a task needs embeddings [S, D] and labels [S] of at least one example; got "
            f"{tuple(z.shape)} and {tuple(y.shape)}."
        )
    x = _class_by_class(prior, z, y) if head == "class-mean" else prior.transform(z.float())
    support = Examples.full(x[None], y[None].long())
    support.check_labels(n_way)
    counts = torch.bincount(support.y[0], minlength=n_way)
    counts = counts[counts > 0]
    shots = len(counts) / float((1 / counts).sum())
    names = [head]
    if head == "auto":
        names = [name for name in CANDIDATES if affordable(name, support, n_way)]
    found: dict[str, tuple[CentredHead, Evidence]] = {}
    for name in names:
        made = prior.head(name, ways=len(counts), shots=shots)
        found[name] = made, _evidence(prior, made, support, n_way)
    errors = {name: _errors(e) for name, (_, e) in found.items()}
    chosen = names[0]
    if len(names) > 1:
        preferred = prior.preferred(found[chosen][1].size, among=tuple(names))
        chosen = preferred_unless_beaten(errors, preferred)
    made, evidence = found[chosen]
    with torch.no_grad():
        state = made.adapt(support, n_way=n_way)
    features, temperature = _calibrated(prior, chosen, evidence)
    return FittedTask(
        prior, chosen, made, state, support, n_way, evidence, features, temperature, errors
    )


def _class_by_class(prior: TaskPrior, z: Tensor, y: Tensor) -> Tensor:
    """Return the same as ``prior.transform``; a class's rows do not depend on other classes, not
    even in their last bits, which a product rounds by how many rows it has."""
    order = y.argsort(stable=True)
    parts = z[order].float().split(torch.bincount(y).tolist())
    x = z.new_zeros(len(z), prior.metric.dim, dtype=torch.float32)
    x[order] = torch.cat([prior.transform(part) for part in parts])
    return x


def _is_large(support: Examples, n_way: int) -> bool:
    return support.y.numel() * n_way > _LARGE


@torch.no_grad()
def _evidence(
    prior: TaskPrior, head: CentredHead, support: Examples, n_way: int, *, whole: bool = False
) -> Evidence:
    """Return what the support says of itself; of a large task one part of every class says it,
    unless all of it is asked for."""
    seen = head.seen(support, n_way=n_way)
    alone = int(torch.bincount(support.y[0]).max()) < 2
    asked, rounds = None, _FOLDS
    if not whole and _is_large(support, n_way):
        rounds = 1
        asked = held_out_in(support, n_way=n_way, folds=_FOLDS, rounds=rounds)
    if alone:
        # nothing can be held out: no refit for nothing
        held_out = torch.zeros(*support.y.shape, n_way)
    else:
        twin = quick_twin(head)
        held_out = held_out_logits(twin, support, n_way=n_way, folds=_FOLDS, rounds=rounds)
    return gather_evidence(seen, held_out, n_way=n_way, most_ways=prior.most_ways, asked=asked)


def _errors(evidence: Evidence) -> Tensor:
    """Return which held-out examples are answered wrong, 0 or 1 ``[N]``."""
    judged = evidence.judged[0]
    return (evidence.held_out[0].argmax(1) != evidence.y[0])[judged].double()


def _known(prior: TaskPrior, name: str) -> HeadPrior | None:
    # a gradient head starts as prototypes and moves little
    return prior.heads.get(name, prior.heads.get("prototype"))


def _calibrated(prior: TaskPrior, name: str, evidence: Evidence) -> tuple[Tensor, float]:
    """Return what the surfaces are asked with, and the temperature."""
    known, told = prior.heads.get(name), bool(evidence.enough[0])
    if not told:
        plain = _mild(evidence) if known is None else known.temperature[0](evidence.size).exp()
        return evidence.size, float(plain)
    features, own = held_out_features(evidence)
    better = own if known is None else own + known.temperature[1](features)
    return features, float(better.exp())


def _mild(evidence: Evidence) -> float:
    """Return a temperature where nothing can be held out: the deviation of the logits."""
    logits = evidence.held_out[0][evidence.judged[0]]
    finite = logits[logits.isfinite()]
    unit = float(finite.std()) if finite.numel() > 1 else 0.0
    return unit if unit > 0 else 0.1


def _between(levels: Mapping[float, Surface], features: Tensor, level: float) -> float:
    """Return a threshold at any level, linear in the logit of the level between learned ones."""
    known = sorted(levels)
    values = [float(levels[q](features)) for q in known]
    for i in range(1, len(values)):
        # quantile surfaces are fitted one by one: they must not cross
        values[i] = max(values[i], values[i - 1])
    place = [math.log(q / (1 - q)) for q in known]
    wanted = math.log(level / (1 - level))
    i = min(max(sum(p <= wanted for p in place), 1), len(place) - 1)
    share = (wanted - place[i - 1]) / (place[i] - place[i - 1])
    return values[i - 1] + share * (values[i] - values[i - 1])


def held_out_quantile(scores: Tensor, level: float) -> float:
    """Return the conformal quantile of exchangeable scores: the ``ceil((n + 1) level)``-th smallest
    of ``n``, infinity if there are too few (Vovk, Gammerman and Shafer 2005, section 2.2).

    Args:
        scores: ``[N]``.
        level: in (0, 1).
    """
    n = len(scores)
    rank = math.ceil((n + 1) * level)
    return math.inf if rank > n else float(scores.sort().values[rank - 1])

"""A task learned from its support: answers, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskError, TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size
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
# examples times classes above which one fold is held out, not all five in turn: each is a refit
_LARGE_TASK = 1_000_000
# normal quantile of a two-sided 90 % interval
_Z_90 = 1.645


@dataclass(frozen=True, slots=True)
class Estimate:
    """The accuracy to expect on new examples of the task's classes.

    Args:
        mean: expected accuracy, a fraction.
        low: lower end of the interval, a fraction.
        high: upper end of the interval, a fraction.
        coverage: share of tasks whose accuracy lies in such an interval.
        method: what the estimate is based on, in words.

    Example::

        z, y = torch.randn(20, 64), torch.arange(5).repeat(4)
        task = fit_task(TaskPrior.plain(64), z, y, n_way=5)
        estimate = task.expected_accuracy()
        print(estimate)  # mean, interval, and what it is based on
        estimate.mean, estimate.low, estimate.high
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
    """A head adapted to one task and calibrated. Made by :func:`fit_task`.

    Args:
        prior: what was learned from other tasks.
        head_name: name of the head that answers.
        head: the head that answers.
        state: its state after adapting to the support.
        support: the examples in the prior's metric ``[1, S, D]``.
        n_way: number of classes ``C``.
        evidence: statistics of the support; those of a large task judge only one fold of it.
        features: inputs of the prior's surfaces ``[1, F]``: task size and, where enough could be
            held out, held-out statistics.
        temperature: logits are divided by it.
        held_out_errors: by head considered, 0 or 1 for each held-out example ``[N]``.

    Example::

        z, y = torch.randn(10, 64), torch.arange(5).repeat(2)
        task = fit_task(TaskPrior.plain(64), z, y, n_way=5)
        probabilities = task.proba(torch.randn(3, 64))  # [3, 5]
        inside = task.sets(torch.randn(3, 64), coverage=0.9)  # [3, 5]
        print(task.head_name, task.expected_accuracy())
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

    @checked
    def logits(self, z: Tensor) -> Tensor:
        """Return calibrated logits of queries ``[Q, D] -> [Q, C]``.

        Classes without support have minus infinity.

        Args:
            z: embeddings as the encoder returns them.

        Raises:
            TaskError: if the width is another, or a number is not finite.
        """
        return self.scores(z) / self.temperature

    @checked
    @torch.no_grad()
    def scores(self, z: Tensor) -> Tensor:
        """Return the head's logits before calibration ``[Q, D] -> [Q, C]``."""
        return self.head.predict(self.state, self.prior.transform(z.float())[None])[0]

    @checked
    def proba(self, z: Tensor) -> Tensor:
        """Return probabilities ``[Q, C]``, each row summing to 1."""
        return self.logits(z).double().softmax(1)

    @checked
    def sets(self, z: Tensor, *, coverage: float = 0.9) -> Tensor:
        """Return which classes are in the prediction set of each query, bool ``[Q, C]``.

        On tasks like the auxiliary ones the sets hold the true class in ``coverage`` of all
        queries, on average over tasks. A set may be empty: then even the likeliest class is
        unlikelier than the threshold. Without auxiliary tasks the thresholds come from the held-out
        support examples alone, and with one example per class every class is in every set.

        Args:
            z: embeddings ``[Q, D]``.
            coverage: in (0, 1).

        Raises:
            ConfigError: if the coverage is out of range.
        """
        return self.sets_of(self.logits(z), coverage=coverage)

    @checked
    def sets_of(self, logits: Tensor, *, coverage: float = 0.9) -> Tensor:
        """Return the same as :meth:`sets`, given what :meth:`logits` returned ``[Q, C]``."""
        if not 0 < coverage < 1:
            raise ConfigError(f"coverage is a share between 0 and 1; got {coverage}.")
        scores = -logits.double().log_softmax(1)
        return scores <= self._set_threshold(coverage)

    def _set_threshold(self, coverage: float) -> float:
        """Return the largest ``-log p`` with which a class is in a prediction set."""
        learned = self._head_prior
        if learned is None:
            return held_out_quantile(self._held_out_scores(), coverage)
        return _threshold_between(learned.sets[self._surface], self.features, coverage)

    @checked
    def novelty(self, z: Tensor) -> Tensor:
        """Return a score that is high for queries of none of the task's classes ``[Q]``.

        The log odds of being such a stranger if the prior was learned, or else one minus the cosine
        to the nearest example.
        """
        seen = self.head.seen(self.support, n_way=self.n_way)
        x = self.prior.transform(z.float())[None] - self.state["centre"]
        found = distances(seen, x, n_way=self.n_way)[0].double()  # [Q, 4]
        if self.prior.open_set is None:
            return found[:, 0]
        size = self.evidence.size.expand(len(found), -1)
        return self.prior.open_set.score(torch.cat([found, size], 1))

    @checked
    def accepts(self, z: Tensor, *, accept: float = 0.95) -> Tensor:
        """Return which queries may belong to one of the classes, bool ``[Q]``.

        Args:
            z: embeddings ``[Q, D]``.
            accept: share of queries of known classes to accept, on average over tasks.

        Raises:
            ConfigError: if the share is out of range.
        """
        return self.novelty(z) <= self.novelty_threshold(accept)

    @checked
    def novelty_threshold(self, accept: float = 0.95) -> float:
        """Return the largest :meth:`novelty` that is accepted.

        Without auxiliary tasks it comes from the distances between each support example and its
        nearest neighbour of the same class.

        Args:
            accept: share of queries of known classes to accept, in (0, 1).

        Raises:
            ConfigError: if the share is out of range.
        """
        if not 0 < accept < 1:
            raise ConfigError(f"accept is a share between 0 and 1; got {accept}.")
        if self.prior.open_set is not None:
            return _threshold_between(self.prior.open_set.thresholds, self.evidence.size, accept)
        seen = self.head.seen(self.support, n_way=self.n_way)
        x = torch.nn.functional.normalize(seen.x[0], dim=1)
        distance = 1 - (x @ x.T).fill_diagonal_(-1.0)  # [S, S]
        same = seen.y[0, :, None] == seen.y[0]
        self_or_other = ~same | torch.eye(len(distance), dtype=torch.bool)
        nearest = distance.masked_fill(self_or_other, math.inf).amin(1)  # [S]
        # an example that is alone in its class has no such neighbour
        return held_out_quantile(nearest[nearest.isfinite()].double(), accept)

    # -------------------------------------------------------------------- how good, and why

    def expected_accuracy(self) -> Estimate:
        """Return the accuracy to expect on queries like the support, with a 90 % interval.

        Without auxiliary tasks: the held-out accuracy and its Wilson interval (1927).
        """
        learned, enough = self._head_prior, self._enough_held_out
        method = "leaving examples out" if enough else "the size of the task alone"
        if self.prior.learned:
            method += ", and what came of it in other tasks"
        elif not enough:
            one_each = int(self.support.y[self.support.mask].bincount().max()) < 2
            method = (
                "nothing: with one example each, nothing can be held out"
                if one_each
                else "too few examples that differ enough could be held out"
            )
        if learned is not None:
            logit = float(learned.accuracy[self._surface](self.features))
            low, high = learned.spread[self._surface]
            mean, low, high = (1 / (1 + math.exp(-(logit + by))) for by in (0.0, low, high))
            return Estimate(mean, low, high, 0.9, method)
        judged = self.evidence.judged[0]
        n = int(judged.sum())
        classes = max(1, int(self.state_classes))
        if n == 0:
            return Estimate(1 / classes if classes > 1 else 1.0, 0.0, 1.0, 0.9, method)
        right = self.evidence.held_out[0].argmax(1) == self.evidence.y[0]
        # Wilson: unlike the normal interval, it does not shrink to a point at shares of 0 and 1
        share, z = float(right[judged].double().mean()), _Z_90
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), 0.9, method)

    @property
    def state_classes(self) -> int:
        """The number of classes with support."""
        return len(self.support.y[self.support.mask].unique())

    def suspects(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the support examples ordered by how likely their label is wrong, likeliest first.

        The score is the log odds of the best other label against the given one, from a state
        without the example. Above 0 the rest of the support contradicts the label. Examples that
        are alone in their class come last, with minus infinity: nothing speaks for or against their
        label.

        Returns:
            Rows of the support ``[S]`` in that order, their scores ``[S]``, and for each the best
            other label ``[S]``.
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
        # a head that has no prior of its own starts as prototypes and moves little from them
        return self.prior.heads.get(self.head_name, self.prior.heads.get("prototype"))

    @property
    def _enough_held_out(self) -> bool:
        return bool(self.evidence.enough[0])

    @property
    def _surface(self) -> int:
        """Which of a prior's two surfaces takes :attr:`features`: by size, or by support."""
        return int(self._enough_held_out)

    def _held_out_scores(self) -> Tensor:
        """Return ``-log p`` of the true class of each judged support example ``[N]``."""
        evidence, judged = self.evidence, self.evidence.judged[0]
        temperature = torch.tensor([self.temperature], dtype=torch.float64)
        return log_loss(evidence.held_out, evidence.y, temperature)[0][judged]


@checked
def fit_task(
    prior: TaskPrior, z: Tensor, y: Tensor, *, n_way: int, head: str = "auto"
) -> FittedTask:
    """Learn one task: choose a head, adapt it to the support and calibrate it.

    ``head="auto"`` considers the :data:`~quickstudy.fitting.heads.CANDIDATES` that are affordable
    for a task of this size, and takes the one that the prior prefers, unless another makes fewer
    errors on held-out examples, by more than two standard errors (see
    :func:`~quickstudy.fitting.heads.preferred_unless_beaten`). With one example per class nothing
    can be held out, and the prior's preference decides.

    Args:
        prior: what was learned from other tasks with this encoder.
        z: embeddings of the support ``[S, D]``, as the encoder returns them.
        y: labels in ``[0, n_way)`` ``[S]``.
        n_way: number of classes ``C``.
        head: one of :data:`~quickstudy.fitting.heads.HEADS`, or ``"auto"``.

    Raises:
        TaskError: if there is no example, a shape or a label is wrong, or an embedding is not
            finite.
        ConfigError: if there is no such head.
    """
    if z.ndim != 2 or y.shape != z.shape[:1] or not len(z):
        raise TaskError(
            f"a task needs embeddings [S, D] and labels [S] of at least one example; got "
            f"{tuple(z.shape)} and {tuple(y.shape)}."
        )
    check_size(n_way=n_way)
    if y.is_floating_point() or y.dtype == torch.bool:
        raise TaskError(
            f"labels are whole numbers from 0 to {n_way - 1}; got {y.dtype}. Number the classes, "
            "or take y.long() if they are numbered already."
        )
    x = _class_by_class(prior, z, y) if head == "class-mean" else prior.transform(z.float())
    support = Examples.full(x[None], y[None].long())
    support.check_labels(n_way)
    counts = torch.bincount(support.y[0], minlength=n_way)
    counts = counts[counts > 0]
    # harmonic mean: the classes with few examples decide how hard a task is
    shots = len(counts) / float((1 / counts).sum())
    names = [head]
    if head == "auto":
        names = [name for name in CANDIDATES if affordable(name, support, n_way)]
    heads = {name: prior.head(name, ways=len(counts), shots=shots) for name in names}
    evidence = {name: _evidence(prior, made, support, n_way) for name, made in heads.items()}
    errors = {name: _errors(of_head) for name, of_head in evidence.items()}
    chosen = names[0]
    if len(names) > 1:
        preferred = prior.preferred(evidence[chosen].size, among=tuple(names))
        chosen = preferred_unless_beaten(errors, preferred)
    with torch.no_grad():
        state = heads[chosen].adapt(support, n_way=n_way)
    features, temperature = _calibrated(prior, chosen, evidence[chosen])
    return FittedTask(
        prior,
        chosen,
        heads[chosen],
        state,
        support,
        n_way,
        evidence[chosen],
        features,
        temperature,
        errors,
    )


def _class_by_class(prior: TaskPrior, z: Tensor, y: Tensor) -> Tensor:
    """Return the same as ``prior.transform``, computed separately for each class.

    The last bits of a matrix product depend on its number of rows. Computed this way, the rows of a
    class do not change at all when another class is added or removed.
    """
    order = y.argsort(stable=True)
    parts = z[order].float().split(torch.bincount(y).tolist())
    x = z.new_zeros(len(z), prior.metric.dim, dtype=torch.float32)
    x[order] = torch.cat([prior.transform(part) for part in parts])
    return x


def _is_large(support: Examples, n_way: int) -> bool:
    return support.y.numel() * n_way > _LARGE_TASK


@torch.no_grad()
def _evidence(
    prior: TaskPrior, head: CentredHead, support: Examples, n_way: int, *, whole: bool = False
) -> Evidence:
    """Return the statistics of a support set.

    Of a large task one fold of every class is held out, unless the ``whole`` is asked for.
    """
    seen = head.seen(support, n_way=n_way)
    one_shot = int(torch.bincount(support.y[0]).max()) < 2
    asked, rounds = None, _FOLDS
    if not whole and _is_large(support, n_way):
        rounds = 1
        asked = held_out_in(support, n_way=n_way, folds=_FOLDS, rounds=rounds)
    if one_shot:
        # every example is alone in its class: none could be judged, so the refits are saved
        held_out = torch.zeros(*support.y.shape, n_way)
    else:
        twin = quick_twin(head)
        held_out = held_out_logits(twin, support, n_way=n_way, folds=_FOLDS, rounds=rounds)
    return gather_evidence(seen, held_out, n_way=n_way, most_ways=prior.most_ways, asked=asked)


def _errors(evidence: Evidence) -> Tensor:
    """Return which held-out examples are answered wrong, 0 or 1 ``[N]``."""
    judged = evidence.judged[0]
    return (evidence.held_out[0].argmax(1) != evidence.y[0])[judged].double()


def _calibrated(prior: TaskPrior, name: str, evidence: Evidence) -> tuple[Tensor, float]:
    """Return the inputs of the prior's surfaces ``[1, F]``, and the temperature."""
    learned = prior.heads.get(name)
    if not bool(evidence.enough[0]):
        if learned is None:
            return evidence.size, _logit_deviation(evidence)
        return evidence.size, float(learned.temperature[0](evidence.size).exp())
    features, log_temperature = held_out_features(evidence)
    if learned is not None:
        log_temperature = log_temperature + learned.temperature[1](features)
    return features, float(log_temperature.exp())


def _logit_deviation(evidence: Evidence) -> float:
    """Return the standard deviation of the judged logits: a temperature where too few are judged.

    0.1 if it cannot be computed: the deviation of cosines is about that small.
    """
    logits = evidence.held_out[0][evidence.judged[0]]
    finite = logits[logits.isfinite()]
    deviation = float(finite.std()) if finite.numel() > 1 else 0.0
    return deviation if deviation > 0 else 0.1


def _threshold_between(levels: Mapping[float, Surface], features: Tensor, level: float) -> float:
    """Return the threshold at any level, interpolated between those of learned levels.

    Linear in the logit of the level, because thresholds grow without bound as levels approach 1.
    """
    learned = sorted(levels)
    values = [float(levels[q](features)) for q in learned]
    for i in range(1, len(values)):
        # the surface of each level is fitted by itself, so two may cross; thresholds must not
        values[i] = max(values[i], values[i - 1])
    logits = [math.log(q / (1 - q)) for q in learned]
    wanted = math.log(level / (1 - level))
    # the interval that holds the level; the first or last one for levels outside
    i = min(max(sum(known <= wanted for known in logits), 1), len(logits) - 1)
    share = (wanted - logits[i - 1]) / (logits[i] - logits[i - 1])
    return values[i - 1] + share * (values[i] - values[i - 1])


def held_out_quantile(scores: Tensor, level: float) -> float:
    """Return the conformal quantile of exchangeable scores.

    It is the ``ceil((n + 1) level)``-th smallest of ``n`` scores, infinity if there are too few: a
    further score is at most that large with probability ``level`` or more (Vovk, Gammerman and
    Shafer 2005, section 2.2).

    Args:
        scores: ``[N]``.
        level: in (0, 1).
    """
    n = len(scores)
    rank = math.ceil((n + 1) * level)
    return math.inf if rank > n else float(scores.sort().values[rank - 1])

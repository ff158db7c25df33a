"""A task learned from its support: answers, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskError, TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size
from quickstudy.fitting.columns import column_heads, takes_columns
from quickstudy.fitting.combining import (
    RATIO_WEIGHT,
    SET_WEIGHT,
    accuracy_interval,
    held_out_accuracy,
    held_out_quantile,
    weighted_quantile,
)
from quickstudy.fitting.estimate import Estimate
from quickstudy.fitting.evidence import Evidence, log_loss, own_temperature
from quickstudy.fitting.familiar import familiar_source
from quickstudy.fitting.heads import (
    CANDIDATES,
    affordable,
    preferred_unless_beaten,
)
from quickstudy.fitting.judging import is_large, judged_support
from quickstudy.fitting.novelty import Neighbourhood
from quickstudy.fitting.one_shot import threshold_at
from quickstudy.fitting.prior import HeadPrior, TaskPrior
from quickstudy.learners.heads import CentredHead

__all__ = ["Estimate", "FittedTask", "fit_task", "held_out_quantile"]

# log odds from which a label is listed as suspect where there is one other class. On training
# classes of texts and characters, five per class and one in 25 labels wrong, half of those listed
# were wrong
_SUSPECT_ODDS = 1.36
# temperatures of heads at one example per class, the geometric mean over training classes of texts,
# images and characters; of a table, and in context, heads return log probabilities
_USUAL_TEMPERATURES = {"incontext": 1.0, "logistic": 0.26, "prototype": 0.11, "ridge": 0.054}


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
        temperature: logits are divided by it.
        near: distances of its examples, and of queries from them.
        familiar: name of the prior's source that the task resembles; ``None`` = none.
        held_out_errors: by head considered, 0 or 1 for each held-out example ``[N]``.
        groups: number of the group of each example ``[S]``; ``None`` = only copies belong together.

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
    temperature: float
    near: Neighbourhood
    familiar: str | None
    held_out_errors: Mapping[str, Tensor]
    groups: Tensor | None = None

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

        The threshold comes from the held-out support examples: a further example of the same kind
        is inside with probability ``coverage``. A set may be empty then: even the likeliest class
        is unlikelier than the threshold. A class whose only example could not be held out is in
        every set. Where nothing can be held out it comes from auxiliary
        tasks, and no set is empty; of a task that is like none of them, sets are so wide that they
        would have held the right class in ``coverage`` of the queries of every source. Without
        auxiliary tasks every class is in every set then.

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
        inside = scores <= self._set_threshold(coverage)
        if not self.enough_held_out and scores.shape[1]:
            return inside | (scores <= scores.amin(1, keepdim=True))
        # what was never held out cannot be ruled out
        return inside | self.alone

    def _set_threshold(self, coverage: float) -> float:
        """Return the largest ``-log p`` with which a class is in a prediction set."""
        learned = self._head_prior
        if self.enough_held_out or learned is None:
            own = self._held_out_scores()
            if learned is None or not learned.held_out:
                return held_out_quantile(own, coverage)
            return weighted_quantile(own, learned.held_out, SET_WEIGHT, coverage)
        return threshold_at(
            learned.at_one_shot(self.familiar, self.state_classes).sets,
            self.state_classes,
            coverage,
        )

    @checked
    def novelty(self, z: Tensor) -> Tensor:
        """Return a score that is high for queries of none of the task's classes ``[Q]``.

        It is the distance to the nearest example and class mean, in units of the mean distance
        between the task's own examples, see :class:`~quickstudy.fitting.novelty.Neighbourhood`.
        """
        return self.near(z) / self.near.unit

    @checked
    def accepts(self, z: Tensor, *, accept: float = 0.95) -> Tensor:
        """Return which queries may belong to one of the classes, bool ``[Q]``.

        Args:
            z: embeddings ``[Q, D]``.
            accept: share of queries of known classes to accept.

        Raises:
            ConfigError: if the share is out of range.
        """
        return self.novelty(z) <= self.novelty_threshold(accept)

    @checked
    def novelty_threshold(self, accept: float = 0.95) -> float:
        """Return the largest :meth:`novelty` that is accepted.

        It comes from the distances of the support examples, each judged without itself. Where every
        class has one example it comes from auxiliary tasks, and without any nothing is refused.

        Args:
            accept: share of queries of known classes to accept, in (0, 1).

        Raises:
            ConfigError: if the share is out of range.
        """
        if not 0 < accept < 1:
            raise ConfigError(f"accept is a share between 0 and 1; got {accept}.")
        learned = self.prior.open_set
        if self.near.several:
            own = self.near.own / self.near.unit
            if learned is None or not learned.held_out:
                return held_out_quantile(own, accept)
            return weighted_quantile(own, learned.held_out, RATIO_WEIGHT, accept)
        if learned is None or len(self.near.x) < 2:
            return math.inf
        levels = learned.at_one_shot(self.familiar, self.state_classes)
        return threshold_at(levels, self.state_classes, accept)

    def strangers_caught(self, accept: float = 0.95) -> float | None:
        """Return the share of queries of further classes of the same kind that would be refused.

        Each class stands for an unknown one: its examples are measured by their distances from the
        other classes. ``None`` where nothing tells: below three classes, or with one example each.

        Args:
            accept: share of queries of known classes to accept, in (0, 1).

        Raises:
            ConfigError: if the share is out of range.
        """
        threshold = self.novelty_threshold(accept)
        if self.state_classes < 3 or not self.near.several:
            return None
        return float((self.near.apart / self.near.unit > threshold).double().mean())

    # -------------------------------------------------------------------- how good, and why

    def expected_accuracy(self) -> Estimate:
        """Return the accuracy to expect on queries like the support, with a 90 % interval.

        From the held-out examples, see
        :func:`~quickstudy.fitting.combining.held_out_accuracy`; where nothing can be held out, from
        auxiliary tasks. The interval is for the share that is right of 15 queries per class.
        """
        classes = max(1, self.state_classes)
        learned, evidence = self._head_prior, self.evidence
        if self.enough_held_out:
            judged = evidence.judged[0]
            p = (evidence.held_out[0][judged].double() / self.temperature).softmax(1)
            confidence, answer = p.max(1)
            shots = float(evidence.shots)
            mean = held_out_accuracy(answer == evidence.y[0][judged], confidence, shots)
            low, high = accuracy_interval(mean, int(evidence.answers[0]), shots, classes)
            alone = int(self.alone.sum())
            if not alone:
                return Estimate(mean, low, high, 0.9, "leaving examples out")
            # of a class whose only example cannot be left out, anything from none to all is right
            heard, unheard = 1 - alone / classes, alone / classes
            method = f"leaving examples out; of {alone} of the {classes} classes nothing is known"
            middle = heard * mean + unheard * mean / 2
            return Estimate(middle, heard * low, heard * high + unheard, 0.9, method)
        if learned is not None:
            said = learned.at_one_shot(self.familiar, classes)
            mean, low, high = (t(classes) for t in (said.accuracy, said.low, said.high))
            like = "tasks of many kinds, as it is like none that are known"
            if said is not learned.far:
                like = f"other tasks, as it is most like {self.familiar}"
            return Estimate(mean, min(low, mean), max(high, mean), 0.9, like)
        one_each = int(self.support.y[self.support.mask].bincount().max()) < 2
        method = (
            "nothing: with one example each, nothing can be held out"
            if one_each
            else "nothing: too few examples that differ enough could be held out"
            if self.groups is None
            else "nothing: too few groups could be held out"
        )
        return Estimate(1 / classes if classes > 1 else 1.0, 0.0, 1.0, 0.9, method)

    @property
    def enough_held_out(self) -> bool:
        """Whether its own examples say enough of it, see
        :attr:`~quickstudy.fitting.evidence.Evidence.enough`."""
        return bool(self.evidence.enough[0])

    @property
    def alone(self) -> Tensor:
        """Which classes have one example or group only, which cannot be held out, bool ``[C]``."""
        y, judged = self.evidence.y[0], self.evidence.judged[0]
        heard = torch.bincount(y[judged], minlength=self.n_way) > 0
        return (torch.bincount(y, minlength=self.n_way) > 0) & ~heard

    @property
    def guessing(self) -> float:
        """The share of examples like the support that one who only guesses gets right: one over the
        classes, or the share of the most frequent class."""
        largest = float(torch.bincount(self.evidence.y[0]).max()) / self.evidence.y.shape[1]
        return max(1 / max(self.state_classes, 1), largest)

    @property
    def nothing_learned(self) -> bool:
        """Whether answers cannot be told from guessing: the interval of the expected accuracy holds
        the share that :attr:`guessing` gets right."""
        return (
            self.state_classes > 1
            and self.enough_held_out
            and self.expected_accuracy().low <= self.guessing
        )

    @property
    def state_classes(self) -> int:
        """The number of classes with support."""
        return len(self.support.y[self.support.mask].unique())

    @property
    def suspect_odds(self) -> float:
        """The score in :meth:`suspects` from which a label is as likely wrong as right.

        It grows with the number of other classes: a slip names one of them, and the more there are,
        the less each is to be expected.
        """
        return _SUSPECT_ODDS + math.log(max(self.state_classes - 1, 1))

    def suspects(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the support examples ordered by how likely their label is wrong, likeliest first.

        The score is the log odds of the best other label against the given one, from a state
        without the example. Above 0 the rest of the support contradicts the label; from
        :attr:`suspect_odds` on about half of the labels are wrong. Examples that are alone in their
        class come last, with minus infinity: nothing speaks for or against their label.

        Returns:
            Rows of the support ``[S]`` in that order, their scores ``[S]``, and for each the best
            other label ``[S]``.
        """
        evidence = self.evidence
        if is_large(self.support, self.n_way):
            evidence = judged_support(self.head, self.support, self.n_way, self.groups, whole=True)
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

    def _held_out_scores(self) -> Tensor:
        """Return ``-log p`` of the true class of each judged support example ``[N]``."""
        evidence, judged = self.evidence, self.evidence.judged[0]
        temperature = torch.tensor([self.temperature], dtype=torch.float64)
        return log_loss(evidence.held_out, evidence.y, temperature)[0][judged]


@checked
def fit_task(
    prior: TaskPrior,
    z: Tensor,
    y: Tensor,
    *,
    n_way: int,
    head: str = "auto",
    groups: Tensor | None = None,
) -> FittedTask:
    """Learn one task: choose a head, adapt it to the support and calibrate it.

    On columns of a table ``head="auto"`` is a vote, see
    :func:`~quickstudy.fitting.columns.column_heads`. Elsewhere it considers the
    :data:`~quickstudy.fitting.heads.CANDIDATES` that are affordable
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
        groups: number of the group of each example ``[S]``, whose members are held out together;
            ``None`` = only copies are.

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
    if groups is not None and (groups.shape != y.shape or int(groups.min()) < 0):
        raise TaskError(f"groups are numbers from 0 on, one for each of the {len(y)} examples.")
    if y.is_floating_point() or y.dtype == torch.bool:
        raise TaskError(
            f"labels are whole numbers from 0 to {n_way - 1}; got {y.dtype}. Number the classes, "
            "or take y.long() if they are numbered already."
        )
    support = Examples.full(z[None], y[None].long())
    support.check_labels(n_way)
    counts = torch.bincount(support.y[0], minlength=n_way)
    counts = counts[counts > 0]
    # harmonic mean: the classes with few examples decide how hard a task is
    shots = len(counts) / float((1 / counts).sum())
    x = _class_by_class(prior, z, y) if head == "class-mean" else prior.transform(z.float())
    familiar = familiar_source(prior.known, z, y)
    if head != "class-mean":  # whose scores further examples must not move: always one space
        used = prior.for_task(familiar, shots)
        x = x if used is prior else used.transform(z.float())
        prior = used
    support = replace(support, x=x[None])

    def judge(made: CentredHead) -> Evidence:
        return judged_support(made, support, n_way, groups)

    if takes_columns(prior, head):
        chosen, heads, evidence = column_heads(prior, head, support, n_way=n_way, judge=judge)
        errors = {name: _errors(of_head) for name, of_head in evidence.items()}
    else:
        names = [head]
        if head == "auto":
            names = [name for name in CANDIDATES if affordable(name, support, n_way)]
        heads = {name: prior.head(name, ways=len(counts), shots=shots) for name in names}
        evidence = {name: judge(made) for name, made in heads.items()}
        errors = {name: _errors(of_head) for name, of_head in evidence.items()}
        chosen = names[0]
        if len(names) > 1:
            preferred = prior.preferred(len(counts), shots, among=tuple(names))
            chosen = preferred_unless_beaten(errors, preferred)
    with torch.no_grad():
        state = heads[chosen].adapt(support, n_way=n_way)
    return FittedTask(
        prior,
        chosen,
        heads[chosen],
        state,
        support,
        n_way,
        evidence[chosen],
        _temperature(prior, chosen, evidence[chosen], familiar),
        Neighbourhood.of(z, y, columns=prior.columns, groups=groups),
        familiar,
        errors,
        groups,
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


def _errors(evidence: Evidence) -> Tensor:
    """Return which held-out examples are answered wrong, 0 or 1 ``[N]``."""
    judged = evidence.judged[0]
    return (evidence.held_out[0].argmax(1) != evidence.y[0])[judged].double()


def _temperature(prior: TaskPrior, name: str, evidence: Evidence, familiar: str | None) -> float:
    """Return the temperature: of the held-out examples, else of the prior."""
    if bool(evidence.enough[0]):
        return float(own_temperature(evidence.held_out, evidence.y, evidence.judged))
    learned = prior.heads.get(name)
    if learned is None:
        return _unjudged_temperature(name, evidence, prior.columns)
    ways = float(evidence.ways)
    return math.exp(learned.at_one_shot(familiar, ways).log_temperature(ways))


def _unjudged_temperature(name: str, evidence: Evidence, columns: bool) -> float:
    """Return a temperature where too few examples are judged and there is no prior.

    It is the standard deviation of the judged logits, or what was best on average where there are
    none.
    """
    logits = evidence.held_out[0][evidence.judged[0]]
    finite = logits[logits.isfinite()]
    deviation = float(finite.std()) if finite.numel() > 1 else 0.0
    usual = 1.0 if columns else _USUAL_TEMPERATURES.get(name, 0.1)
    return deviation if deviation > 0 else usual

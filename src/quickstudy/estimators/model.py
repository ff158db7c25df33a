"""What one version of a task knows: a head that learned the support, and what follows from it."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState, nearest_names
from quickstudy.estimators.evidence import Evidence, gather_evidence, held_out_features, log_loss
from quickstudy.estimators.heads import (
    CANDIDATES,
    HEADS,
    affordable,
    preferred_unless_beaten,
)
from quickstudy.estimators.novelty import distances
from quickstudy.estimators.prior import HeadPrior, TaskPrior
from quickstudy.estimators.records import Estimate
from quickstudy.estimators.support import Floats, Ints, Support
from quickstudy.learners.heads import CentredHead, leave_one_out

__all__ = ["Model"]

_QUERIES_AT_ONCE = 1024
# without auxiliary tasks: what fits the support's own held-out examples best, of these
_TEMPERATURES = tuple(2.0**power for power in range(-8, 5))


class Model:
    """A support set with the head that learned it; nothing is computed before it is asked for.

    Args:
        support: the labelled examples.
        prior: what auxiliary tasks taught about embeddings of this encoder.
        head: name of a head, or ``"auto"``.

    Raises:
        ConfigError: if there is no such head.
    """

    def __init__(self, support: Support, prior: TaskPrior, *, head: str) -> None:
        if head not in (*HEADS, "auto"):
            raise ConfigError(f"there is no head {head!r}. {nearest_names(head, [*HEADS, 'auto'])}")
        self._support, self._prior = support, prior
        with torch.no_grad():
            z = prior.transform(torch.from_numpy(support.z))
            self._examples = Examples.full(z[None], torch.from_numpy(support.y)[None])
            self._seen = prior.head("prototype", shots=self._shots).seen(
                self._examples, n_way=self.n_way
            )
        self.head_name = self._choose() if head == "auto" else head

    @property
    def n_way(self) -> int:
        """The number of classes."""
        return self._support.n_way

    @property
    def z(self) -> Floats:
        """The supports as the head sees them ``[N, D']``."""
        seen: Floats = self._seen.x[0].numpy()
        return seen

    @property
    def _shots(self) -> float:
        # harmonic mean: the classes with few examples rule how hard a task is
        return float(self.n_way / (1 / np.maximum(self._support.counts, 1)).sum())

    # ------------------------------------------------------------ the head

    @torch.no_grad()
    def _choose(self) -> str:
        """Return the head that ``"auto"`` takes: the prior's for a task of this size, unless another
        one's held-out loss on the support is clearly lower."""
        among = tuple(n for n in CANDIDATES if affordable(n, self._examples, self.n_way))
        size = self._sized.size
        preferred = self._prior.preferred(size, among=among)
        if self.n_way < 2 or self._support.counts.min() < 2:
            return preferred
        losses = {}
        for name in among:
            held_out = leave_one_out(self._head_called(name), self._examples, n_way=self.n_way)
            evidence = self._evidence_of(held_out)
            t = self._temperature_of(name, evidence)
            loss = log_loss(held_out, self._examples.y, torch.tensor([t]))
            losses[name] = loss[evidence.judged]
        return preferred_unless_beaten(losses, preferred)

    def _head_called(self, name: str) -> CentredHead:
        return self._prior.head(name, shots=self._shots)

    @cached_property
    def _head(self) -> CentredHead:
        return self._head_called(self.head_name)

    @cached_property
    def _state(self) -> TaskState:
        with torch.no_grad():
            return self._head.adapt(self._examples, n_way=self.n_way)

    @property
    def _learned(self) -> HeadPrior | None:
        return self._prior.heads.get(self.head_name)

    # ------------------------------------------------------------ what the support says

    def _evidence_of(self, held_out: Tensor) -> Evidence:
        return gather_evidence(
            self._seen, held_out, n_way=self.n_way, most_ways=self._prior.most_ways
        )

    @cached_property
    def _sized(self) -> Evidence:
        """Evidence of the size alone."""
        return self._evidence_of(torch.zeros(1, len(self._support.y), self.n_way))

    @cached_property
    def _held_out(self) -> Tensor:
        """The logits of each support from a state without it ``[1, N, C]``."""
        with torch.no_grad():
            return leave_one_out(self._head, self._examples, n_way=self.n_way)

    @cached_property
    def _evidence(self) -> Evidence:
        return self._evidence_of(self._held_out)

    def _temperature_of(self, name: str, evidence: Evidence) -> float:
        """Return the temperature of a head: learned from auxiliary tasks, else what fits the
        support's own held-out examples best."""
        learned = self._prior.heads.get(name)
        if learned is not None:
            by_size, by_support = learned.temperature
            plain = by_size(evidence.size).exp()
            if not bool(evidence.enough.all()):
                return float(plain)
            return float(by_support(held_out_features(evidence, plain)).exp())
        judged, logits = evidence.judged, evidence.held_out
        if not bool(evidence.enough.all()):
            return 0.1 if name == "prototype" else 1.0
        losses = [
            float(log_loss(logits, evidence.y, torch.tensor([t]))[judged].clamp(max=20).mean())
            for t in _TEMPERATURES
        ]
        return _TEMPERATURES[int(np.argmin(losses))]

    @cached_property
    def temperature(self) -> float:
        """What the logits are divided by to be calibrated."""
        return self._temperature_of(self.head_name, self._evidence)

    # ------------------------------------------------------------ answers

    @torch.no_grad()
    def scores(self, z: Floats) -> Floats:
        """Return the head's logits, ``[Q, D] -> [Q, C]``."""
        x = self._prior.transform(torch.from_numpy(z))
        parts = [self._head.predict(self._state, p[None])[0] for p in x.split(_QUERIES_AT_ONCE)]
        scores: Floats = torch.cat(parts).numpy()
        return scores

    def probabilities(self, z: Floats) -> Floats:
        """Return calibrated probabilities of the classes ``[Q, C]``, given that it is one of
        them."""
        logits = torch.from_numpy(self.scores(z)).double() / self.temperature
        p: Floats = logits.softmax(1).float().numpy()
        return p

    def sets(self, z: Floats, coverage: float) -> npt.NDArray[np.bool_]:
        """Return which labels cannot be ruled out ``[Q, C]``.

        With auxiliary tasks: a label stays if its ``-log p`` is at most the level that held the right
        label in ``coverage`` of their queries, given the size of the task and what its support says
        (Fisch et al. 2021, "Few-shot conformal prediction with auxiliary tasks"). Without: the split
        conformal quantile of the support's own held-out losses (Vovk 2012), which is large when
        there are few.
        """
        loss = -torch.from_numpy(self.probabilities(z)).double().clamp(min=1e-30).log()
        inside: npt.NDArray[np.bool_] = (loss <= self._level(coverage)).numpy()
        return inside

    def _level(self, coverage: float) -> float:
        if self._learned is not None:
            enough = bool(self._evidence.enough.all())
            surfaces = self._learned.sets[int(enough)]
            features = self._evidence.size
            if enough:
                plain = self._learned.temperature[0](features).exp()
                features = held_out_features(self._evidence, plain)
            return _between({q: float(surfaces[q](features)) for q in surfaces}, coverage)
        judged = self._evidence.judged
        t = torch.tensor([self.temperature])
        losses = log_loss(self._held_out, self._evidence.y, t)[judged].sort().values
        rank = math.ceil((len(losses) + 1) * coverage)
        return math.inf if rank > len(losses) else float(losses[rank - 1])

    # ------------------------------------------------------------ strangers

    @torch.no_grad()
    def _seen_queries(self, z: Floats) -> Tensor:
        x = self._prior.transform(torch.from_numpy(z))[None]
        out = torch.nn.functional.normalize(x - self._state["centre"], dim=2)
        return out

    def known_score(self, z: Floats) -> Floats:
        """Return how much each input looks like one of the classes ``[Q]``: higher = more."""
        return self._novelty(self._seen_queries(z)).neg().float().numpy()  # type: ignore[no-any-return]

    def _novelty(self, x: Tensor) -> Tensor:
        """Return the log odds of being a stranger ``[Q]``, or the distance without auxiliary
        tasks."""
        d = distances(self._seen, x, n_way=self.n_way)[0].double()  # [Q, 4]
        if self._prior.open_set is None:
            return d[:, 0]
        size = self._sized.size.expand(len(d), -1)
        return self._prior.open_set.score(torch.cat([d, size], 1))

    def known(self, z: Floats, false_rejects: float) -> npt.NDArray[np.bool_]:
        """Return which inputs are near enough to belong to a class ``[Q]``."""
        near: npt.NDArray[np.bool_] = -self.known_score(z) <= self._threshold(1 - false_rejects)
        return near

    def _threshold(self, accepted: float) -> float:
        if self._prior.open_set is not None:
            levels = self._prior.open_set.thresholds
            size = self._sized.size
            return _between({q: float(s(size)) for q, s in levels.items()}, accepted)
        # the support's own distances to each other, each example left out in turn
        own = torch.cdist(self._seen.x[0], self._seen.x[0]).square() / 2  # 1 - cosine
        own.fill_diagonal_(math.inf)
        nearest = own.amin(1).sort().values
        rank = math.ceil((len(nearest) + 1) * accepted)
        return math.inf if rank > len(nearest) else float(nearest[rank - 1])

    def distances(self, z: Floats) -> Floats:
        """Return the distances to the supports ``[Q, N]``, as the head sees them."""
        d: Floats = torch.cdist(self._seen_queries(z)[0], self._seen.x[0]).numpy()
        return d

    # ------------------------------------------------------------ help

    def estimate(self) -> Estimate:
        """Return the accuracy to expect, with a 90 % interval over tasks."""
        if self.n_way < 2:
            return Estimate(1.0, 1.0, 1.0, 0.9, "there being one class only")
        enough = bool(self._evidence.enough.all())
        if self._learned is not None:
            features = self._evidence.size
            if enough:
                plain = self._learned.temperature[0](features).exp()
                features = held_out_features(self._evidence, plain)
            middle = float(self._learned.accuracy[int(enough)](features))
            low, high = self._learned.spread[int(enough)]
            mean, low, high = (_sigmoid(middle + by) for by in (0.0, low, high))
            what = "the held-out support and tasks like it" if enough else "tasks of this size"
            return Estimate(mean, low, high, 0.9, what)
        judged = self._evidence.judged[0]
        n = int(judged.sum())
        if n < 2:
            low = 1 / self.n_way
            return Estimate((1 + low) / 2, low, 1.0, 0.9, "one example each: anything is possible")
        right = (self._held_out[0].argmax(1) == self._evidence.y[0])[judged].double().sum()
        share = (float(right) + 1) / (n + 2)
        # Wilson's interval of the leave-one-out accuracy
        half = 1.645 * math.sqrt(share * (1 - share) / n)
        return Estimate(
            share, max(0.0, share - half), min(1.0, share + half), 0.9, "leaving one out"
        )

    def label_evidence(self) -> tuple[Floats, Ints]:
        """Return the log odds of the best other class against each support's label ``[N]``, and that
        class ``[N]``; minus infinity where an example is alone in its class."""
        y = self._support.y
        if self.n_way < 2:
            return np.full(len(y), -np.inf, dtype=np.float32), y
        logits = (self._held_out[0].double() / self.temperature).numpy()
        rows = np.arange(len(y))
        others = logits.copy()
        others[rows, y] = -np.inf
        best = others.argmax(1)
        judged = self._evidence.judged[0].numpy()
        evidence = np.full(len(y), -np.inf)
        evidence[judged] = (others[rows, best] - logits[rows, y])[judged]
        return evidence.astype(np.float32), best.astype(np.int64)

    def label_next(self, z: Floats, n: int) -> Ints:
        """Return the rows of ``z`` to label first ``[<= n]``: uncertain, and unlike each other."""
        p = np.sort(self.probabilities(z), axis=1)
        margin = p[:, -1] - (p[:, -2] if self.n_way > 1 else 0)
        x = self._seen_queries(z)[0]
        # nearer than half the usual distance between a query and its nearest support = the same
        near = 0.5 * float(np.median(self.distances(z).min(1)))
        chosen: list[int] = []
        for row in np.argsort(margin, kind="stable").tolist():
            if len(chosen) == n:
                break
            if not chosen or float(torch.cdist(x[row][None], x[chosen]).min()) > near:
                chosen.append(row)
        return np.array(chosen, dtype=np.int64)


def _between(levels: dict[float, float], wanted: float) -> float:
    """Return the value at a level between those that were learned; beyond them, the outermost."""
    known = sorted(levels)
    return float(np.interp(wanted, known, [levels[q] for q in known]))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))

"""One version of a task in arrays: what the classifier asks of a fitted task."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.estimators.answers import Explanation, Neighbour
from quickstudy.estimators.support import Floats, Ints, Support
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import Estimate, FittedTask, fit_task

__all__ = ["Model"]

_QUERIES_AT_ONCE = 1024


class Model:
    """A support set with the head that learned it.

    Args:
        support: the labelled examples.
        prior: what auxiliary tasks taught about embeddings of this encoder.
        head: name of a head, or ``"auto"``.

    Raises:
        ConfigError: if there is no such head.
    """

    def __init__(self, support: Support, prior: TaskPrior, *, head: str) -> None:
        self._support, self._prior = support, prior
        z, y = torch.from_numpy(support.z), torch.from_numpy(support.y)
        self._task = fit_task(prior, z, y, n_way=support.n_way, head=head)

    @property
    def task(self) -> FittedTask:
        """The task as it was fitted."""
        return self._task

    @property
    def head_name(self) -> str:
        """The head in use."""
        return self._task.head_name

    @cached_property
    def _seen(self) -> Tensor:
        return self._task.head.seen(self._task.support, n_way=self._support.n_way).x[0]

    @property
    def z(self) -> Floats:
        """The supports as the head sees them ``[N, D']``."""
        seen: Floats = self._seen.numpy()
        return seen

    def scores(self, z: Floats, *, calibrated: bool = True) -> Floats:
        """Return logits, calibrated or as the head gives them, ``[Q, D] -> [Q, C]``."""
        ask = self._task.logits if calibrated else self._task.scores
        scores: Floats = torch.cat(
            [ask(part) for part in torch.from_numpy(z).split(_QUERIES_AT_ONCE)]
        ).numpy()
        return scores

    def probabilities(self, scores: Floats) -> Floats:
        """Return the probabilities of the classes ``[Q, C]``, given that it is one of them."""
        p: Floats = torch.from_numpy(scores).double().softmax(1).float().numpy()
        return p

    def sets(self, scores: Floats, coverage: float) -> npt.NDArray[np.bool_]:
        """Return which labels cannot be ruled out ``[Q, C]``; see :meth:`FittedTask.sets`."""
        inside: npt.NDArray[np.bool_] = self._task.sets_of(
            torch.from_numpy(scores), coverage=coverage
        ).numpy()
        return inside

    def known_score(self, z: Floats) -> Floats:
        """Return how much each input looks like one of the classes ``[Q]``: higher = more."""
        score: Floats = -self._task.novelty(torch.from_numpy(z)).float().numpy()
        return score

    def known(self, z: Floats, false_rejects: float) -> npt.NDArray[np.bool_]:
        """Return which inputs are near enough to belong to a class ``[Q]``."""
        near: npt.NDArray[np.bool_] = self._task.accepts(
            torch.from_numpy(z), accept=1 - false_rejects
        ).numpy()
        return near

    @torch.no_grad()
    def _queries(self, z: Floats) -> Tensor:
        x = self._prior.transform(torch.from_numpy(z))
        return F.normalize(x - self._task.state["centre"][0], dim=1)

    def distances(self, z: Floats) -> Floats:
        """Return the distances to the supports ``[Q, N]``, between unit vectors."""
        d: Floats = torch.cdist(self._queries(z), F.normalize(self._seen, dim=1)).numpy()
        return d

    def explain(self, z: Floats, known: npt.NDArray[np.bool_], n: int) -> list[Explanation]:
        """Return why each query is answered so.

        Args:
            z: embeddings ``[Q, D]``.
            known: of each, whether it is near enough to belong to a class ``[Q]``.
            n: supports to name.
        """
        classes, scores, distances = self._support.classes, self.scores(z), self.distances(z)
        probabilities = self.probabilities(scores)
        answers = []
        for q in range(len(z)):
            order = np.argsort(-scores[q], kind="stable")
            best, second = order[0], order[1] if len(order) > 1 else None
            near = np.argsort(distances[q], kind="stable")[:n]
            answers.append(
                Explanation(
                    classes[best],
                    float(probabilities[q, best]),
                    None if second is None else classes[second],
                    float("inf") if second is None else float(scores[q, best] - scores[q, second]),
                    bool(known[q]),
                    tuple(self._neighbour(int(row), float(distances[q, row])) for row in near),
                )
            )
        return answers

    def _neighbour(self, row: int, distance: float) -> Neighbour:
        s = self._support
        return Neighbour(row, s.classes[s.y[row]], distance, s.items[row].source)

    def estimate(self) -> Estimate:
        """Return the accuracy to expect, with a 90 % interval over tasks."""
        if self._support.n_way < 2:
            return Estimate(1.0, 1.0, 1.0, 0.9, "there is one class only")
        return self._task.expected_accuracy()

    def label_evidence(self) -> tuple[Floats, Ints]:
        """Return the log odds of the best other class against each support's label ``[N]``, and
        that class; minus infinity where an example is alone in its class."""
        y = self._support.y
        if self._support.n_way < 2:
            return np.full(len(y), -np.inf, dtype=np.float32), y
        order, score, best = self._task.suspects()
        evidence = np.full(len(y), -np.inf, dtype=np.float32)
        evidence[order.numpy()] = score.float().numpy()
        suggestion = np.empty_like(y)
        suggestion[order.numpy()] = best.numpy()
        return evidence, suggestion

    def label_next(self, z: Floats, n: int) -> Ints:
        """Return the rows of ``z`` to label first ``[<= n]``: uncertain, and unlike each other."""
        p = np.sort(self.probabilities(self.scores(z)), axis=1)
        margin = p[:, -1] - (p[:, -2] if self._support.n_way > 1 else 0)
        x = self._queries(z)
        # nearer than half the usual distance between a query and its nearest support = the same
        near = 0.5 * float(np.median(self.distances(z).min(1)))
        chosen: list[int] = []
        for row in np.argsort(margin, kind="stable").tolist():
            if len(chosen) == n:
                break
            if not chosen or float(torch.cdist(x[row][None], x[chosen]).min()) > near:
                chosen.append(row)
        return np.array(chosen, dtype=np.int64)

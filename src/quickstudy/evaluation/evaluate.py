"""Evaluation: a learner adapts to each episode, answers its queries, and gets a score for it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import Episode, EpisodeSpec, TaskError
from quickstudy.evaluation.report import Protocol, Report
from quickstudy.evaluation.statistics import CalibrationCounts, Interval, class_bootstrap
from quickstudy.learners.base import EmbeddingLearner, Learner, query_logits
from quickstudy.tasks import PoolSource, TaskSource
from quickstudy.tasks.source import as_input

__all__ = ["embed_pool", "evaluate"]

_FLOATS_AT_ONCE = 40_000_000  # inputs of one batch of episodes, at most: about 160 MB
_EXAMPLES_AT_ONCE = 1024  # that are embedded together
_TASKS_AT_ONCE = 256  # at most, so that states and logits stay in the processor's cache


@torch.no_grad()
def evaluate(
    learner: Learner,
    source: TaskSource,
    spec: EpisodeSpec,
    *,
    episodes: int = 600,
    seed: int = 0,
    name: str | None = None,
    device: torch.device | str | None = None,
    cache_embeddings: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Score a learner on the episodes ``(seed, 0 ... episodes-1)`` of a source.

    The learner is in evaluation mode meanwhile. If it is an encoder with a head and the source is
    a pool, every example is embedded once and the episodes are scored on the stored embeddings; the
    scores are the same.

    Args:
        learner: the learner to score.
        source: where episodes come from.
        spec: way, shot, queries.
        episodes: number of episodes, at least 1.
        seed: names the list of episodes.
        name: of the learner in the report; its class name if not given.
        device: where to compute; the learner's if not given.
        cache_embeddings: embed each example once where possible.
        progress: called with the number of episodes after each batch.

    Returns:
        The score of every episode, with the protocol.

    Raises:
        TaskError: if the source has too few classes or examples for such episodes, or a prediction
            is not finite.
    """
    if episodes < 1:
        raise TaskError(f"episodes must be at least 1; got {episodes}.")
    start = time.perf_counter()
    where = torch.device(device) if device is not None else _device_of(learner)
    was_training = learner.training
    learner.eval().to(where)
    tally = _Tally()
    try:
        scored: tuple[Learner, TaskSource] = (learner, source)
        if cache_embeddings:
            scored = _embedded(learner, source, spec, episodes, seed)
        for batch in _batches(scored[1], spec, episodes, seed):
            tally.add(scored[0], batch.to(where))
            if progress is not None:
                progress(batch.n_tasks)
    finally:
        learner.train(was_training)
    return Report(
        learner=name or type(learner).__name__,
        protocol=Protocol(
            data=source.name,
            split=source.split,
            n_way=spec.n_way,
            k_shot=spec.k_shot,
            n_query=spec.n_query,
            episodes=episodes,
            seed=seed,
            transductive=learner.transductive,
            metric=tally.metric,
            episodes_sha256=tally.digest.hexdigest(),
        ),
        scores=np.concatenate(tally.scores),
        class_interval=tally.class_interval(),
        calibration_error=tally.calibration.error() if tally.metric == "accuracy" else None,
        seconds=time.perf_counter() - start,
    )


def _embedded(
    learner: Learner, source: TaskSource, spec: EpisodeSpec, episodes: int, seed: int
) -> tuple[Learner, TaskSource]:
    """Return the head and a source of embeddings, or learner and source if that is not possible.

    It is possible where an example has the same embedding in every task.
    """
    if (
        not isinstance(source, PoolSource)
        or not isinstance(learner, EmbeddingLearner)
        or learner.encoder.episodic
    ):
        return learner, source
    index = source.index(spec, range(episodes), seed=seed)
    rows = np.unique(np.concatenate([index.support.ravel(), index.query.ravel()]))
    return learner.head, embed_pool(learner, source, rows=rows[rows >= 0])


@torch.no_grad()
def embed_pool(
    learner: EmbeddingLearner,
    source: PoolSource,
    *,
    rows: npt.NDArray[np.int64] | None = None,
) -> PoolSource:
    """Return the source with embeddings in place of inputs, made in evaluation mode.

    Args:
        learner: its encoder is used, on its device.
        source: a source over a pool of ``M`` examples ``[M, ...]``.
        rows: the rows to embed, ascending; the embeddings of others are zeros. ``None`` = all.

    Returns:
        A source over a pool of embeddings ``[M, D]`` on the learner's device.

    Raises:
        TaskError: if an embedding is not finite.
    """
    was_training = learner.training
    learner.eval()
    where = _device_of(learner)
    x = source.pool.x
    at = torch.arange(len(x)) if rows is None else torch.from_numpy(rows)
    parts = []
    for piece in at.split(_EXAMPLES_AT_ONCE):
        z, _ = learner.encoder.encode(
            as_input(x[piece]).to(where)[None]
        )  # [1, B, ...] -> [1, B, D]
        parts.append(z[0])
    learner.train(was_training)
    z = torch.cat(parts)
    if not bool(torch.isfinite(z).all()):
        raise TaskError(
            f"{type(learner).__name__} gave NaN or infinite embeddings: its training has diverged."
        )
    if len(at) < len(x):
        z = z.new_zeros(len(x), z.shape[1]).index_copy(0, at.to(where), z)
    return source.with_pool(source.pool.with_x(z))


def _device_of(learner: Learner) -> torch.device:
    parameter = next(learner.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def _batches(source: TaskSource, spec: EpisodeSpec, episodes: int, seed: int) -> Iterator[Episode]:
    """Yield all episodes in batches that fit in memory."""
    first = source.episodes(spec, [0], seed=seed)
    size = first.support.x[0].numel() + first.query.x[0].numel()
    step = max(1, min(_TASKS_AT_ONCE, _FLOATS_AT_ONCE // max(size, 1)))
    for begin in range(0, episodes, step):
        yield source.episodes(spec, range(begin, min(begin + step, episodes)), seed=seed)


@dataclass(slots=True)
class _Tally:
    """Everything that a report is made of, collected batch by batch.

    ``cells`` holds, for each batch, class numbers ``[T, C]`` (-1 = no query) and accuracies.
    """

    scores: list[npt.NDArray[np.float64]] = field(default_factory=list)
    cells: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = field(default_factory=list)
    calibration: CalibrationCounts = field(default_factory=CalibrationCounts)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    metric: str = "accuracy"

    def add(self, learner: Learner, episode: Episode) -> None:
        """Score a batch of episodes."""
        self._hash(episode)
        output = query_logits(learner, episode)
        if bool(torch.isnan(output).any()):
            raise TaskError(
                f"{type(learner).__name__} predicted NaN. Check the inputs for NaN, or the "
                f"training for divergence."
            )
        y, mask = episode.query.y, episode.query.mask
        count = mask.sum(1).clamp(min=1)
        if episode.regression:
            self.metric = "mse"
            score = ((output[..., 0] - y).square() * mask).sum(1) / count
            self.scores.append(score.double().cpu().numpy())
            return
        # softmax of the best class = exp(best - logsumexp): the other classes are not needed
        best, answer = output.max(2)
        confidence = (best - output.logsumexp(2)).exp()
        right = (answer == y) & mask
        self.scores.append((right.sum(1) / count).double().cpu().numpy())
        self.calibration.add(
            confidence[mask].clamp(0, 1).double().cpu().numpy(), right[mask].cpu().numpy()
        )
        if "classes" in episode.info:
            self._add_cells(episode, right)

    def _add_cells(self, episode: Episode, right: Tensor) -> None:
        """Keep the accuracy of each class in each episode."""
        y, mask = episode.query.y, episode.query.mask
        zeros = torch.zeros(y.shape[0], episode.n_way, device=y.device)
        n_right = zeros.scatter_add(1, y, right.float())  # [T, C]
        n_queries = zeros.scatter_add(1, y, mask.float())  # [T, C]
        classes = torch.where(n_queries.cpu() > 0, episode.info["classes"], -1)
        accuracy = n_right / n_queries.clamp(min=1)
        self.cells.append((classes.numpy(), accuracy.double().cpu().numpy()))

    def class_interval(self) -> Interval | None:
        """Return the bootstrap interval over classes; ``None`` if episodes do not name them."""
        if not self.cells:
            return None
        return class_bootstrap(
            np.concatenate([classes for classes, _ in self.cells]),
            np.concatenate([scores for _, scores in self.cells]),
        )

    def _hash(self, episode: Episode) -> None:
        """Hash which examples and labels were used; without a pool, the examples themselves.

        Episodes are hashed one after the other and without padding, so that the hash does not
        depend on how they were batched.
        """
        sides = [
            (episode.support, episode.info.get("support_index", episode.support.x)),
            (episode.query, episode.info.get("query_index", episode.query.x)),
        ]
        rows = [
            (names.cpu().numpy(), side.y.cpu().numpy(), side.mask.cpu().numpy())
            for side, names in sides
        ]
        for t in range(episode.n_tasks):
            for names, y, mask in rows:
                self.digest.update(names[t][mask[t]].tobytes())
                self.digest.update(y[t][mask[t]].tobytes())

"""Evaluation: a learner adapts to each episode, answers its queries, and gets a score for it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from quickstudy.core import ConfigError, Episode, EpisodeSpec, TaskError, TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.devices import choose_device
from quickstudy.evaluation.classes import class_interval
from quickstudy.evaluation.likelihood import Likelihood, said_of_queries, scores_of
from quickstudy.evaluation.metrics import ACCURACY, MSE, Metric
from quickstudy.evaluation.report import Protocol, Report
from quickstudy.evaluation.statistics import CalibrationCounts, Interval
from quickstudy.learners.base import EmbeddingLearner, Learner, query_logits
from quickstudy.tasks import PoolSource, TaskSource
from quickstudy.tasks.source import as_input

__all__ = ["embed_pool", "evaluate"]

_FLOATS_AT_ONCE = 40_000_000  # inputs of one batch of episodes, at most: about 160 MB
_EXAMPLES_AT_ONCE = 1024  # that are embedded together
_TASKS_AT_ONCE = 256  # at most, so that states and logits stay in the processor's cache


@checked
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
    likelihood: bool = True,
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
        device: where to compute; the learner's if not given. The learner is moved back after.
        cache_embeddings: embed each example once where possible.
        likelihood: in regression, also score how likely the targets are under what the learner
            says, see :mod:`quickstudy.evaluation.likelihood`. A learner that gives a mean only
            adapts up to ten times more for it.
        progress: called with the number of episodes after each batch.

    Returns:
        The score of every episode, with the protocol.

    Raises:
        ConfigError: if there is no such device.
        TaskError: if the source has too few classes or examples for such episodes, or a prediction
            is not finite or not ``[T, Q, C]``.
    """
    if episodes < 1:
        raise TaskError(f"episodes must be at least 1; got {episodes}.")
    episodes, seed = int(episodes), int(seed)  # NumPy's whole numbers are no JSON
    start = time.perf_counter()
    own = _device_of(learner)
    where = own if device is None else choose_device(str(device))
    was_training = learner.training
    learner.eval().to(where)
    tally = _Tally(wants_likelihood=likelihood)
    try:
        scored: tuple[Learner, TaskSource] = (learner, source)
        if cache_embeddings:
            scored = _embedded(learner, source, spec, episodes, seed)
        for batch in _batches(scored[1], spec, episodes, seed):
            tally.add(scored[0], batch.to(where))
            if progress is not None:
                progress(batch.n_tasks)
    finally:
        learner.train(was_training).to(own)
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
            metric=tally.metric.name,
            episodes_sha256=tally.digest.hexdigest(),
        ),
        scores=np.concatenate(tally.scores),
        class_interval=tally.class_interval(),
        calibration_error=tally.calibration.error() if tally.metric is ACCURACY else None,
        seconds=time.perf_counter() - start,
        likelihood=tally.likelihood(),
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
        or not learner.embeds_once
    ):
        return learner, source
    index = source.index(spec, range(episodes), seed=seed)
    rows = np.unique(np.concatenate([index.support.ravel(), index.query.ravel()]))
    return learner.head, embed_pool(learner, source, rows=rows[rows >= 0])


@checked
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
        ConfigError: if there is no such row.
        TaskError: if an embedding is not finite.
    """
    if rows is not None and rows.size and not 0 <= rows.min() <= rows.max() < len(source.pool.x):
        raise ConfigError(
            f"rows must lie in [0, {len(source.pool.x)}); got {rows.min()} to {rows.max()}."
        )
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

    ``classes`` and ``sources`` hold, for each batch, what its tasks are made of: class numbers
    ``[T, C]`` (-1 = absent), and the number of the source that these belong to ``[T]``.
    """

    scores: list[npt.NDArray[np.float64]] = field(default_factory=list)
    classes: list[npt.NDArray[np.int64]] = field(default_factory=list)
    sources: list[npt.NDArray[np.int64]] = field(default_factory=list)
    calibration: CalibrationCounts = field(default_factory=CalibrationCounts)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    metric: Metric = ACCURACY
    wants_likelihood: bool = True
    nll: list[npt.NDArray[np.float64]] = field(default_factory=list)
    coverage: list[npt.NDArray[np.float64]] = field(default_factory=list)
    estimated: bool = False

    def add(self, learner: Learner, episode: Episode) -> None:
        """Score a batch of episodes."""
        self._hash(episode)
        state = learner.adapt(episode.support, n_way=episode.n_way)
        output = query_logits(learner, episode, state)
        if bool(torch.isnan(output).any()):
            raise TaskError(
                f"{type(learner).__name__} predicted NaN. Check the inputs for NaN, or the "
                f"training for divergence."
            )
        y, mask = episode.query.y, episode.query.mask
        count = mask.sum(1).clamp(min=1)
        if episode.regression:
            self.metric = MSE
            # padding may hold anything, and zero times NaN is NaN
            score = (output[..., 0] - y).masked_fill(~mask, 0).square().sum(1) / count
            self.scores.append(score.double().cpu().numpy())
            if self.wants_likelihood:
                self._add_likelihood(learner, episode, state, output[..., 0])
            return
        # softmax of the best class = exp(best - logsumexp): the other classes are not needed
        best, answer = output.max(2)
        confidence = (best - output.logsumexp(2)).exp()
        if bool(torch.isnan(confidence[mask]).any()):
            raise TaskError(
                f"{type(learner).__name__} gave a query an infinite logit, or none that is finite, "
                "so it has no probabilities. Minus infinity is for classes without support."
            )
        right = (answer == y) & mask
        self.scores.append((right.sum(1) / count).double().cpu().numpy())
        self.calibration.add(
            confidence[mask].clamp(0, 1).double().cpu().numpy(), right[mask].cpu().numpy()
        )
        if "classes" in episode.info:
            self.classes.append(episode.info["classes"].numpy())
            one = torch.zeros(episode.n_tasks, dtype=torch.int64)
            self.sources.append(episode.info.get("pool", one).numpy())

    def _add_likelihood(
        self, learner: Learner, episode: Episode, state: TaskState, mean: torch.Tensor
    ) -> None:
        """Score what the learner says of the targets; no more, once it says nothing."""
        found = said_of_queries(learner, state, episode.support, episode.query, mean)
        if found is None:
            self.wants_likelihood = False
            return
        said, self.estimated = found
        nll, coverage = scores_of(said, episode.query)
        self.nll.append(nll)
        self.coverage.append(coverage)

    def likelihood(self) -> Likelihood | None:
        """Return the likelihood of all episodes; ``None`` unless it is known of every one."""
        if not self.nll or not self.wants_likelihood:
            return None
        return Likelihood(np.concatenate(self.nll), np.concatenate(self.coverage), self.estimated)

    def class_interval(self) -> Interval | None:
        """Return the interval over new classes; ``None`` if episodes do not name them all."""
        if not self.classes or len(self.classes) < len(self.scores):
            return None
        width = max(batch.shape[1] for batch in self.classes)
        padded = [
            np.pad(batch, ((0, 0), (0, width - batch.shape[1])), constant_values=-1)
            for batch in self.classes
        ]
        return class_interval(
            np.concatenate(self.scores),
            np.concatenate(padded),
            sources=np.concatenate(self.sources),
            most=1.0,
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

"""What the checks of a learner work with: a copy of it, episodes, and predictions compared."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core import Episode, EpisodeSpec, Examples
from quickstudy.learners.base import Learner, predict_queries
from quickstudy.tasks import TaskSource

__all__ = ["Bench", "Gap", "copy_of", "predict", "task_scores", "with_query"]

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}  # relative, of predictions


@dataclass(frozen=True, slots=True)
class Bench:
    """What the checks work with: a copy of the learner, episodes, and its predictions of them.

    Args:
        learner: the copy, on the CPU and in evaluation mode.
        episode: ``T`` tasks in the dtype of the learner.
        base: its predictions ``[T, Q, C]``, which others are compared with.
        tolerance: relative difference up to which predictions count as equal.
    """

    learner: Learner
    episode: Episode
    base: Tensor
    tolerance: float

    @classmethod
    def set_up(
        cls, learner: Learner, source: TaskSource, spec: EpisodeSpec, tasks: int, seed: int
    ) -> Bench:
        """Return the bench of a learner: in float64 if it can, so that rounding stays small.

        Args:
            learner: it stays as it is.
            source: episodes that fit it.
            spec: way, shot and queries.
            tasks: number of episodes.
            seed: names the episodes.
        """
        own = copy_of(learner)
        episode = source.episodes(spec, range(tasks), seed=seed)
        try:
            double, cast = copy_of(learner).double(), _cast(episode, torch.float64)
            return cls(double, cast, predict(double, cast), _TOLERANCE[torch.float64])
        except (RuntimeError, TypeError, ValueError):
            # a learner that fixes its own dtype cannot compute in float64
            return cls(own, episode, predict(own, episode), _TOLERANCE[torch.float32])

    def compare(self, other: Tensor, base: Tensor | None = None) -> Gap:
        """Compare predictions ``[T, Q, C]`` with ``base``, the learner's own by default."""
        base = self.base if base is None else base
        both = base.isfinite() & other.isfinite()
        # absolute near 0, relative for large logits
        relative = (other - base).abs() / (1 + base.abs())
        gap = float(relative[both].max()) if bool(both.any()) else 0.0
        apart = bool((base.isfinite() != other.isfinite()).any()) or gap > self.tolerance
        answers = (other.argmax(-1) != base.argmax(-1))[self.episode.query.mask]
        return Gap(gap, float(answers.double().mean()), beyond_tolerance=apart)

    def score(self, output: Tensor) -> float:
        """Return the mean accuracy over tasks, in regression the mean squared error."""
        return float(task_scores(output, self.episode).mean())


@dataclass(frozen=True, slots=True)
class Gap:
    """How much two predictions of the same queries differ.

    Args:
        relative: the largest relative difference of a logit or value.
        other_answers: share of the queries with another label.
        beyond_tolerance: whether the difference is more than rounding.
    """

    relative: float
    other_answers: float
    beyond_tolerance: bool

    def facts(self) -> dict[str, float]:
        """Return both differences as evidence."""
        return {"largest_relative_gap": self.relative, "answers_changed": self.other_answers}

    def __str__(self) -> str:
        return (
            f"predictions move by up to {self.relative:.2g} (relative), "
            f"{100 * self.other_answers:.1f} % of the answers change"
        )


def copy_of(learner: Learner) -> Learner:
    """Return a copy on the CPU and in evaluation mode."""
    return copy.deepcopy(learner).cpu().eval()


def _cast(episode: Episode, dtype: torch.dtype) -> Episode:
    def cast(side: Examples) -> Examples:
        y = side.y.to(dtype) if side.y.is_floating_point() else side.y
        return Examples(side.x.to(dtype), y, side.mask)

    return Episode(cast(episode.support), cast(episode.query), episode.n_way)


@torch.no_grad()
def predict(learner: Learner, episode: Episode, *, seed: int = 0) -> Tensor:
    """Return predictions ``[T, Q, C]``, made with torch's global generator seeded by ``seed``.

    The generator is put back afterwards. So a learner that draws random numbers fails
    ``repeatable``, but not every other check as well.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = learner.adapt(episode.support, n_way=episode.n_way)
        return predict_queries(learner, state, episode.query)


def task_scores(output: Tensor, episode: Episode) -> Tensor:
    """Return the accuracy or the mean squared error of each task ``[T]``."""
    y, mask = episode.query.y, episode.query.mask
    right = (
        (output[..., 0] - y).square() if episode.regression else (output.argmax(2) == y).double()
    )
    return (right * mask).sum(1) / mask.sum(1).clamp(min=1)


def with_query(episode: Episode, x: Tensor, y: Tensor, mask: Tensor) -> Episode:
    """Return the episode with other queries, and the same support."""
    return Episode(episode.support, Examples(x, y, mask), episode.n_way)

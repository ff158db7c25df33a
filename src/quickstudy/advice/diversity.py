"""Is one shared embedding enough for these tasks? Measured on classes that were held out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.core import ConfigError, EpisodeSpec, TaskError, generator
from quickstudy.evaluation.evaluate import evaluate
from quickstudy.evaluation.statistics import Mean, mean_interval
from quickstudy.learners.base import Learner
from quickstudy.tasks import Pool, PoolSource
from quickstudy.tasks.source import as_input

__all__ = ["REMEDIES", "DiversityReport", "measure_diversity"]

SHARED = "one shared embedding"
REMEDIES = (
    "an embedding for each domain",
    "an embedding chosen by the support",
    "gradient adaptation",
)
_SHRINKAGE = 0.1
_LEAST = 0.01  # a point: what is not worth a remedy
_ROOM = 0.03  # what an interval may leave open and still say that sharing costs nothing
_COMPONENTS = 32  # in which domains are told apart


@dataclass(frozen=True, slots=True)
class DiversityReport:
    """What sharing one embedding costs, and what helps.

    Args:
        domains: names.
        episodes: of each domain.
        accuracy: for each domain, for each way, its mean over the episodes.
        gains: for each domain, what each remedy gains over sharing, paired.
        gain: the same, mean over the domains.
        recognised: share of tasks whose domain is told by the support alone, for each domain.
    """

    domains: tuple[str, ...]
    episodes: int
    accuracy: Mapping[str, Mapping[str, Mean]]
    gains: Mapping[str, Mapping[str, Mean]]
    gain: Mapping[str, Mean]
    recognised: Mapping[str, float]

    def _own(self, name: str) -> tuple[float, float]:
        """Return what an embedding of its own gains for a domain, and the half-width of its
        interval (95 %, Bonferroni over the domains)."""
        z = float(torch.special.ndtri(torch.tensor(1 - 0.025 / len(self.domains))))
        gain = self.gains[name][REMEDIES[0]]
        return gain.mean, z / 1.96 * gain.ci95

    @property
    def costly(self) -> tuple[str, ...]:
        """Domains that lose more than a point by sharing, beyond chance."""
        own = {name: self._own(name) for name in self.domains}
        return tuple(name for name, (gain, half) in own.items() if gain > _LEAST and gain > half)

    @property
    def helped(self) -> tuple[str, ...]:
        """Domains that lose more than a point with an embedding of their own, beyond chance."""
        own = {name: self._own(name) for name in self.domains}
        return tuple(name for name, (gain, half) in own.items() if -gain > _LEAST and -gain > half)

    @property
    def untold(self) -> tuple[str, ...]:
        """Domains of which too few episodes were measured to say: the interval leaves room for a
        loss of more than three points."""
        own = {name: self._own(name) for name in self.domains if name not in self.costly}
        return tuple(name for name, (gain, half) in own.items() if not gain + half <= _ROOM)

    @property
    def too_diverse(self) -> bool:
        """Whether some domain pays for sharing."""
        return bool(self.costly)

    @property
    def best_remedy(self) -> str:
        """The remedy that gains most on average."""
        return max(self.gain, key=lambda name: self.gain[name].mean)

    def __str__(self) -> str:
        lines = []
        for name in self.domains:
            row = self.accuracy[name]
            parts = [f"{way} {mean}" for way, mean in row.items()]
            lines.append(f"{name}: " + "; ".join(parts) + f" (%, {self.episodes} episodes)")
            told = 100 * self.recognised[name]
            gains = [f"{way} {_signed(mean)}" for way, mean in self.gains[name].items()]
            lines.append("  over sharing, points: " + "; ".join(gains))
            lines.append(f"  its domain is told by the support in {told:.0f} % of tasks")
        if self.untold and not self.too_diverse:
            rooms = "; ".join(f"{name} {100 * sum(self._own(name)):.1f}" for name in self.untold)
            lines.append(
                f"cannot be told with {self.episodes} episodes: an embedding of its own may gain, "
                f"in points, up to {rooms}. Measure more with --episodes"
            )
        elif not self.too_diverse:
            own = _signed(self.gain[REMEDIES[0]])
            lines.append(
                f"one shared embedding is enough: one for each domain gains {own} points on average"
            )
        else:
            cost = "; ".join(
                f"{_signed(self.gains[name][REMEDIES[0]])} points on {name}" for name in self.costly
            )
            lines.append(
                f"too diverse for one shared embedding: its own one gains {cost}. What helps most: "
                f"{self.best_remedy}, {_signed(self.gain[self.best_remedy])} points on average"
            )
            if self.helped:
                lost = "; ".join(
                    f"{name} {_signed(self.gains[name][REMEDIES[0]])}" for name in self.helped
                )
                lines.append(f"others gain from sharing, and would lose their own way: {lost}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: fractions."""

        def plain(rows: Mapping[str, Mean]) -> dict[str, Any]:
            return {way: mean.to_dict() for way, mean in rows.items()}

        return {
            "domains": list(self.domains),
            "episodes": self.episodes,
            "too_diverse": self.too_diverse,
            "untold": list(self.untold),
            "helped": list(self.helped),
            "costly": list(self.costly),
            "best_remedy": self.best_remedy,
            "accuracy": {name: plain(rows) for name, rows in self.accuracy.items()},
            "gains": {name: plain(rows) for name, rows in self.gains.items()},
            "gain": plain(self.gain),
            "recognised": dict(self.recognised),
        }


def measure_diversity(
    sources: Mapping[str, PoolSource],
    spec: EpisodeSpec,
    *,
    head: Learner,
    adapted: Learner,
    rank: int = 32,
    episodes: int = 200,
    seed: int = 0,
) -> DiversityReport:
    """Compare one embedding for all domains with one for each, on the same held-out tasks.

    The classes of a domain are halved. On one half linear embeddings are learned in closed form
    (Fisher's discriminant directions, Rao 1948: between-class over within-class covariance, the
    latter shrunk): one on all domains together, every domain weighing the same, and one on each.
    Tasks of the other half are then scored with the shared one, with the domain's own, with that of
    the domain under which the support is likeliest (a Gaussian for each domain; nothing but the
    support is looked at), and with the shared one and a head that adapts by more than means.

    Args:
        sources: pools of vectors or images of one shape, by domain; at least two.
        spec: way, shot and queries.
        head: learns a task from embeddings, the same for all.
        adapted: the head of gradient adaptation.
        rank: directions that an embedding keeps: what has to be shared.
        episodes: of each domain.
        seed: of halves and episodes.

    Raises:
        ConfigError: if there are fewer than two domains, or their examples differ in shape.
        TaskError: if a half has too few classes.
    """
    if len(sources) < 2:
        raise ConfigError(f"diversity is between domains: name at least two; got {len(sources)}.")
    pools = {name: _vectors(source.pool) for name, source in sources.items()}
    widths = {name: pool.x.shape[1] for name, pool in pools.items()}
    if len(set(widths.values())) > 1:
        raise ConfigError(f"the domains' examples differ in size: {widths}. Fit them to one.")
    halves = {name: _halves(pool, seed, spec) for name, pool in pools.items()}
    learned = {name: half[0] for name, half in halves.items()}
    shared = _discriminant(list(learned.values()), rank)
    own = {name: _discriminant([pool], rank) for name, pool in learned.items()}
    likely = _Likelihood(learned)
    accuracy: dict[str, dict[str, Mean]] = {}
    gaps: dict[str, dict[str, Mean]] = {}
    recognised: dict[str, float] = {}
    for name, (_, held) in halves.items():
        source = sources[name].with_pool(held)

        def scores(
            learner: Learner, embedding: Tensor, source: PoolSource = source, held: Pool = held
        ) -> np.ndarray[Any, np.dtype[np.float64]]:
            seen = source.with_pool(held.with_x(held.x @ embedding))
            return evaluate(learner, seen, spec, episodes=episodes, seed=seed).scores

        each = {domain: scores(head, own[domain]) for domain in own}
        index = source.index(spec, range(episodes), seed=seed)
        chosen = [likely.domain(held.x[torch.from_numpy(r[r >= 0])]) for r in index.support]
        ways = {
            SHARED: scores(head, shared),
            REMEDIES[0]: each[name],
            REMEDIES[1]: np.array([each[d][t] for t, d in enumerate(chosen)]),
            REMEDIES[2]: scores(adapted, shared),
        }
        accuracy[name] = {way: Mean(float(s.mean()), mean_interval(s)) for way, s in ways.items()}
        gaps[name] = {
            way: Mean(
                float((ways[way] - ways[SHARED]).mean()), mean_interval(ways[way] - ways[SHARED])
            )
            for way in REMEDIES
        }
        recognised[name] = float(np.mean([d == name for d in chosen]))
    overall = {way: _average([gaps[name][way] for name in gaps]) for way in REMEDIES}
    return DiversityReport(tuple(sources), episodes, accuracy, gaps, overall, recognised)


def _signed(mean: Mean) -> str:
    return f"{100 * mean.mean:+.1f} ± {100 * mean.ci95:.1f}"


def _average(means: Sequence[Mean]) -> Mean:
    half = math.sqrt(sum(m.ci95**2 for m in means)) / len(means)
    return Mean(float(np.mean([m.mean for m in means])), half)


def _vectors(pool: Pool) -> Pool:
    return pool.with_x(as_input(pool.x).flatten(1))


def _halves(pool: Pool, seed: int, spec: EpisodeSpec) -> tuple[Pool, Pool]:
    order = torch.randperm(pool.n_classes, generator=generator(seed, 0)).tolist()
    middle = pool.n_classes // 2
    if middle < max(2, spec.max_way):
        raise TaskError(
            f"{pool.name} has {pool.n_classes} classes; half of them must give tasks of "
            f"{spec.max_way}. Lower the number of classes per task (--n-way), or leave it out."
        )
    return pool.select(order[:middle]), pool.select(order[middle:])


def _covariances(pool: Pool) -> tuple[Tensor, Tensor]:
    """Return the covariance within and between the classes of a pool ``[D, D]``."""
    x, y = pool.x.double(), pool.y
    counts = torch.bincount(y).double()
    means = torch.zeros(pool.n_classes, x.shape[1], dtype=x.dtype).index_add_(0, y, x)
    means = means / counts[:, None]
    rest = x - means[y]
    between = means - means.mean(0)
    return rest.T @ rest / len(x), between.T @ between / pool.n_classes


def _discriminant(pools: Sequence[Pool], rank: int) -> Tensor:
    """Return the directions ``[D, R]`` along which classes differ most, in units of how much
    examples of a class do."""
    parts = [_covariances(pool) for pool in pools]
    within = torch.stack([w / w.trace().clamp(min=1e-12) for w, _ in parts]).mean(0)
    between = torch.stack([b / w.trace().clamp(min=1e-12) for w, b in parts]).mean(0)
    dim = len(within)
    within = (1 - _SHRINKAGE) * within + _SHRINKAGE / dim * torch.eye(dim, dtype=within.dtype)
    values, vectors = torch.linalg.eigh(within)
    white = vectors * values.rsqrt()  # [D, D]
    _, axes = torch.linalg.eigh(white.T @ between @ white)
    directions: Tensor = white @ axes[:, -min(rank, dim) :]
    return directions.float()


class _Likelihood:
    """Which domain examples are likeliest to come from, by a Gaussian for each in the leading
    principal components of all."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        every = torch.cat([pool.x.double() for pool in pools.values()])
        self._mean = every.mean(0)
        keep = min(_COMPONENTS, every.shape[1])
        centred = every - self._mean
        _, axes = torch.linalg.eigh(centred.T @ centred)
        self._axes = axes[:, -keep:]
        self._of = {}
        for name, pool in pools.items():
            z = self._project(pool.x)
            spread = torch.cov(z.T).view(keep, keep)
            unit = spread.diagonal().mean().clamp(min=1e-12)
            spread = 0.9 * spread + 0.1 * unit * torch.eye(keep, dtype=z.dtype)
            self._of[name] = torch.distributions.MultivariateNormal(z.mean(0), spread)

    def _project(self, x: Tensor) -> Tensor:
        z: Tensor = (x.double() - self._mean) @ self._axes
        return z

    def domain(self, support: Tensor) -> str:
        """Return the name for a support set ``[S, D]``."""
        z = self._project(support)
        found = {name: float(gauss.log_prob(z).sum()) for name, gauss in self._of.items()}
        return max(found, key=lambda name: found[name])

"""Is one shared embedding enough for these tasks? Measured on classes that were held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.comparing.tasklists import task_lists
from quickstudy.core import ConfigError, EpisodeSpec, TaskError, generator
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_seed
from quickstudy.core.words import quiet
from quickstudy.evaluation import Mean, embed_pool, evaluate
from quickstudy.learners.base import EmbeddingLearner, Learner
from quickstudy.learners.heads import ClassMeanHead, LogisticHead
from quickstudy.recipes import encoder_of
from quickstudy.runs.folder import Run, load_run
from quickstudy.tasks import Pool, PoolSource
from quickstudy.tasks.source import as_input

__all__ = ["REMEDIES", "DiversityReport", "domain_diversity", "measure_diversity"]

SHARED = "one shared embedding"
REMEDIES = (
    "an embedding for each domain",
    "an embedding chosen by the support",
    "gradient adaptation",
)
_SHRINKAGE = 0.1
_LEAST = 0.01  # a point: what is not worth a remedy
_ROOM = 0.03  # what an interval may leave open and still say that sharing costs nothing
_COMPONENTS = 32  # principal components in which the domain of a task is recognised
_QUERIES, _SIZE = 10, 28  # of a class in a task; side of images in pixels, without a run


@dataclass(frozen=True, slots=True)
class DiversityReport:
    """What sharing one embedding costs, and what helps.

    Args:
        domains: names.
        episodes: of each domain.
        accuracy: for each domain, for each way, its mean over the episodes.
        gains: for each domain, what each remedy gains over sharing, paired.
        gain: the same, mean over the domains.
        recognised: for each domain, the share of tasks whose support alone shows their domain.
    """

    domains: tuple[str, ...]
    episodes: int
    accuracy: Mapping[str, Mapping[str, Mean]]
    gains: Mapping[str, Mapping[str, Mean]]
    gain: Mapping[str, Mean]
    recognised: Mapping[str, float]

    def _own(self, name: str) -> Mean:
        """Return what an embedding of its own gains for a domain; the intervals of all domains hold
        together (Bonferroni)."""
        z = float(torch.special.ndtri(torch.tensor(1 - 0.025 / len(self.domains))))
        gain = self.gains[name][REMEDIES[0]]
        return replace(gain, ci95=z / 1.96 * gain.ci95)

    @property
    def costly(self) -> tuple[str, ...]:
        """Domains that lose more than a point by sharing, beyond chance."""
        own = {name: self._own(name) for name in self.domains}
        return tuple(name for name, gain in own.items() if gain.mean > _LEAST and gain.low > 0)

    @property
    def gaining(self) -> tuple[str, ...]:
        """Domains that gain from sharing: with an embedding of their own they lose more than a
        point, beyond chance."""
        own = {name: self._own(name) for name in self.domains}
        return tuple(name for name, gain in own.items() if -gain.mean > _LEAST and gain.high < 0)

    @property
    def undecided(self) -> tuple[str, ...]:
        """Domains of which too few episodes were measured to say: the interval leaves room for a
        loss of more than three points."""
        own = {name: self._own(name) for name in self.domains if name not in self.costly}
        return tuple(name for name, gain in own.items() if not gain.high <= _ROOM)

    @property
    def too_diverse(self) -> bool:
        """Whether some domain pays for sharing."""
        return bool(self.costly)

    @property
    def best_remedy(self) -> str:
        """The remedy that gains most on average."""
        return max(self.gain, key=lambda name: self.gain[name].mean)

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the numbers of each domain and a verdict, in sentences."""
        lines = []
        for name in self.domains:
            parts = [f"{way} {mean.cell()}" for way, mean in self.accuracy[name].items()]
            lines.append(f"{name}: " + "; ".join(parts) + f" (%, {self.episodes} episodes)")
            gains = [f"{way} {_signed(mean)}" for way, mean in self.gains[name].items()]
            lines.append("  over sharing, points: " + "; ".join(gains))
            share = 100 * self.recognised[name]
            lines.append(f"  the support shows the domain in {share:.0f} % of tasks")
        return "\n".join([*lines, *self._verdict()])

    def _verdict(self) -> list[str]:
        """Return whether one embedding is enough; if not, what helps."""
        if self.undecided and not self.too_diverse:
            rooms = "; ".join(f"{name} {100 * self._own(name).high:.1f}" for name in self.undecided)
            return [
                f"undecided after {self.episodes} episodes: an embedding of its own may gain, "
                f"in points, up to {rooms}. Measure more episodes"
            ]
        if not self.too_diverse:
            own = self.gain[REMEDIES[0]].points(digits=1)
            return [f"one shared embedding is enough: one for each domain gains {own} on average"]
        own_of = {name: gains[REMEDIES[0]] for name, gains in self.gains.items()}
        cost = "; ".join(f"{own_of[name].points(digits=1)} on {name}" for name in self.costly)
        best = self.gain[self.best_remedy].points(digits=1)
        lines = [
            f"too diverse for one shared embedding: its own one gains {cost}. What helps most: "
            f"{self.best_remedy}, {best} on average"
        ]
        if self.gaining:
            lost = "; ".join(f"{name} {_signed(own_of[name])}" for name in self.gaining)
            lines.append(f"others gain from sharing, and would lose their own way: {lost}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: fractions."""

        def plain(rows: Mapping[str, Mean]) -> dict[str, Any]:
            return {way: mean.to_dict() for way, mean in rows.items()}

        return {
            "domains": list(self.domains),
            "episodes": self.episodes,
            "too_diverse": self.too_diverse,
            "untold": list(self.undecided),
            "helped": list(self.gaining),
            "costly": list(self.costly),
            "best_remedy": self.best_remedy,
            "accuracy": {name: plain(rows) for name, rows in self.accuracy.items()},
            "gains": {name: plain(rows) for name, rows in self.gains.items()},
            "gain": plain(self.gain),
            "recognised": dict(self.recognised),
        }


@checked
def domain_diversity(
    domains: Sequence[str],
    *,
    run: Run | str | Path | None = None,
    n_way: int = 5,
    k_shot: int = 5,
    rank: int = 32,
    episodes: int = 200,
    seed: int = 0,
    say: Callable[[str], None] = quiet,
) -> DiversityReport:
    """Measure what sharing one embedding costs the tasks of these domains, and what helps.

    See :func:`measure_diversity`; the head is that of class means, and gradient adaptation is that
    of logistic regression.

    Args:
        domains: named data sets or folders of class folders, at least two.
        run: a run or its folder, whose encoder embeds the examples; pixels if not given.
        n_way: classes of a task.
        k_shot: support examples of a class.
        rank: directions that an embedding keeps.
        episodes: of each domain.
        seed: of halves and episodes.
        say: is called with a sentence: which domain is being read, what a reader must know of it.

    Raises:
        ConfigError: if there are fewer than two domains, one is named twice or unknown, or images
            have no embeddings of their own in the run.
        CheckpointError: if the run cannot be read.
        DataError: if a domain cannot be.
        TaskError: if a domain, or half of its classes, is too small.

    Example::

        found = domain_diversity(["omniglot", "quickdraw"], run="runs/x")
        print(found.text())
        found.too_diverse, found.best_remedy
        found.to_dict()  # the document of ``quickstudy diversity --json``
    """
    if len(set(domains)) < len(domains) or len(domains) < 2:
        named = ", ".join(map(repr, domains)) or "none"
        raise ConfigError(f"name at least two domains, each once; got {named}.")
    check_seed(seed)
    spec = EpisodeSpec(n_way, k_shot, _QUERIES)
    size, channels, learner = _SIZE, 1, None
    if run is not None:
        loaded = run if isinstance(run, Run) else load_run(run)
        size, channels = loaded.recipe.encoder.image_size, loaded.recipe.encoder.in_channels
        learner = _embedding_learner(loaded)
    sources: dict[str, PoolSource] = {}
    for name in domains:
        (tasks,), remarks = task_lists([], [name], [spec], episodes=episodes, seed=seed)
        for remark in remarks:
            say(f"note: {remark}")
        say(f"{name}: reading")
        source = tasks.source(size=size, channels=channels)
        assert isinstance(source, PoolSource)  # task_lists refuses tasks that a formula makes
        sources[name] = source if learner is None else embed_pool(learner, source)
    return measure_diversity(
        sources,
        spec,
        head=ClassMeanHead(),
        adapted=LogisticHead(c=10.0),
        rank=rank,
        episodes=episodes,
        seed=seed,
    )


def _embedding_learner(run: Run) -> EmbeddingLearner:
    """Return the encoder of a run with a head, to embed examples with.

    Raises:
        ConfigError: if an embedding depends on the other examples of its task.
    """
    encoder = encoder_of(run.learner)
    if encoder.episodic:
        raise ConfigError(
            f"the encoder of {run.folder} uses the statistics of a task's support: an image alone "
            "has no embedding. Name a run with norm=batch or group."
        )
    return EmbeddingLearner(encoder, ClassMeanHead())


@checked
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
        accuracy[name] = {way: Mean.of(s, over="episodes") for way, s in ways.items()}
        gaps[name] = {way: Mean.of(ways[way] - ways[SHARED], over="episodes") for way in REMEDIES}
        recognised[name] = float(np.mean([d == name for d in chosen]))
    overall = {
        way: Mean.average([gaps[name][way] for name in gaps], over="domains") for way in REMEDIES
    }
    return DiversityReport(tuple(sources), episodes, accuracy, gaps, overall, recognised)


def _signed(mean: Mean) -> str:
    return mean.cell(digits=1, signed=True)


def _vectors(pool: Pool) -> Pool:
    return pool.with_x(as_input(pool.x).flatten(1))


def _halves(pool: Pool, seed: int, spec: EpisodeSpec) -> tuple[Pool, Pool]:
    order = torch.randperm(pool.n_classes, generator=generator(seed, 0)).tolist()
    middle = pool.n_classes // 2
    if middle < max(2, spec.max_way):
        raise TaskError(
            f"{pool.name} has {pool.n_classes} classes; half of them must give tasks of "
            f"{spec.max_way}. Lower the number of classes per task (n_way=), or leave it out."
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

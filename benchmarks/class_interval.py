"""How often do intervals over new classes hold the truth? docs/results/class-interval.json

::

    python benchmarks/class_interval.py                  # simulated and, with QUICKSTUDY_DATA, real
    python benchmarks/class_interval.py --simulations 100 --quick

A population of classes is simulated, or taken from a data set, and its mean score found from many
episodes of many classes. Each repeat then draws some classes, scores episodes of these alone, and
asks whether an interval holds the population's mean: the jackknife over classes of
``quickstudy.evaluation.class_interval``, the bootstrap over classes that reports had before, and
the interval over episodes, which is not meant for it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import ROOT, provenance
from quickstudy.core import EpisodeSpec, QuickstudyError, uniforms
from quickstudy.evaluation import Interval, class_interval, mean_interval
from quickstudy.learners import NearestNeighbour
from quickstudy.learners.base import Learner, query_logits
from quickstudy.tasks import Pool, PoolSource
from quickstudy.tasks.datasets import load_pool

OUT = ROOT / "docs" / "results" / "class-interval.json"
# classes [E, C], -1 = absent, and the accuracy of each in its episode [E, C]
Cells = tuple[np.ndarray, np.ndarray]


def class_bootstrap(classes: np.ndarray, scores: np.ndarray, *, draws: int = 500) -> Interval:
    """Return the 2.5 and 97.5 percentiles of means over resampled classes.

    The interval of earlier versions (Efron and Tibshirani 1993, section 13.3). A class counts by
    its own score alone, so what it does to the other classes of its episodes is missing.
    """
    valid = classes >= 0
    ways = np.broadcast_to(valid.sum(1, keepdims=True), valid.shape)[valid]
    weight, n = ways.max() / ways, int(classes.max()) + 1
    total = np.bincount(classes[valid], weights=weight * scores[valid], minlength=n)
    count = np.bincount(classes[valid], weights=weight, minlength=n)
    total, count = total[count > 0], count[count > 0]
    picks = (uniforms(0, np.arange(draws)[:, None], np.arange(len(count))) * len(count)).astype(int)
    low, high = np.percentile(total[picks].sum(1) / count[picks].sum(1), [2.5, 97.5])
    return Interval(float(low), float(high))


def simulated(
    n: int, ways: int, episodes: int, *, own: float, drag: float, pair: float, seed: int
) -> Cells:
    """Return the accuracies of classes that differ, on 15 queries each.

    Args:
        n: number of classes.
        ways: classes of an episode.
        episodes: number of episodes.
        own: standard deviation over classes of how easy a class is, on the logit scale.
        drag: of how much easier it makes the other classes of its episodes.
        pair: of what two classes do to each other besides.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    ease, help_ = random.normal(0, own, n), random.normal(0, drag, n)
    classes = np.argsort(random.random((episodes, n)), 1)[:, :ways]
    given = help_[classes]
    logit = 0.6 + ease[classes] + (given.sum(1, keepdims=True) - given) / (ways - 1)
    if pair:
        mixed = random.normal(0, pair, (n, n))[classes[:, :, None], classes[:, None, :]]
        logit += (mixed.sum(2) - np.einsum("ecc->ec", mixed)) / math.sqrt(ways - 1)
    logit += random.normal(0, 0.5, logit.shape)  # the support that was drawn
    return classes, random.binomial(15, 1 / (1 + np.exp(-logit))) / 15


@torch.no_grad()
def scored(learner: Learner, pool: Pool, spec: EpisodeSpec, episodes: int, seed: int) -> Cells:
    """Return the accuracy of every class in every episode of a pool."""
    source, classes, cells = PoolSource(pool), [], []
    for begin in range(0, episodes, 100):
        batch = source.episodes(spec, range(begin, min(begin + 100, episodes)), seed=seed)
        right = (query_logits(learner, batch).argmax(2) == batch.query.y).double()
        sums = (
            torch.zeros(right.shape[0], batch.n_way).double().scatter_add_(1, batch.query.y, right)
        )
        classes.append(batch.info["classes"].numpy())
        cells.append(sums.numpy() / spec.n_query)
    return np.concatenate(classes), np.concatenate(cells)


def coverage(make: Callable[[int], Cells], truth: float, repeats: int) -> dict[str, Any]:
    """Return how often each interval holds the truth, and how wide it is."""
    held = {"jackknife": 0, "bootstrap": 0, "episodes": 0}
    width = dict.fromkeys(held, 0.0)
    for seed in range(repeats):
        classes, cells = make(seed)
        scores = cells.mean(1)
        half = mean_interval(scores)
        over_episodes = Interval(scores.mean() - half, scores.mean() + half)
        jackknife = class_interval(scores, classes, most=1.0)
        assert jackknife is not None
        for name, found in (
            ("jackknife", jackknife),
            ("bootstrap", class_bootstrap(classes, cells)),
            ("episodes", over_episodes),
        ):
            held[name] += found.low <= truth <= found.high
            width[name] += (found.high - found.low) / repeats
    return {
        "truth": truth,
        "coverage": {name: times / repeats for name, times in held.items()},
        "width": width,
    }


KINDS = {
    "even": {"own": 0.0, "drag": 0.0, "pair": 0.0},
    "slightly uneven": {"own": 0.1, "drag": 0.1, "pair": 0.0},
    "uneven": {"own": 0.5, "drag": 0.5, "pair": 0.0},
    "uneven, hard neighbours": {"own": 0.5, "drag": 1.0, "pair": 0.0},
    "uneven, confused pairs": {"own": 0.3, "drag": 0.3, "pair": 0.5},
}


def _simulated(n: int, ways: int, episodes: int, kind: str, seed: int) -> Cells:
    return simulated(n, ways, episodes, **KINDS[kind], seed=seed)


def simulations(repeats: int, episodes: int, numbers: list[int]) -> list[dict[str, Any]]:
    """Return the rows of all simulated populations."""
    rows = []
    for ways in (5, 20):
        for kind, settings in KINDS.items():
            large = [
                simulated(500, ways, 4000, **settings, seed=10_000 + i)[1].mean() for i in range(50)
            ]
            for n in [n for n in numbers if n > ways]:
                make = partial(_simulated, n, ways, episodes, kind)
                row = {"data": "simulated", "kind": kind, "n_classes": n, "n_way": ways}
                rows.append(row | coverage(make, float(np.mean(large)), repeats))
                say(rows[-1])
    return rows


def measured(
    repeats: int, episodes: int, data: list[tuple[str, list[int]]], ways: list[int]
) -> list[dict[str, Any]]:
    """Return the rows of real data sets: classes are drawn from all that the set has."""
    rows = []
    for name, numbers in data:
        try:
            pool = load_pool(name, split="all", size=14)
        except QuickstudyError as error:
            print(f"{name}: left out. {error}", flush=True)
            continue
        pool = pool.with_x(pool.x.float().flatten(1) / 255)
        learner = NearestNeighbour().eval()
        for n_way in ways:
            spec = EpisodeSpec(n_way, 1, 5)
            truth = float(scored(learner, pool, spec, 20_000, 10_000)[1].mean())
            for n in [n for n in numbers if n > n_way]:
                row = {"data": name, "of": pool.n_classes, "kind": "pixel nearest neighbour"}
                row |= {"n_classes": n, "n_way": n_way}
                rows.append(
                    row
                    | coverage(partial(_of_some, learner, pool, spec, n, episodes), truth, repeats)
                )
                say(rows[-1])
    return rows


def _of_some(
    learner: Learner, pool: Pool, spec: EpisodeSpec, n: int, episodes: int, seed: int
) -> Cells:
    """Return the scores of episodes of ``n`` classes that the seed draws from a pool."""
    chosen = np.random.default_rng(seed).choice(pool.n_classes, n, replace=False)
    return scored(learner, pool.select(chosen.tolist()), spec, episodes, seed)


def say(row: dict[str, Any]) -> None:
    """Print a row."""
    held = ", ".join(f"{name} {100 * share:.1f} %" for name, share in row["coverage"].items())
    print(
        f"{row['data']}, {row['kind']}, {row['n_classes']} classes, {row['n_way']}-way: {held}",
        flush=True,
    )


def main() -> None:
    """Simulate, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="few classes, no real data")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    numbers = [10, 25] if given.quick else [6, 10, 25, 50, 100]
    rows = simulations(given.simulations, given.episodes, numbers)
    if not given.quick:
        sets = [("omniglot", [10, 25, 50, 100]), ("quickdraw", [10, 25])]
        rows += measured(given.simulations // 2, 300, sets, [5, 20])
    document = {
        "name": "class-interval",
        "what": "how often 95 % intervals over new classes hold the mean of the population",
        "simulations": given.simulations,
        "episodes": given.episodes,
        "rows": rows,
        **provenance(seeds=[0]),
        "seconds": round(time.perf_counter() - start),
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

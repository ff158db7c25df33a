"""How often does ``quickstudy diversity`` say "too diverse", wrongly and rightly?

    python benchmarks/diversity_alarms.py          (needs QUICKSTUDY_DATA; 10 minutes)

Wrongly: the classes of one domain are parted at random and called two domains. Rightly: constructed
domains, of which some of one's six directions of signal are noise in the other. Writes
docs/results/diversity-alarms.json.
"""

from __future__ import annotations

import argparse
import time

import torch

from machine import provenance, write_result
from quickstudy.advice.diversity import REMEDIES, DiversityReport, measure_diversity
from quickstudy.core import EpisodeSpec
from quickstudy.learners.heads import ClassMeanHead, LogisticHead
from quickstudy.tasks import Pool, PoolSource
from quickstudy.tasks.datasets import load_pool
from quickstudy.tasks.fit import fit_images

DOMAINS = ("omniglot", "cifar-fs", "quickdraw")
SPEC = EpisodeSpec(5, 5, 10)
SIZE, MOST = 28, 200  # pixels, classes of a half at most
FEATURES, RANK = 24, 6


def said(pools: dict[str, Pool], *, seed: int, rank: int, episodes: int = 200) -> DiversityReport:
    """Return what is said about these domains."""
    sources = {name: PoolSource(pool) for name, pool in pools.items()}
    return measure_diversity(
        sources,
        SPEC,
        head=ClassMeanHead(),
        adapted=LogisticHead(c=10.0),
        rank=rank,
        episodes=episodes,
        seed=seed,
    )


def halves(pool: Pool, seed: int) -> dict[str, Pool]:
    """Return two random halves of the classes."""
    order = torch.randperm(pool.n_classes, generator=torch.Generator().manual_seed(seed)).tolist()
    half = min(pool.n_classes // 2, MOST)
    return {"one": pool.select(order[:half]), "other": pool.select(order[half : 2 * half])}


def constructed(start: int, *, seed: int) -> Pool:
    """Return a domain whose signal begins at a feature, its noise six features later."""
    generator = torch.Generator().manual_seed(seed)
    between, within = torch.full((FEATURES,), 0.05), torch.full((FEATURES,), 0.3)
    between[start : start + RANK] = 1.0
    within[(torch.arange(RANK) + start + RANK) % FEATURES] = 3.0
    centres = between * torch.randn(24, 1, FEATURES, generator=generator)
    x = centres + within * torch.randn(24, 20, FEATURES, generator=generator)
    y = torch.arange(24).repeat_interleave(20)
    return Pool(x.flatten(0, 1), y, tuple(map(str, range(24))), f"constructed {seed}")


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    start = time.perf_counter()
    alarms, gains = {}, {}
    for name in DOMAINS:
        pool = fit_images(load_pool(name, split="all", size=SIZE), channels=1, size=SIZE)
        reports = [said(halves(pool, s), seed=s, rank=32) for s in range(given.seeds)]
        alarms[name] = sum(r.too_diverse for r in reports)
        own = [r.gains[d][REMEDIES[0]].mean for r in reports for d in r.domains]
        gains[name] = sum(own) / len(own)
        print(name, alarms[name], gains[name], flush=True)
    found = {}
    for apart in (0, 1, 2, 3, 6):
        reports = [
            said(
                {"first": constructed(0, seed=2 * s), "second": constructed(apart, seed=2 * s + 1)},
                seed=s,
                rank=RANK,
            )
            for s in range(given.seeds)
        ]
        own = [r.gains[d][REMEDIES[0]].mean for r in reports for d in r.domains]
        found[apart] = {
            "too_diverse": sum(r.too_diverse for r in reports),
            "gain_of_own": sum(own) / len(own),
        }
        print(apart, found[apart], flush=True)
    scores = {
        "mixtures_of_each": given.seeds,
        "random_halves_called_too_diverse": alarms,
        "random_halves_mean_gain_of_own": gains,
        "constructed_by_directions_that_change_places": found,
        "seconds": round(time.perf_counter() - start, 1),
    }
    made = provenance(seeds=list(range(given.seeds)))
    write_result("diversity-alarms", {"name": "diversity-alarms", **made, "scores": scores})


if __name__ == "__main__":
    main()

"""Score the in-context transformer from pixels beside the Prototypical Network it started from.

    python benchmarks/incontext_omniglot.py --runs runs          (needs QUICKSTUDY_DATA)

reads RUNS/omniglot-protonet and RUNS/omniglot-incontext (``quickstudy train``) and writes
docs/results/incontext-omniglot.json: both on the same tasks of Omniglot's test characters, and the
nearest class mean of the encoder that was trained with the transformer. No query sees another.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import provenance, write_result
from quickstudy.core import EpisodeSpec
from quickstudy.evaluation import evaluate
from quickstudy.learners import EmbeddingLearner, InContextTransformer
from quickstudy.learners.heads import PrototypeHead
from quickstudy.recipes import get_recipe
from quickstudy.runs import load_run
from quickstudy.tasks import PoolSource
from quickstudy.tasks.datasets import load_pool
from quickstudy.tasks.fit import fit_images

NAMES = ("omniglot-protonet", "omniglot-incontext")


def difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Return the mean difference of tasks in points, and its 95 % half width."""
    gap = 100 * (ours - theirs)
    half = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
    return {"difference": round(float(gap.mean()), 3), "ci95": round(float(half), 3)}


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--results", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = [load_run(given.runs / name) for name in NAMES]
    learner = runs[1].learner
    assert isinstance(learner, InContextTransformer)
    learners = {
        "protonet": runs[0].learner,
        "means": EmbeddingLearner(learner.encoder, PrototypeHead(distance=learner.head.distance)),
        "incontext": learner,
    }
    data = runs[1].recipe.data
    size = runs[1].recipe.encoder.image_size
    pool = load_pool(data.name, split="test", split_file=data.split_file, size=size)
    source = PoolSource(fit_images(pool, channels=1, size=size).with_rotations())
    rows: list[dict[str, Any]] = []
    for n_way, k_shot in ((5, 1), (20, 1)):
        spec, scores = EpisodeSpec(n_way, k_shot, 5), {}
        for name, one in learners.items():
            report = evaluate(one.eval(), source, spec, episodes=given.episodes, name=name)
            scores[name] = np.asarray(report.scores)
            print(f"{name} {spec}: {report}", file=sys.stderr, flush=True)
        row: dict[str, Any] = {"n_way": n_way, "k_shot": k_shot}
        row |= {name: round(float(v.mean()), 5) for name, v in scores.items()}
        for other in ("protonet", "means"):
            row[f"over_{other}"] = difference(scores["incontext"], scores[other])
        rows.append(row)
    document = {
        "name": "incontext-omniglot",
        **provenance(seeds=[0], shown={given.runs: "RUNS"}),
        "episodes": given.episodes,
        "n_query": 5,
        "trained": {n: r.recipe.train.steps for n, r in zip(NAMES, runs, strict=True)},
        "planned": {n: get_recipe(n).train.steps for n in NAMES},
        "training": {n: r.meta["training"] for n, r in zip(NAMES, runs, strict=True)},
        "rows": rows,
    }
    write_result(document["name"], document, given.results)


if __name__ == "__main__":
    main()

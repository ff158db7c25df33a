"""Memory learners on streams of Gaussian clouds: which binds labels sooner?

python benchmarks/streams.py          (no data needed; some minutes)

Each learner is trained on the same number of batches of 16 streams: 3 classes, 5 examples each, the
label one step late; SNAIL, which reads no streams, on 3-way tasks of 1 to 4 shots. They are scored
on streams of clouds that training has not seen, beside nearest neighbour and nearest class mean,
which learn the examples before each step anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import provenance, write_result
from quickstudy.core import EpisodeSpec
from quickstudy.evaluation import Mean, evaluate_streams
from quickstudy.learners import (
    MANN,
    SNAIL,
    Learner,
    LSTMLearner,
    NearestNeighbour,
    PrototypicalNetwork,
)
from quickstudy.nets import Identity
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool

FEATURES, WAYS, INSTANCES, STREAMS = 8, 3, 5, 500
CLASSES, TRAINING_CLASSES, PER_CLASS = 1200, 1000, 12
STREAM, TASKS = EpisodeSpec(WAYS, INSTANCES, 1), EpisodeSpec(WAYS, (1, INSTANCES - 1), 2)
SMALL = {"hidden_size": 48, "slots": 24, "width": 16, "heads": 2}
LEARNERS: dict[str, tuple[Callable[[], Learner], EpisodeSpec]] = {
    "LSTM": (lambda: LSTMLearner(Identity((FEATURES,)), n_way=WAYS, hidden_size=48), STREAM),
    "MANN": (lambda: MANN(Identity((FEATURES,)), n_way=WAYS, **SMALL), STREAM),
    "MANN, key strength": (
        lambda: MANN(Identity((FEATURES,)), n_way=WAYS, **SMALL, key_strength=True),
        STREAM,
    ),
    "SNAIL": (
        lambda: SNAIL(Identity((FEATURES,)), n_way=WAYS, length=WAYS * INSTANCES, filters=32),
        TASKS,
    ),
}


def trained(
    made: Callable[[], Learner], spec: EpisodeSpec, source: PoolSource, steps: int, seed: int
) -> tuple[Learner, float]:
    """Return a learner after ``steps`` batches, and the processor seconds that they took."""
    torch.manual_seed(seed)
    learner = made()
    optimiser = torch.optim.Adam(learner.parameters(), 3e-3)
    begun = time.process_time()
    for step in range(steps):
        episode = source.episodes(spec, range(16 * step, 16 * step + 16), seed=seed)
        optimiser.zero_grad()
        learner.training_loss(episode, progress=step / steps).mean().backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 10.0)
        optimiser.step()
    return learner, time.process_time() - begun


def score(learner: Learner, source: PoolSource) -> list[Mean]:
    """Return the accuracy by instance on the same streams for all."""
    report = evaluate_streams(learner, source, n_way=WAYS, instances=INSTANCES, streams=STREAMS)
    return [report.accuracy(k + 1) for k in range(INSTANCES)]


def row(name: str, scores: list[Mean], **more: Any) -> dict[str, Any]:
    """Return a row of the document, and print it."""
    print(name, *(score.cell() for score in scores), more, file=sys.stderr, flush=True)
    by_instance = {str(k + 1): score.to_dict() for k, score in enumerate(scores)}
    return {"learner": name, **more, "accuracy_by_instance": by_instance}


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--results", type=Path, default=None)
    given = parser.parse_args()
    pool = gaussian_pool(CLASSES, PER_CLASS, (FEATURES,))
    order = np.arange(CLASSES)
    training = PoolSource(pool.select(order[:TRAINING_CLASSES].tolist()))
    test = PoolSource(pool.select(order[TRAINING_CLASSES:].tolist()))
    rows = [
        row("nearest neighbour", score(NearestNeighbour(), test)),
        row("nearest class mean", score(PrototypicalNetwork(Identity((FEATURES,))), test)),
    ]
    for name, (made, spec) in LEARNERS.items():
        for seed in given.seeds:
            learner, seconds = trained(made, spec, training, given.steps, seed)
            about = {"seed": seed, "batches": given.steps, "cpu_seconds": round(seconds, 1)}
            rows.append(row(name, score(learner, test), **about))
    document = {
        "name": "streams-clouds",
        "what": f"Accuracy by instance in {STREAMS} streams of {WAYS} Gaussian clouds of "
        f"{FEATURES} numbers, {INSTANCES} examples each, after {given.steps:,} batches of 16",
        **provenance(seeds=given.seeds),
        "rows": rows,
    }
    write_result("streams-clouds", document, given.results)


if __name__ == "__main__":
    main()

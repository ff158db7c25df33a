"""Measure whether the examples of a one-shot task tell how hard it is.

    python benchmarks/one_shot.py --embeddings EMB

reads EMB/ENCODER/NAME.npz (benchmarks/embed.py) and writes docs/results/one-shot.json: for each
data set, over five-way tasks with one example per class, the mean cosine distance of two examples
of different classes, which the support shows; that of a query and the example of its class, which
it does not show; the share of queries whose nearest example is right; and the correlation, over
tasks, of the first and the last.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from honesty import SCORED
from learn_priors import SOURCES, read, rows_of
from machine import provenance, write_result
from quickstudy.fitting.draws import AuxiliaryClasses

WAYS, TASKS, SEED = 5, 300, 3


def measured(folder: Path, encoder: str, name: str) -> dict[str, Any] | None:
    """Return the row of one data set; ``None`` if it has fewer classes."""
    data = read(folder / encoder, name)
    z, label, _, groups = rows_of(data, encoder, name, SCORED.get(name))
    classes = AuxiliaryClasses(z, label, groups=groups)
    drawn = classes.episodes(WAYS, 1, tasks=TASKS, seed=SEED, n_query=10, n_strangers=0)
    if drawn is None:
        return None
    support, query = drawn.episode.support, drawn.episode.query
    x, q = F.normalize(support.x, dim=2), F.normalize(query.x, dim=2)
    between = (1 - x @ x.transpose(1, 2))[:, ~torch.eye(WAYS, dtype=torch.bool)].mean(1)
    distance = 1 - q @ x.transpose(1, 2)  # [T, Q, 5]
    same = query.y[..., None] == support.y[:, None]
    right = support.y.gather(1, distance.argmin(2)) == query.y
    accuracy = right.double().mean(1)
    return {
        "encoder": encoder,
        "set": name,
        "between": round(float(between.mean()), 4),
        "within": round(float(distance[same].mean()), 4),
        "accuracy": round(float(accuracy.mean()), 4),
        "correlation": round(float(np.corrcoef(between, accuracy)[0, 1]), 3),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embeddings", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row
        for encoder, kinds in SOURCES.items()
        for sets in kinds.values()
        for name in sets
        if (row := measured(given.embeddings, encoder, name)) is not None
    ]
    made = provenance(seeds=[SEED], shown={given.embeddings: "EMB"})
    write_result("one-shot", {"name": "one-shot", **made, "tasks": TASKS, "rows": rows})


if __name__ == "__main__":
    main()

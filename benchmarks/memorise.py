"""Memorise or learn to learn: an in-context transformer, by the number of its training tasks.

    python benchmarks/memorise.py            (minutes on one core; needs no data)

After Kirsch et al. (2022), "General-purpose in-context learning by meta-learning transformers",
section 4. A task is a random projection of scikit-learn's 8x8 digits to 32 numbers, and to name the
digits from one example each. One transformer is trained for each number of tasks, 2 to 4,096, for
the same number of steps, and scored on new images in the projections that it was trained on (seen)
and in others (unseen). Its nearest class mean is silenced (a temperature of 10,000), so that all it
knows it has learned. Writes docs/results/memorise.json and docs/images/memorise.svg.

*Differences from the paper*: digits of 8x8 pixels and five classes instead of MNIST with ten; the
labels are not permuted, as the transformer has no names for classes; 2^12 tasks at most, not 2^24.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from machine import ROOT, provenance, write_result
from quickstudy.core import Episode, Examples, generator
from quickstudy.learners import Learner, meta_loss
from quickstudy.learners.heads import InContextHead, PrototypeHead
from quickstudy.training.overfitting import NOVEL, TRAINING, Curve, find_overfitting

COUNTS = (2, 8, 32, 128, 512, 2048, 4096)
WIDTH, WAYS, QUERIES, TASKS_PER_STEP = 32, 5, 5, 16
UNSEEN = 1_000_000  # numbers of the projections that no training sees begin here
SCORED = 200  # tasks of each list
SILENT = 1e4


class Projected:
    """Tasks made of projections of the digits; one half of the images is for training."""

    def __init__(self) -> None:
        digits = load_digits()
        images = torch.from_numpy(digits.data).float() / 16
        self.images, self.y = images - images.mean(0), torch.from_numpy(digits.target)
        self.half = torch.arange(len(images)) % 2 == 0

    def episode(self, tasks: list[int], rng: torch.Generator, *, training: bool) -> Episode:
        """Return one episode in each of these projections."""
        rows = [((self.y == c) & (self.half == training)).nonzero()[:, 0] for c in range(10)]
        sides: tuple[list[Tensor], list[Tensor]] = ([], [])
        for t in tasks:
            projection = torch.randn(64, WIDTH, generator=generator(5, t)) / 8
            digits = torch.randperm(10, generator=rng)[:WAYS].tolist()
            shown = [rows[d][torch.randperm(len(rows[d]), generator=rng)[: 1 + QUERIES]]
                     for d in digits]  # fmt: skip
            x = self.images[torch.stack(shown)] @ projection  # [C, 1 + Q, W]
            sides[0].append(x[:, :1].flatten(0, 1))
            sides[1].append(x[:, 1:].flatten(0, 1))
        classes = torch.arange(WAYS)
        support, query = (
            Examples.full(torch.stack(side), classes.repeat_interleave(n).expand(len(tasks), -1))
            for side, n in zip(sides, (1, QUERIES), strict=True)
        )
        return Episode(support, query, WAYS)


@torch.no_grad()
def accuracies(learner: Learner, episode: Episode) -> np.ndarray:
    """Return the accuracy of each task ``[T]``."""
    logits = learner.predict(learner.adapt(episode.support, n_way=WAYS), episode.query.x)
    right: np.ndarray = (logits.argmax(2) == episode.query.y).double().mean(1).numpy()
    return right


def trained(data: Projected, count: int, steps: int, seed: int) -> dict[str, Any]:
    """Train on this number of tasks, and return the scores and what the watch says."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    head = InContextHead(WIDTH, width=64, layers=2, temperature=SILENT)
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.0)
    fixed = torch.Generator().manual_seed(99)
    lists = {
        TRAINING: data.episode([i % count for i in range(SCORED)], fixed, training=False),
        NOVEL: data.episode([UNSEEN + i for i in range(SCORED)], fixed, training=False),
    }
    at: list[int] = []
    scores: dict[str, list[np.ndarray]] = {name: [] for name in lists}
    begun = time.monotonic()
    for step in range(1, steps + 1):
        tasks = torch.randint(count, (TASKS_PER_STEP,), generator=rng).tolist()
        loss = meta_loss(head, data.episode(tasks, rng, training=True)).mean()
        optimiser.param_groups[0]["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / (steps + 1)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % max(1, steps // 10) == 0:
            at.append(step)
            for name, episode in lists.items():
                scores[name].append(accuracies(head, episode))
    curve = Curve(tuple(at), {name: np.stack(v) for name, v in scores.items()})
    found = find_overfitting(curve)
    seen, unseen = (scores[name][-1] for name in (TRAINING, NOVEL))
    row = {
        "tasks": count,
        "steps": steps,
        "seconds": round(time.monotonic() - begun, 1),
        "seen": interval(seen),
        "unseen": interval(unseen),
        "curve": curve.to_dict(),
        "watch": [str(one) for one in found],
    }
    print(count, row["seen"], row["unseen"], row["watch"], file=sys.stderr, flush=True)
    return row


def interval(values: np.ndarray) -> dict[str, float]:
    """Return the mean over tasks, and the half width of its 95 % interval."""
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return {"mean": round(float(values.mean()), 4), "ci95": round(float(half), 4)}


def draw(rows: list[dict[str, Any]], floor: float, path: Path) -> None:
    """Draw the accuracy on seen and unseen tasks by the number of training tasks."""
    plt.rcParams["svg.hashsalt"] = "quickstudy"
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    counts = [row["tasks"] for row in rows]
    for name, ink in (("seen", "#8a8a8a"), ("unseen", "#123d6b")):
        means = np.array([100 * row[name]["mean"] for row in rows])
        half = np.array([100 * row[name]["ci95"] for row in rows])
        axes.plot(counts, means, "o-", color=ink, label=f"{name} projections, new images")
        axes.fill_between(counts, means - half, means + half, color=ink, alpha=0.2, linewidth=0)
    axes.axhline(100 * floor, color="#c23b22", linestyle=":", label="nearest class mean, unseen")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("training tasks")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Train, score, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tasks", type=int, nargs="+", default=COUNTS, help="numbers of tasks")
    parser.add_argument("--minutes", type=float, default=15, help="no training is begun later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, begun, rows = Projected(), time.monotonic(), []
    for count in given.tasks:
        if time.monotonic() - begun > 60 * given.minutes:
            print(f"the time is up before {count} tasks", file=sys.stderr)
            break
        rows.append(trained(data, count, given.steps, given.seed))
    rng = torch.Generator().manual_seed(99)
    unseen = data.episode([UNSEEN + i for i in range(SCORED)], rng, training=False)
    floor = interval(accuracies(PrototypeHead(), unseen))
    document = {
        "name": "memorise",
        **provenance(
            seeds=[given.seed], shown={given.results: "RESULTS"} if given.results else None
        ),
        "tasks_scored": SCORED,
        "nearest_class_mean": floor,
        "rows": rows,
    }
    write_result("memorise", document, given.results)
    folder = ROOT / "docs/images" if given.results is None else given.results
    draw(rows, floor["mean"], folder / "memorise.svg")


if __name__ == "__main__":
    main()

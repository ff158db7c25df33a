"""Train a recipe, score it on its test tasks, write docs/results/NAME.json.

python benchmarks/reproduce.py omniglot-protonet          (needs QUICKSTUDY_DATA)

A run that is already in runs/NAME is resumed, or only scored if it is finished; the document says
after how many steps. The test split is
read here and nowhere else.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from machine import provenance, write_result
from quickstudy.core import EpisodeSpec, Examples, TaskState
from quickstudy.evaluation import Report, evaluate, evaluate_streams
from quickstudy.learners import EmbeddingLearner, Learner, NearestNeighbour
from quickstudy.learners.gradient import GradientLearner
from quickstudy.learners.streams import learned_on_streams
from quickstudy.recipes import get_recipe
from quickstudy.runs import Run, load_run, train_recipe
from quickstudy.runs.judging import score_transductively
from quickstudy.tasks import PoolSource
from quickstudy.tasks.datasets import load_lake_runs, load_pool
from quickstudy.tasks.fit import fit_images
from quickstudy.training.logs import read_log


@dataclass(frozen=True)
class Cell:
    """One number of a table, and what a paper says."""

    data: str
    n_way: int
    k_shot: int
    wanted: float | None = None
    rotations: bool = False
    groups: bool = False
    n_query: int = 15
    episodes: int | None = None
    inductive: float | None = None


def omniglot(wanted: tuple[float, float, float, float]) -> list[Cell]:
    """The four classic cells with rotated test classes, as in Snell et al., and without."""
    shapes = [(20, 1), (20, 5), (5, 1), (5, 5)]
    turned = [
        Cell("omniglot", way, shot, value, rotations=True)
        for (way, shot), value in zip(shapes, wanted, strict=True)
    ]
    return turned + [Cell("omniglot", way, shot) for way, shot in shapes]


def adapted(wanted: tuple[float, ...], inductive: tuple[float, ...] = ()) -> list[Cell]:
    """The classic cells of gradient learners: ``wanted`` with the statistics of all queries, as in
    the papers, and ``inductive`` without where a paper says."""
    shapes = [(5, 1), (5, 5), (20, 1), (20, 5)]
    alone = inductive or (None,) * 4
    return [
        Cell("omniglot", *shape, value, True, n_query=5, episodes=600, inductive=other)
        for shape, value, other in zip(shapes, wanted, alone, strict=True)
    ]


def both_ways(
    kind: str, wanted: tuple[float, ...], inductive: tuple[float, ...] = ()
) -> dict[str, list[Cell]]:
    """The cells of a learner that is trained for each way apart, as in the papers."""
    cells = adapted(wanted, inductive)
    return {f"omniglot-{kind}-5way": cells[:2], f"omniglot-{kind}": cells[2:]}


ELSEWHERE = [
    Cell("quickdraw", 5, 1),
    Cell("quickdraw", 5, 5),
    Cell("mnist", 5, 1),
    Cell("mnist", 5, 5),
    Cell("digits", 5, 1),
    Cell("digits", 5, 5),
    Cell("fashion-mnist", 5, 1),
    Cell("gtsrb", 5, 1, groups=True),
    Cell("dtd", 5, 1),
]
CELLS = {
    "omniglot-protonet": omniglot((0.960, 0.989, 0.988, 0.997)) + ELSEWHERE,
    "omniglot-matching": omniglot((0.938, 0.985, 0.981, 0.989)),
    "omniglot-matching-fce": omniglot((0.938, 0.985, 0.981, 0.989)),
    "omniglot-background": [],
    # the same tasks as those of the gradient learners that start from it
    "omniglot-start": [
        Cell("omniglot", w, k, rotations=True, n_query=5, episodes=600)
        for w in (5, 20)
        for k in (1, 5)
    ],
    **both_ways("maml", (0.987, 0.999, 0.958, 0.989)),
    **both_ways("fomaml", (0.983, 0.992, 0.894, 0.979)),
    **both_ways("reptile", (0.977, 0.995, 0.894, 0.971), (0.954, 0.989, 0.881, 0.967)),
    **both_ways("metasgd", (0.995, 0.999, 0.959, 0.990)),
    "omniglot-anil": adapted((0.0, 0.0, 0.962, 0.980)),
    "omniglot-protomaml": adapted((0.9947, 0.9993, 0.9765, 0.9933)),
    "omniglot-protomaml-vinyals": [
        replace(cell, episodes=2000) for cell in adapted((0.9947, 0.9993, 0.9765, 0.9933))
    ],
    "cifar-fs-protonet": [Cell("cifar-fs", 5, 1, 0.555), Cell("cifar-fs", 5, 5, 0.720)],
    "cifar-fs-protonet-5shot": [Cell("cifar-fs", 5, 1, 0.555), Cell("cifar-fs", 5, 5, 0.720)],
    "miniimagenet-protonet": [
        Cell("miniimagenet", 5, 1, 0.494),
        Cell("miniimagenet", 5, 5, 0.682),
    ],
    # trained and scored on 20-pixel images; what is wanted of streams stands in docs/memory.md
    "omniglot-mann": [Cell("omniglot", 5, k, n_query=5, episodes=600) for k in (1, 5)],
    "omniglot-lstm": [Cell("omniglot", 5, k, n_query=5, episodes=600) for k in (1, 5)],
    "omniglot-snail": [
        Cell("omniglot", 5, k, wanted, n_query=5, episodes=600)
        for k, wanted in ((1, 0.9907), (5, 0.9978))
    ],
    "glyphs-protonet": ELSEWHERE,
}


def score(
    run: Run, cell: Cell, *, episodes: int, floor: bool, inner_steps: int | None
) -> dict[str, Any]:
    """Return one cell: our number, the paper's, and the pixel floor."""
    encoder, trained = run.recipe.encoder, run.recipe.data
    split_file = trained.split_file if trained.name == cell.data else None
    pool = load_pool(cell.data, split="test", split_file=split_file, size=encoder.image_size)
    pool = fit_images(pool, channels=encoder.in_channels, size=encoder.image_size)
    if cell.rotations:
        pool = pool.with_rotations()
    source, spec = PoolSource(pool, cell.groups), EpisodeSpec(cell.n_way, cell.k_shot, cell.n_query)
    episodes = cell.episodes or episodes
    learner = run.learner
    if isinstance(learner, GradientLearner):
        learner = learner.judged(query_statistics="support", eval_steps=inner_steps)
    states: list[TaskState] = []
    scored: Learner = learner
    inner: dict[str, int] = {}
    if isinstance(learner, GradientLearner):
        # before the evaluation, which leaves the wrapper in training mode as it found it
        inner["inner_steps"] = learner.eval().steps
        scored = Remembering(learner, states)
    report = evaluate(scored, source, spec, episodes=episodes, name=run.recipe.name)
    document = report.to_dict()
    document["rotations_as_classes"], document["group_aware"] = cell.rotations, cell.groups
    if isinstance(learner, GradientLearner):
        document["protocol"] |= inner
        queries = Replaying(learner.judged(query_statistics="query"), states)
        other, gain = score_transductively(report, queries, source, spec)
        document["transductive"], document["transductive_gain"] = other.to_dict(), gain.to_dict()
        add_wanted(document, report, other, cell)
        print(f"{cell.data} {spec}: {other}", file=sys.stderr)
    elif cell.wanted is not None:
        document["wanted"], document["reached"] = cell.wanted, report.mean >= cell.wanted
    if floor:
        below = evaluate(NearestNeighbour(), source, spec, episodes=episodes, name="pixels")
        document["floor"] = below.to_dict()["accuracy"]
    print(f"{cell.data} {spec}: {report}", file=sys.stderr)
    return document


class Remembering(Learner):
    """Keeps the states it adapted, so that the same tasks need not be learned twice."""

    def __init__(self, learner: GradientLearner, states: list[TaskState]) -> None:
        super().__init__()
        self.learner, self.states = learner, states
        self.transductive = learner.transductive

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Adapt, and keep the state."""
        self.states.append(self.learner.adapt(support, n_way=n_way))
        return self.states[-1]

    def predict(self, state: TaskState, x: torch.Tensor) -> torch.Tensor:
        """Predict as the learner does."""
        return self.learner.predict(state, x)


class Replaying(Remembering):
    """Predicts from states that were adapted before, on the same tasks in the same order."""

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the next state that was kept."""
        del support, n_way
        return self.states.pop(0)


def add_wanted(document: dict[str, Any], report: Report, with_queries: Report, cell: Cell) -> None:
    """Add what the papers print: with the statistics of all queries, and without where they say."""
    if cell.inductive is not None:
        document["wanted"], document["reached"] = cell.inductive, report.mean >= cell.inductive
    if cell.wanted:
        document["transductive"]["wanted"] = cell.wanted
        document["transductive"]["reached"] = with_queries.mean >= cell.wanted


def streams(run: Run) -> dict[str, Any]:
    """Return the accuracy by instance in streams of five test characters, ten images of each."""
    encoder, data = run.recipe.encoder, run.recipe.data
    pool = load_pool(data.name, split="test", split_file=data.split_file, size=encoder.image_size)
    source = PoolSource(fit_images(pool, channels=encoder.in_channels, size=encoder.image_size))
    report = evaluate_streams(run.learner, source, streams=1000, name=run.recipe.name)
    print(report.text(), file=sys.stderr)
    return report.to_dict()


@torch.no_grad()
def lake(run: Run) -> dict[str, Any]:
    """Return the error on Lake et al.'s twenty 20-way 1-shot runs within an alphabet."""
    runs = load_lake_runs(size=run.recipe.encoder.image_size)
    learner = run.learner.eval()
    assert isinstance(learner, EmbeddingLearner)
    embed = [learner.encoder.encode(x.float() / 255)[0] for x in (runs.train, runs.test)]
    distance = torch.cdist(embed[1], embed[0])  # [20 runs, 20 tests, 20 trainings]
    wrong = (distance.argmin(2) != runs.answer).float()
    per_run = wrong.mean(1)
    return {
        "error": float(wrong.mean()),
        "ci95_over_runs": float(2.093 * per_run.std() / 20**0.5),  # t, 19 degrees of freedom
        "error_by_run": [round(float(e), 3) for e in per_run],
        "wanted_at_most": 0.135,
        "reached": float(wrong.mean()) <= 0.135,
    }


def say(text: str) -> None:
    """Tell what is going on, on standard error."""
    print(text, file=sys.stderr)


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(CELLS))
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--no-floor", action="store_true")
    parser.add_argument("--inner-steps", type=int, help="of a gradient learner, at test")
    parser.add_argument("-s", action="append", default=[], help="as in quickstudy train")
    given = parser.parse_args()
    trial = given.s or given.no_floor or given.episodes != parser.get_default("episodes")
    if trial and given.results is None:
        parser.error("a trial must not replace the published result: name another --results")
    out = given.runs / given.name
    if not (out / "model.safetensors").exists():
        begun = (out / "recipe.json").exists()
        train_recipe(given.name, given.s, out=out, resume=begun, progress=True, say=say)
    run = load_run(out)
    cells = [
        score(
            run,
            cell,
            episodes=given.episodes,
            floor=not given.no_floor,
            inner_steps=given.inner_steps,
        )
        for cell in CELLS[given.name]
    ]
    log = read_log(out / "log.jsonl")
    document = {
        "name": given.name,
        **provenance(seeds=[run.recipe.train.seed]),
        "training": run.meta["training"] | {"chosen_step": run.meta["step"]},
        "validation_curve": [[e["step"], e["validation"]] for e in log if "validation" in e],
        "recipe": get_recipe(given.name).model_dump(mode="json")
        | run.recipe.model_dump(mode="json"),
        "cells": cells,
    }
    if learned_on_streams(run.learner):
        document["streams"] = streams(run)
    if run.recipe.data.name == "omniglot" and run.recipe.data.split_file == "background-evaluation":
        document["lake_20_runs"] = lake(run)
    write_result(given.name, document, given.results)


if __name__ == "__main__":
    main()

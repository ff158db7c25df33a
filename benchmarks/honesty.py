"""Score what an estimator says of itself, on kinds of data that its prior never saw.

    python benchmarks/honesty.py text --embeddings EMB --priors PRIORS

reads EMB/NAME.npz (benchmarks/embed.py) and PRIORS/KIND-without-DOMAIN (benchmarks/learn_priors.py
--without), and writes docs/results/honesty-ENCODER.json: one row for each data set, number of
classes and shots. Test splits are scored where there are some. ``--mode own`` scores the task's
own evidence alone, without any prior: honesty-ENCODER-own.json. ``--films`` scores data sets of
films once more, with ``groups`` that tell which frames are of one film: honesty-ENCODER-films.json.

Of each task: coverage and size of 90 % sets, empty sets; false rejects at 5 %, strangers of the
same data set (near) and of other kinds (far) caught; areas under the curve, also of plain nearest
neighbour by cosine; accuracy, calibration error, the accuracy it expects and whether its interval
holds; suspects among correct labels. Further rows have labels without meaning.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from learn_priors import SOURCES, read, rows_of
from machine import provenance, write_result
from quickstudy.evaluation.statistics import CalibrationCounts
from quickstudy.fitting.draws import AuxiliaryClasses
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import FittedTask, fit_task

SCORED = {
    "miniimagenet": ("test",),
    "cifar_fs": ("test",),
    "omniglot": ("evaluation",),
    "banking77": ("test",),
    "clinc150": ("test",),
    "huffpost41": ("test",),
}
SIZES = [(n, k) for n in (2, 5, 10, 20) for k in (1, 5, 10)]


@dataclass(frozen=True)
class Task:
    """One task with strangers."""

    z: Tensor
    y: Tensor
    query: Tensor
    answer: Tensor
    near: Tensor
    far: Tensor
    n_way: int
    groups: Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """The scored classes of a data set, and embeddings of other kinds. ``films`` are told to the
    task if there are any."""

    classes: AuxiliaryClasses
    others: Tensor
    rows: AuxiliaryClasses
    films: Tensor | None

    def tasks(self, n_way: int, k_shot: int, count: int) -> Iterator[Task]:
        """Yield tasks of one size, none where classes are too few or too small."""
        rng = torch.Generator().manual_seed(n_way * 100 + k_shot)
        for n_query in (15, 10):
            strangers = 5 * n_way if self.classes.n_classes > n_way else 0
            drawn = self.classes.episodes(
                n_way, k_shot, tasks=count, seed=11, n_query=n_query, n_strangers=strangers
            )
            if drawn is None:
                continue
            films = None
            if self.films is not None:  # the same draws, of the numbers of the rows
                same = self.rows.episodes(
                    n_way, k_shot, tasks=count, seed=11, n_query=n_query, n_strangers=strangers
                )
                assert same is not None
                films = self.films[same.episode.support.x[..., 0].long()]
            support, query = drawn.episode.support, drawn.episode.query
            for t in range(count):
                far = self.others[torch.randint(len(self.others), (50,), generator=rng)]
                yield Task(
                    support.x[t],
                    support.y[t],
                    query.x[t],
                    query.y[t],
                    drawn.strangers[t],
                    far,
                    n_way,
                    None if films is None else films[t],
                )
            return


def scored(folder: Path, encoder: str, kind: str, name: str, *, films_told: bool = False) -> Scored:
    """Return the scored rows of a data set."""
    z, label, _, groups = rows_of(read(folder, name), encoder, name, SCORED.get(name))
    others = [
        read(folder, other)["z"][::7]
        for k, sets in SOURCES[encoder].items()
        for other in sets
        if k != kind
    ]
    classes = AuxiliaryClasses(z, label, groups=groups)
    rows = AuxiliaryClasses(np.arange(len(z), dtype=np.float32)[:, None], label, groups=groups)
    films = torch.from_numpy(np.unique(groups, return_inverse=True)[1]) if films_told else None
    return Scored(classes, torch.from_numpy(np.concatenate(others)), rows, films)


class Cell:
    """What is collected of the tasks of one size."""

    def __init__(self) -> None:
        self.calibration = CalibrationCounts()
        self.values: dict[str, list[float]] = {}
        self.pairs: list[tuple[float, float]] = []

    def note(self, **values: float) -> None:
        """Add one task's numbers."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def add(self, fitted: FittedTask, task: Task) -> None:
        """Add a task."""
        p = fitted.proba(task.query)
        right = p.argmax(1) == task.answer
        self.calibration.add(p.amax(1).numpy(), right.numpy())
        inside = fitted.sets(task.query, coverage=0.9)
        said, accuracy = fitted.expected_accuracy(), float(right.double().mean())
        self.pairs.append((said.mean, accuracy))
        _order, odds, _ = fitted.suspects()
        self.note(
            accuracy=accuracy,
            covered=float(inside[torch.arange(len(p)), task.answer].double().mean()),
            set_size=float(inside.sum(1).double().mean()),
            empty=float((inside.sum(1) == 0).double().mean()),
            expected=said.mean,
            missed_by=abs(said.mean - accuracy),
            held=float(said.low - 1e-9 <= accuracy <= said.high + 1e-9),
            width=said.high - said.low,
            false_rejects=float((~fitted.accepts(task.query)).double().mean()),
            suspects=float((odds >= fitted.suspect_odds).double().mean()),
        )
        known, plain = fitted.novelty(task.query), nearest(task, task.query)
        for name, strangers in (("near", task.near), ("far", task.far)):
            if len(strangers):
                ours = auroc(known, fitted.novelty(strangers))
                self.note(
                    **{
                        f"{name}_caught": float((~fitted.accepts(strangers)).double().mean()),
                        f"{name}_auroc": ours,
                        f"{name}_auroc_nearest": auroc(plain, nearest(task, strangers)),
                    }
                )
        told = fitted.strangers_caught()
        if told is not None and len(task.near):
            self.note(near_caught_told=told)

    def row(self) -> dict[str, Any]:
        """Return the means over the tasks."""
        found = {name: round(float(np.mean(v)), 4) for name, v in self.values.items()}
        found["calibration_error"] = round(self.calibration.error(), 4)
        return {"tasks": len(self.pairs)} | found


def nearest(task: Task, x: Tensor) -> Tensor:
    """Return one minus the cosine to the nearest example: the detector that needs no prior."""
    return 1 - (F.normalize(x, dim=1) @ F.normalize(task.z, dim=1).T).amax(1)


def auroc(known: Tensor, strangers: Tensor) -> float:
    """Return the area under the curve of a score that is high for strangers."""
    label = np.r_[np.zeros(len(known)), np.ones(len(strangers))]
    return float(roc_auc_score(label, np.r_[known.double().numpy(), strangers.double().numpy()]))


def flipped(prior: TaskPrior, task: Task, rng: np.random.Generator) -> tuple[bool, bool]:
    """Return whether a flipped label is the first suspect, and whether it is among two."""
    i, y = int(rng.integers(len(task.y))), task.y.clone()
    y[i] = (y[i] + 1 + int(rng.integers(task.n_way - 1))) % task.n_way
    order, *_ = fit_task(prior, task.z, y, n_way=task.n_way, groups=task.groups).suspects()
    return int(order[0]) == i, i in order[:2].tolist()


def meaningless(task: Task, rng: np.random.Generator, how: str) -> Task:
    """Return the task with labels that carry nothing: shuffled, or five names for one class."""
    n = len(task.y)
    if how == "shuffled":
        query = rng.permutation(len(task.answer))
        return replace(
            task,
            groups=None,
            y=task.y[torch.from_numpy(rng.permutation(n))],
            answer=task.answer[torch.from_numpy(query)],
        )
    one = torch.cat([task.z[task.y == 0], task.query[task.answer == 0]])
    one = one[torch.from_numpy(rng.permutation(len(one)))]
    k = min(n // task.n_way, (len(one) - task.n_way) // task.n_way)
    shown, asked = one[: k * task.n_way], one[k * task.n_way :]
    asked = asked[: len(asked) // task.n_way * task.n_way]
    names = torch.arange(task.n_way)
    return replace(
        task,
        groups=None,
        z=shown,
        y=names.repeat_interleave(k),
        query=asked,
        answer=names.repeat(len(asked) // task.n_way),
    )


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", choices=sorted(SOURCES))
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--priors", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100, help="of sizes below ten classes")
    parser.add_argument("--mode", choices=("both", "own"), default="both")
    parser.add_argument("--sets", nargs="+", default=None, help="only these")
    parser.add_argument("--films", action="store_true", help="tell which frames are of one film")
    parser.add_argument("--results", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for kind, sets in SOURCES[given.encoder].items():
        for name in sets:
            if given.sets is not None and name not in given.sets:
                continue
            if given.films and "track" not in read(given.embeddings, name):
                continue
            data = scored(given.embeddings, given.encoder, kind, name, films_told=given.films)
            prior = TaskPrior.plain(data.others.shape[1])
            if given.mode == "both":
                prior = TaskPrior.load(given.priors / f"{given.encoder}-without-{kind}")
            rows += score(prior, data, {"set": name, "kind": kind}, given.episodes)
    made = provenance(seeds=[11], shown={given.embeddings: "EMB", given.priors: "PRIORS"})
    name = f"honesty-{given.encoder}" + ("" if given.mode == "both" else "-own")
    name += "-films" if given.films else ""
    write_result(name, {"name": name, **made, "mode": given.mode, "rows": rows}, given.results)


def score(
    prior: TaskPrior, data: Scored, facts: dict[str, str], episodes: int
) -> list[dict[str, Any]]:
    """Return the rows of one data set."""
    rows: list[dict[str, Any]] = []
    begun = time.monotonic()
    for n, k in SIZES:
        cell = Cell()
        for task in data.tasks(n, k, episodes if n < 10 else max(20, episodes // 3)):
            cell.add(fit_task(prior, task.z, task.y, n_way=n, groups=task.groups), task)
        if cell.pairs:
            rows.append(facts | {"ways": n, "shots": k} | cell.row())
    rng = np.random.default_rng(0)
    found = [flipped(prior, task, rng) for task in data.tasks(5, 5, episodes)]
    if found:
        facts_of = {"ways": 5, "shots": 5, "labels": "one of 25 flipped", "tasks": len(found)}
        first, among_two = (round(float(np.mean(side)), 4) for side in zip(*found, strict=True))
        rows.append(facts | facts_of | {"first": first, "among_first_two": among_two})
    for how in ("shuffled", "one class"):
        for k in (2, 5):
            cell, nothing = Cell(), []
            for task in data.tasks(5, k, episodes):
                empty = meaningless(task, rng, how)
                fitted = fit_task(prior, empty.z, empty.y, n_way=5, groups=empty.groups)
                said = fitted.expected_accuracy()
                cell.note(
                    expected=said.mean,
                    interval_holds_chance=float(said.low <= 0.2 <= said.high),
                )
                nothing.append(float(fitted.nothing_learned))
            if nothing:
                means = {m: round(float(np.mean(v)), 4) for m, v in cell.values.items()}
                row = {"ways": 5, "shots": k, "labels": how, "tasks": len(nothing)}
                rows.append(facts | row | means | {"told": round(float(np.mean(nothing)), 4)})
    print(f"{facts['set']}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()

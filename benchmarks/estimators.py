"""Score heads, priors and what they say of themselves on embeddings of classes they never saw.

    python benchmarks/estimators.py text --embeddings FOLDER --priors FOLDER
    python benchmarks/estimators.py image --embeddings FOLDER
    python benchmarks/estimators.py characters --embeddings FOLDER --photos FOLDER

reads FOLDER/NAME.npz (benchmarks/embed.py writes them), writes docs/results/estimators-KIND.json.
Priors are those that ship, benchmarks/learn_priors.py says from which classes; but BANKING77 and
CLINC150 are scored with those that were learned without them (``--priors``: learn_priors.py
text-without-banking77 text-without-clinc150 banking77-half clinc150-half --out FOLDER). What an
estimator says of itself is scored a second time on half of the classes, with a prior of the others.
``--photos`` holds the embeddings of the same images by EfficientNet, to compare with. ``--parts``
runs some of the tables, ``--episodes`` fewer episodes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from learn_priors import read
from machine import ROOT, provenance, write_result
from quickstudy.estimators import TaskPrior, fit_task
from quickstudy.evaluation.statistics import CalibrationCounts, mean_interval
from quickstudy.fitting.draws import AuxiliaryClasses
from quickstudy.fitting.heads import CANDIDATES
from quickstudy.fitting.novelty import nearest_cosine
from quickstudy.fitting.task import FittedTask, held_out_quantile

PRIORS = ROOT / "src/quickstudy/fitting/priors"
DRAWINGS = ("omniglot", "mnist", "quickdraw")
SCORED_SPLIT = {"cifar_fs": "test", "omniglot": "evaluation"}
TEXTS, IMAGES = ("banking77", "clinc150"), ("cifar_fs", "gtsrb", "dtd10", "quickdraw")
NOTE = (
    "While the heads were being developed, prototypes, whitening from other domains, ridge "
    "regression with and without a Gaussian kernel, Parzen windows, score normalisation and "
    "scikit-learn's logistic regression were looked at on the test splits of BANKING77 and "
    "CLINC150, and the first table of BANKING77 was seen before heads were compared at their own "
    "temperatures and given settings by ways. What ships was chosen afterwards by learn_prior "
    "alone, on the classes that its priors name."
)


@dataclass(frozen=True)
class Rows:
    """Labelled embeddings; support comes from ``train`` rows, queries from ``test`` rows."""

    name: str
    z: Tensor
    y: Tensor
    train: np.ndarray
    test: np.ndarray
    groups: np.ndarray | None

    @property
    def ways(self) -> int:
        """The number of classes."""
        return int(self.y.max()) + 1


def rows_of(folder: Path, name: str) -> tuple[Rows, Tensor]:
    """Return the scored classes of a data set, and embeddings out of scope (CLINC150's oos)."""
    data = read(folder, name)
    label, split = data["label"].astype(str), data["split"].astype(str)
    keep = label != "oos"
    strangers = torch.from_numpy(data["z"][~keep & (split == "test")])
    if name in SCORED_SPLIT:
        keep &= split == SCORED_SPLIT[name]
    z, label, split = data["z"][keep], label[keep], split[keep]
    _, y = np.unique(label, return_inverse=True)
    two = name in TEXTS
    every = np.ones(len(y), dtype=bool)
    groups = np.char.add(label, data["track"][keep].astype(str)) if "track" in data else None
    rows = Rows(
        name,
        torch.from_numpy(z),
        torch.from_numpy(y),
        split == "train" if two else every,
        split == "test" if two else every,
        groups,
    )
    return rows, strangers


@dataclass(frozen=True)
class Task:
    """One task: support and queries."""

    z: Tensor
    y: Tensor
    query: Tensor
    answer: Tensor
    n_way: int


def episodes(rows: Rows, n_way: int, k_shot: int, count: int, n_query: int = 15) -> Iterator[Task]:
    """Yield tasks; support and query share no row and, where there are groups, no group."""
    y, rng = rows.y.numpy(), np.random.default_rng([n_way, k_shot, 0])
    support_rows = [np.flatnonzero((y == c) & rows.train) for c in range(rows.ways)]
    query_rows = [np.flatnonzero((y == c) & rows.test) for c in range(rows.ways)]
    for _ in range(count):
        parts = []
        for c in rng.permutation(rows.ways)[:n_way]:
            support = rng.permutation(support_rows[c])[:k_shot]
            rest = np.setdiff1d(query_rows[c], support)
            if rows.groups is not None:
                rest = rest[~np.isin(rows.groups[rest], rows.groups[support])]
            parts.append((support, rng.permutation(rest)[:n_query]))
        label = np.arange(n_way)
        sizes = [len(q) for _, q in parts]
        s, q = (np.concatenate(side) for side in zip(*parts, strict=True))
        yield Task(
            rows.z[s],
            torch.from_numpy(label.repeat(k_shot)),
            rows.z[q],
            torch.from_numpy(label.repeat(sizes)),
            n_way,
        )


# ------------------------------------------------------------------------------- baselines

Baseline = Callable[[Task], np.ndarray]


def logistic(c: float) -> Baseline:
    """Return scikit-learn's logistic regression on the embeddings as they are."""

    def answer(task: Task) -> np.ndarray:
        model = LogisticRegression(C=c, max_iter=1000)
        return model.fit(task.z.numpy(), task.y.numpy()).predict(task.query.numpy())

    return answer


def neighbours(k: int) -> Baseline:
    """Return scikit-learn's nearest neighbours by cosine."""

    def answer(task: Task) -> np.ndarray:
        model = KNeighborsClassifier(min(k, len(task.y)), metric="cosine")
        return model.fit(task.z.numpy(), task.y.numpy()).predict(task.query.numpy())

    return answer


def prototypes(task: Task) -> np.ndarray:
    """Return the nearest class mean, Euclidean, on the embeddings as they are."""
    means = torch.stack([task.z[task.y == c].mean(0) for c in range(task.n_way)])
    return torch.cdist(task.query, means).argmin(1).numpy()


BASELINES: dict[str, Baseline] = {
    "logistic regression, C=1": logistic(1.0),
    "logistic regression, C=10": logistic(10.0),
    "1 nearest neighbour": neighbours(1),
    "5 nearest neighbours": neighbours(5),
    "prototypes": prototypes,
}


def share(answer: np.ndarray, task: Task) -> float:
    return 100 * float((answer == task.answer.numpy()).mean())


def summary(values: list[float]) -> dict[str, float]:
    """Return mean and half-width of the 95 % interval."""
    scores = np.array(values)
    half = mean_interval(scores)
    return {"mean": round(float(scores.mean()), 2), "ci95": round(half, 2)}


def against(ours: list[float], theirs: dict[str, list[float]]) -> dict[str, Any]:
    """Return the paired differences."""
    found = {}
    for name, values in theirs.items():
        difference = np.array(ours) - np.array(values)
        p = float(stats.ttest_1samp(difference, 0).pvalue) if difference.std() > 0 else 1.0
        found[name] = summary(values) | {
            "ours_minus_it": summary(difference.tolist()) | {"p": round(p, 5)}
        }
    return found


# ---------------------------------------------------------------------------------- tables


def accuracy_table(
    prior: TaskPrior, tasks: Iterator[Task], baselines: tuple[str, ...], fixed: tuple[str, ...]
) -> dict[str, Any]:
    """Return accuracy of ``auto``, of fixed heads and of baselines on the same tasks."""
    ours: list[float] = []
    heads: dict[str, list[float]] = {name: [] for name in fixed}
    theirs: dict[str, list[float]] = {name: [] for name in baselines}
    chosen: dict[str, int] = {}
    seconds: list[float] = []
    for task in tasks:
        begun = time.perf_counter()
        fitted = fit_task(prior, task.z, task.y, n_way=task.n_way)
        answer = fitted.logits(task.query).argmax(1).numpy()
        seconds.append(time.perf_counter() - begun)
        ours.append(share(answer, task))
        chosen[fitted.head_name] = chosen.get(fitted.head_name, 0) + 1
        for name in fixed:
            one = fit_task(prior, task.z, task.y, n_way=task.n_way, head=name)
            heads[name].append(share(one.logits(task.query).argmax(1).numpy(), task))
        for name in baselines:
            theirs[name].append(share(BASELINES[name](task), task))
    return {
        "tasks": len(ours),
        "auto": summary(ours),
        "auto_chose": chosen,
        "auto_seconds": round(float(np.median(seconds)), 3),
        "fixed": {name: summary(values) for name, values in heads.items()},
        "baselines": against(ours, theirs),
    }


@dataclass
class Trust:
    """What is collected about a set of tasks for the tables of trust."""

    calibration: CalibrationCounts
    coverage: list[float]
    size: list[float]
    alone_coverage: list[float]
    alone_size: list[float]
    missed: list[float]
    inside: list[float]

    @classmethod
    def new(cls) -> Trust:
        """Return one without tasks."""
        return cls(CalibrationCounts(), [], [], [], [], [], [])

    def add(self, fitted: FittedTask, task: Task) -> None:
        """Add a task."""
        p = fitted.proba(task.query)
        right = p.argmax(1) == task.answer
        self.calibration.add(p.amax(1).numpy(), right.numpy())
        in_set = fitted.sets(task.query, coverage=0.9)
        rows = torch.arange(len(p))
        self.coverage.append(float(in_set[rows, task.answer].double().mean()))
        self.size.append(float(in_set.sum(1).double().mean()))
        alone = -p.log() <= held_out_quantile(fitted._held_out_scores(), 0.9)
        self.alone_coverage.append(float(alone[rows, task.answer].double().mean()))
        self.alone_size.append(float(alone.sum(1).double().mean()))
        expected, accuracy = fitted.expected_accuracy(), float(right.double().mean())
        self.missed.append(100 * abs(expected.mean - accuracy))
        self.inside.append(float(expected.low <= accuracy <= expected.high))

    def table(self) -> dict[str, Any]:
        """Return the means over the tasks."""
        return {
            "tasks": len(self.coverage),
            "calibration_error": round(self.calibration.error(), 4),
            "sets_90": {
                "coverage": round(100 * float(np.mean(self.coverage)), 2),
                "size": round(float(np.mean(self.size)), 3),
            },
            "sets_90_without_auxiliary_tasks": {
                "coverage": round(100 * float(np.mean(self.alone_coverage)), 2),
                "size": round(float(np.mean(self.alone_size)), 3),
            },
            "accuracy_estimate": {
                "mean_absolute_error": round(float(np.mean(self.missed)), 2),
                "inside_90_interval": round(100 * float(np.mean(self.inside)), 1),
            },
        }


def suspects_table(prior: TaskPrior, tasks: Iterator[Task], seed: int = 0) -> dict[str, Any]:
    """Return how often the one flipped label of 25 is among the first two suspects."""
    rng = np.random.default_rng(seed)
    first, hits, easy = 0, [], []
    for task in tasks:
        clean = fit_task(prior, task.z, task.y, n_way=task.n_way)
        judged = clean.evidence.held_out[0].argmax(1) == task.y
        i = int(rng.integers(len(task.y)))
        y = task.y.clone()
        y[i] = (y[i] + 1 + int(rng.integers(task.n_way - 1))) % task.n_way
        order, *_ = fit_task(prior, task.z, y, n_way=task.n_way).suspects()
        hits.append(i in order[:2].tolist())
        first += int(order[0]) == i
        easy.append(float(judged.double().mean()) >= 0.8)
    picked = np.array(hits)[np.array(easy)]
    return {
        "tasks": len(hits),
        "tasks_with_clean_accuracy_80": len(picked),
        "in_top_2_there": round(100 * float(picked.mean()), 1) if len(picked) else None,
        "in_top_2_everywhere": round(100 * float(np.mean(hits)), 1),
        "first_everywhere": round(100 * first / len(hits), 1),
    }


def open_set_row(fitted: FittedTask, task: Task, strangers: Tensor) -> dict[str, float]:
    """Return areas under the curve and rates of one task."""
    support = task.z[None]
    mask = torch.ones(1, len(task.y), dtype=torch.bool)
    scores: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "ours": (fitted.novelty(task.query).numpy(), fitted.novelty(strangers).numpy()),
        "nearest": tuple(
            nearest_cosine(support, mask, x[None])[0].numpy() for x in (task.query, strangers)
        ),
        "max_softmax": tuple(1 - fitted.proba(x).amax(1).numpy() for x in (task.query, strangers)),
    }
    row = {}
    for name, (known, other) in scores.items():
        label = np.r_[np.zeros(len(known)), np.ones(len(other))]
        row[f"auroc_{name}"] = 100 * float(roc_auc_score(label, np.r_[known, other]))
        row[f"fpr95_{name}"] = 100 * float((other <= np.quantile(known, 0.95)).mean())
    row["accepted"] = 100 * float(fitted.accepts(task.query).double().mean())
    row["false_accepts"] = 100 * float(fitted.accepts(strangers).double().mean())
    return row


def open_set_table(rows: list[dict[str, float]]) -> dict[str, Any]:
    return {"tasks": len(rows)} | {
        name: round(float(np.mean([r[name] for r in rows])), 2) for name in rows[0]
    }


def held_out_classes(
    prior: TaskPrior, rows: Rows, n_way: int, k_shot: int, count: int
) -> dict[str, Any]:
    """Return the open-set table with strangers of classes that are not in the task."""
    classes = AuxiliaryClasses(rows.z, rows.y.numpy(), groups=rows.groups)
    found = []
    for seed in range(count):
        drawn = classes.episodes(
            n_way, k_shot, tasks=1, seed=seed, n_query=10, n_strangers=10 * n_way
        )
        if drawn is None:
            continue
        support, query = drawn.episode.support, drawn.episode.query
        task = Task(support.x[0], support.y[0], query.x[0], query.y[0], n_way)
        fitted = fit_task(prior, task.z, task.y, n_way=n_way)
        found.append(open_set_row(fitted, task, drawn.strangers[0]))
    return open_set_table(found)


def whole_test(rows: Rows, k_shot: int, draws: int) -> Iterator[Task]:
    """Yield all classes with ``k_shot`` train rows each, and the whole test split, ``draws``
    times."""
    yield from episodes(rows, rows.ways, k_shot, draws, n_query=1_000_000)


# ------------------------------------------------------------------------------------- runs


def text(
    folder: Path, count: int, draws: int, parts: set[str], priors: Path, sets: tuple[str, ...]
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in sets:
        prior = TaskPrior.load(priors / f"text-without-{name}")
        rows, strangers = rows_of(folder, name)
        table: dict[str, Any] = {}
        if "accuracy" in parts:
            for k in (1, 5, 10):
                table[f"5-way {k}-shot"] = accuracy_table(
                    prior, episodes(rows, 5, k, count), tuple(BASELINES), CANDIDATES
                )
                progress(name, f"5-way {k}-shot", table)
        if "whole" in parts:
            for k in (1, 5, 10):
                key = f"{rows.ways}-way, {k} per class, whole test split"
                table[key] = accuracy_table(
                    prior, whole_test(rows, k, draws), tuple(BASELINES), ("prototype", "ridge")
                )
                progress(name, key, table)
        table |= trusted(prior, rows, count, parts, ways=(5, 20))
        # every second class in the order of their names is what the other prior was learned from
        rest = subset(rows, (rows.y % 2 == 1).numpy())
        other = TaskPrior.load(priors / f"{name}-half")
        half = trusted(other, rest, count, parts, ways=(5, 20))
        table |= {f"{key}, prior of the other half of the classes": t for key, t in half.items()}
        if "open" in parts:
            for n, k in ((5, 1), (5, 5), (rows.ways // 2, 5)):
                key = f"open set: held-out intents, {n}-way {k}-shot"
                table[key] = held_out_classes(prior, rows, n, k, count if n == 5 else draws)
                progress(name, key, table)
            if len(strangers):
                found = []
                for task in whole_test(rows, 10, draws):
                    fitted = fit_task(prior, task.z, task.y, n_way=task.n_way)
                    found.append(open_set_row(fitted, task, strangers))
                table["open set: oos, 150-way, 10 per class"] = open_set_table(found)
                progress(name, "open set: oos, 150-way, 10 per class", table)
        out[name] = table
    return out


def image(folder: Path, count: int, draws: int, parts: set[str]) -> dict[str, Any]:
    del draws
    prior, out = TaskPrior.load(PRIORS / "image"), {}
    for name in IMAGES:
        if not (folder / f"{name}.npz").exists():
            continue
        rows, _ = rows_of(folder, name)
        table: dict[str, Any] = {}
        if "accuracy" in parts:
            for k in (1, 5):
                table[f"5-way {k}-shot"] = accuracy_table(
                    prior, episodes(rows, 5, k, count), tuple(BASELINES), CANDIDATES
                )
                progress(name, f"5-way {k}-shot", table)
        table |= trusted(prior, rows, count, parts, ways=(5,))
        if "open" in parts:
            for k in (1, 5):
                key = f"open set: held-out classes, 5-way {k}-shot"
                table[key] = held_out_classes(prior, rows, 5, k, count)
                progress(name, key, table)
        out[name] = table
    return out


def characters(
    folder: Path, count: int, draws: int, parts: set[str], photos: Path | None
) -> dict[str, Any]:
    del draws
    prior, other = TaskPrior.load(PRIORS / "characters"), TaskPrior.load(PRIORS / "image")
    out: dict[str, Any] = {}
    for name in DRAWINGS:
        rows, _ = rows_of(folder, name)
        theirs = None
        if photos is not None:
            # the same rows of the data set, in the same order: the same tasks
            mine, seen = read(folder, name), read(photos, name)
            if name in SCORED_SPLIT:
                kept = {
                    key: file["row"][file["split"].astype(str) == SCORED_SPLIT[name]]
                    for key, file in (("mine", mine), ("seen", seen))
                }
            else:
                kept = {"mine": mine["row"], "seen": seen["row"]}
            both = np.isin(kept["mine"], kept["seen"])
            rows = subset(rows, both)
            theirs, _ = rows_of(photos, name)
        table: dict[str, Any] = {}
        ways = 20 if rows.ways >= 20 else 10
        if "accuracy" in parts:
            for n, k in ((ways, 1), (ways, 5)):
                key = f"{n}-way {k}-shot"
                table[key] = accuracy_table(
                    prior, episodes(rows, n, k, count), tuple(BASELINES), ("prototype", "ridge")
                )
                if theirs is not None:
                    table[key]["efficientnet"] = accuracy_table(
                        other, episodes(theirs, n, k, count), (), ("prototype",)
                    )
                progress(name, key, table)
        if name == "omniglot":
            table |= trusted(prior, rows, count, parts, ways=(5,))
        if "open" in parts:
            for n, k in ((5, 1), (5, 5)):
                key = f"open set: held-out characters, {n}-way {k}-shot"
                table[key] = held_out_classes(prior, rows, n, k, count)
                progress(name, key, table)
        out[name] = table
    return out


def subset(rows: Rows, keep: np.ndarray) -> Rows:
    """Return some of the rows, the classes that are left numbered anew."""
    groups = None if rows.groups is None else rows.groups[keep]
    _, y = torch.unique(rows.y[keep], return_inverse=True)
    return Rows(rows.name, rows.z[keep], y, rows.train[keep], rows.test[keep], groups)


def trusted(
    prior: TaskPrior, rows: Rows, count: int, parts: set[str], *, ways: tuple[int, ...]
) -> dict[str, Any]:
    """Return calibration, sets, estimates and suspects."""
    table: dict[str, Any] = {}
    if "trust" in parts:
        for n in ways:
            for k in (1, 5, 10):
                found = Trust.new()
                for task in episodes(rows, n, k, count if n == 5 else count // 4):
                    found.add(fit_task(prior, task.z, task.y, n_way=n), task)
                table[f"trust: {n}-way {k}-shot"] = found.table()
                progress(rows.name, f"trust: {n}-way {k}-shot", table)
    if "suspects" in parts:
        table["suspects: 5-way 5-shot"] = suspects_table(prior, episodes(rows, 5, 5, count))
        progress(rows.name, "suspects: 5-way 5-shot", table)
    return table


def about(prior: TaskPrior) -> dict[str, Any]:
    """Return what a prior says of itself."""
    settings = prior.metric.settings
    return {
        "power": settings.power,
        "shrinkage": settings.shrinkage,
        "centre_prior": prior.centre_prior,
        **prior.about,
    }


def progress(name: str, key: str, table: dict[str, Any]) -> None:
    print(name, key, json.dumps(table[key]), file=sys.stderr, flush=True)


def main() -> None:
    """Score, print, write."""
    every = ("accuracy", "whole", "trust", "suspects", "open")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("text", "image", "characters"))
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--priors", type=Path, default=PRIORS)
    parser.add_argument("--sets", nargs="+", choices=TEXTS, default=TEXTS, help="of texts")
    parser.add_argument("--photos", type=Path, default=None)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--draws", type=int, default=5, help="supports for whole test splits")
    parser.add_argument("--parts", nargs="+", default=list(every), choices=every)
    parser.add_argument("--results", type=Path, default=None)
    given = parser.parse_args()
    begun, made = time.monotonic(), provenance(seeds=[0])  # of the code that is loaded now
    warnings.filterwarnings("ignore", message="The number of unique classes")
    run = {
        "text": partial(text, priors=given.priors, sets=tuple(given.sets)),
        "image": image,
        "characters": partial(characters, photos=given.photos),
    }
    scores = run[given.kind](given.embeddings, given.episodes, given.draws, set(given.parts))
    used = {
        "text": [p for n in given.sets for p in (f"text-without-{n}", f"{n}-half")],
        "image": ["image"],
        "characters": ["characters", "image"],
    }[given.kind]
    folder = given.priors if given.kind == "text" else PRIORS
    part = "" if tuple(given.sets) == TEXTS or given.kind != "text" else "-" + "-".join(given.sets)
    document = {
        "name": f"estimators-{given.kind}{part}",
        **made,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "priors": {name: about(TaskPrior.load(folder / name)) for name in used},
        "scores": scores,
        "notes": [NOTE] if given.kind == "text" else [],
    }
    write_result(f"estimators-{given.kind}{part}", document, given.results)


if __name__ == "__main__":
    main()

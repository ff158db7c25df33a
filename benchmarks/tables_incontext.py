"""Score the in-context classifier on real tables, against scikit-learn on the same rows.

    python benchmarks/tables_incontext.py --tables tuning --episodes 2   (needs QUICKSTUDY_DATA)
    python benchmarks/tables_incontext.py --tables others --episodes 20

5, 10 and 50 rows per class, of a class with fewer than twice as many half of its rows; at most 300
queries of the other rows, as they come. Ten tables, named below, are for choosing settings; the 35
others are for the result. Other methods get standardised columns, a column for each category; no
table has missing values. ``vote`` is the mean of the probabilities of logistic regression, extra
trees and ours. Writes docs/results/tables-incontext-TABLES.json.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from machine import provenance, write_result
from quickstudy.estimators import TabularInContextClassifier
from tables import drawn, read, task_of

SHOTS = (5, 10, 50)
MOST_QUERIES = 300
TUNING = (
    "australian",
    "breast_cancer",
    "car",
    "cmc",
    "german",
    "ionosphere",
    "page_blocks",
    "segmentation",
    "vehicle",
    "wine_quality_white",
)
Array = npt.NDArray[Any]

FEW: dict[str, Callable[[], Any]] = {
    "extra trees": lambda: ExtraTreesClassifier(random_state=0),
    "logistic regression": lambda: LogisticRegression(max_iter=300),
    "shrinkage LDA": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    "random forest": lambda: RandomForestClassifier(random_state=0),
}
MORE: dict[str, Callable[[], Any]] = {
    "SVM": lambda: SVC(probability=True, random_state=0),
    "naive Bayes": lambda: GaussianNB(var_smoothing=1e-2),
    "histogram boosting": lambda: HistGradientBoostingClassifier(random_state=0),
    "kNN": lambda: KNeighborsClassifier(3),
}


def probabilities(
    columns: list[Array],
    y: Array,
    support: Array,
    rng: np.random.Generator,
    methods: dict[str, Callable[[], Any]],
    members: int,
) -> tuple[dict[str, Array], Array, float]:
    """Return the probabilities of each method ``[Q, C]``, the answers and the seconds of ours."""
    classes = np.unique(y[support])
    others = rng.permutation(np.setdiff1d(np.arange(len(y)), support))
    queries = others[np.isin(y[others], classes)][:MOST_QUERIES]

    def rows(which: Array) -> list[list[Any]]:
        return [[column[row] for column in columns] for row in which]

    start = time.process_time()
    settings = {"many_columns": "sample", "many_rows": "sample", "many_classes": "hierarchy"}
    ours = TabularInContextClassifier(members=members, **settings)
    found = {
        "in-context": ours.fit(rows(support), y[support].tolist()).predict_proba(rows(queries))
    }
    seconds = time.process_time() - start
    task = task_of(columns, y, support, np.random.default_rng(0), queries=queries)
    for name, make in methods.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = make().fit(task.z, task.y).predict_proba(task.queries)
    linear, trees = found["logistic regression"], found["extra trees"]
    found["vote LR + ET"] = (linear + trees) / 2
    four = [*FEW]
    found["vote LR + LDA + ET + RF"] = np.mean([found[name] for name in four], axis=0)
    found["vote LR + ET + ours"] = (linear + trees + found["in-context"]) / 3
    found["vote of four + ours"] = np.mean([found[name] for name in [*four, "in-context"]], axis=0)
    return found, task.answers, seconds


def calibration_error(p: Array, answers: Array, bins: int = 10) -> float:
    """Return the mean distance of confidence and accuracy in ten bins of one size."""
    order = p.max(1).argsort()
    parts = np.array_split(order, bins)
    right = p.argmax(1) == answers
    return float(
        sum(len(b) * abs(p.max(1)[b].mean() - right[b].mean()) for b in parts if len(b)) / len(p)
    )


def summary(found: dict[str, dict[str, list[list[float]]]]) -> dict[str, Any]:
    """Return by method the means over tables and the mean rank of the accuracy."""
    methods = list(next(iter(found.values())))
    means = {t: {m: np.mean(rows, 0) for m, rows in one.items()} for t, one in found.items()}
    single = [m for m in methods if not m.startswith("vote of four + ours")]
    ranks = np.mean([rankdata([-one[m][0] for m in single]) for one in means.values()], axis=0)
    return {
        m: {
            "accuracy": round(100 * float(np.mean([one[m][0] for one in means.values()])), 2),
            "log_loss": round(float(np.mean([one[m][1] for one in means.values()])), 4),
            "calibration_error": round(float(np.mean([one[m][2] for one in means.values()])), 4),
            **({"mean_rank": round(float(ranks[single.index(m)]), 2)} if m in single else {}),
        }
        for m in methods
    }


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", choices=("tuning", "others"), default="tuning")
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--shots", type=int, nargs="*", default=SHOTS)
    parser.add_argument("--all-methods", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ["QUICKSTUDY_DATA"]) / "tabular"
    names = [p.stem for p in sorted(folder.glob("*.parquet"))]
    names = [n for n in names if (n in TUNING) == (given.tables == "tuning")]
    methods = {**FEW, **(MORE if given.all_methods else {})}
    document: dict[str, Any] = {"name": f"tables-incontext-{given.tables}"}
    document |= provenance(seeds=list(range(given.episodes)))
    document |= {"tables": names, "episodes_of_a_table": given.episodes}
    for shots in given.shots:
        found: dict[str, dict[str, list[list[float]]]] = {}
        slowest = 0.0
        for number, name in enumerate(names):
            columns, y = read(folder / f"{name}.parquet")
            for seed in range(given.episodes):
                rng = np.random.default_rng([seed, shots, number, 19])
                support = drawn(y, shots, rng, natural=False)
                p, answers, seconds = probabilities(
                    columns, y, support, rng, methods, given.members
                )
                slowest = max(slowest, seconds)
                for method, q in p.items():
                    own = np.clip(q[np.arange(len(q)), answers], 1e-3, 1)
                    row = [
                        float((q.argmax(1) == answers).mean()),
                        float(-np.log(own).mean()),
                        calibration_error(q, answers),
                    ]
                    found.setdefault(name, {}).setdefault(method, []).append(row)
        document[str(shots)] = {
            "methods": summary(found),
            "slowest_seconds": round(slowest, 2),
            "accuracy_by_table": {
                n: {m: round(100 * float(np.mean(r, 0)[0]), 2) for m, r in one.items()}
                for n, one in found.items()
            },
        }
        print(shots, document[str(shots)]["methods"], flush=True)
    write_result(f"tables-incontext-{given.tables}", document, given.out)


if __name__ == "__main__":
    main()

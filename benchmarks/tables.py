"""Score heads for columns on real tables, against scikit-learn on the same columns.

    python benchmarks/tables.py --episodes 4          (needs QUICKSTUDY_DATA)

Every table of QUICKSTUDY_DATA/tabular, at 5, 10, 20 and 50 rows per class; of a class with fewer
than twice as many, half of its rows. Queries are at most 500 of the other rows, as they come: each
class as frequent as it is in the table. Columns are standardised on the support, categories become
columns of their own; ``auto`` and scikit-learn's LogisticRegression, RandomForestClassifier and
ExtraTreesClassifier, all with their defaults, get the same numbers and the same rows. The tables
once more with their first one and two columns alone, once more with as many rows that are drawn
whatever their class is, and made-up classes on a line: classes at 0, 5, 10, ... with deviation 1.

How the vote is weighted was chosen on every other table by name, and is reported for both halves.
Writes docs/results/tables.json.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from machine import provenance, write_result
from quickstudy.embedders.choose import get_embedder
from quickstudy.fitting import TaskPrior, fit_task

SHOTS = (5, 10, 20, 50)
MOST_QUERIES = 500
PARTS = {"all": None, "first column": 1, "first two columns": 2}
Array = npt.NDArray[Any]

BASELINES: dict[str, Callable[[int], Any]] = {
    "logistic regression": lambda seed: LogisticRegression(random_state=seed),
    "random forest": lambda seed: RandomForestClassifier(random_state=seed),
    "extra trees": lambda seed: ExtraTreesClassifier(random_state=seed),
}


@dataclass(frozen=True)
class Task:
    """A table's rows as columns of numbers: support and queries."""

    z: Array
    y: Array
    queries: Array
    answers: Array


def read(path: Path) -> tuple[list[Array], Array]:
    """Return the columns, categories as texts, and the class of each row."""
    table = pq.read_table(path)
    _, y = np.unique(table["target"].to_numpy(), return_inverse=True)
    columns = []
    for name in table.column_names:
        cells = table[name].to_numpy()
        if name.startswith("cat"):
            columns.append(np.array([f"c{cell:g}" for cell in cells], dtype=object))
        elif name != "target":
            columns.append(cells.astype(float))
    return columns, y


def drawn(y: Array, shots: int, rng: np.random.Generator, *, natural: bool) -> Array:
    """Return the rows of a support: by class, or as many whatever their class is."""
    by_class = [rng.permutation(np.flatnonzero(y == c)) for c in np.unique(y)]
    rows = np.concatenate([found[: min(shots, len(found) // 2)] for found in by_class])
    return rng.permutation(len(y))[: len(rows)] if natural else rows


def task_of(
    columns: list[Array],
    y: Array,
    support: Array,
    rng: np.random.Generator,
    *,
    queries: Array | None = None,
) -> Task:
    """Return the task of some rows: others of the same classes are queries."""
    classes = np.unique(y[support])
    if queries is None:
        others = np.setdiff1d(np.arange(len(y)), support)
        queries = rng.permutation(others[np.isin(y[others], classes)])[:MOST_QUERIES]
    embedder = get_embedder("table")

    def items(rows: Array) -> Any:
        return embedder.read([[column[row] for column in columns] for row in rows])

    known = items(support)
    embedder = embedder.fit(known)
    return Task(
        embedder.embed(known),
        np.searchsorted(classes, y[support]),
        embedder.embed(items(queries)),
        np.searchsorted(classes, y[queries]),
    )


def scores(task: Task, seed: int) -> dict[str, float]:
    """Return the accuracy of each method, and the seconds that ours took."""
    n_way = int(task.y.max()) + 1
    z, y = torch.from_numpy(task.z), torch.from_numpy(task.y)
    start = time.process_time()
    fitted = fit_task(TaskPrior.for_columns(z.shape[1]), z, y, n_way=n_way)
    seconds = time.process_time() - start
    found = {"auto": fitted.scores(torch.from_numpy(task.queries)).argmax(1).numpy()}
    for name, make in BASELINES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found[name] = make(seed).fit(task.z, task.y).predict(task.queries)
    return {n: float((p == task.answers).mean()) for n, p in found.items()} | {"seconds": seconds}


def tables(folder: Path, count: int, *, width: int | None, natural: bool) -> dict[str, Any]:
    """Return the accuracies of each method by table and shots ``[episodes]``."""
    found: dict[str, Any] = {}
    for number, path in enumerate(sorted(folder.glob("*.parquet"))):
        columns, y = read(path)
        for shots in SHOTS:
            one: dict[str, list[float]] = {}
            for seed in range(count):
                rng = np.random.default_rng([seed, shots, number])
                support = drawn(y, shots, rng, natural=natural)
                if len(np.unique(y[support])) < 2:
                    continue
                for name, value in scores(task_of(columns[:width], y, support, rng), seed).items():
                    one.setdefault(name, []).append(value)
            found.setdefault(path.stem, {})[shots] = one
    return found


def summary(found: dict[str, Any], names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield for each number of shots the means over tables, in per cent, and the worst tables."""
    for shots in SHOTS:
        # a few rows drawn whatever their class may all be of one class: such a table has no task
        drawn_ones = [name for name in names if found[name][shots]]
        cells = {n: {m: 100 * np.mean(v) for m, v in found[n][shots].items()} for n in drawn_ones}
        means = {m: np.mean([cell[m] for cell in cells.values()]) for m in ("auto", *BASELINES)}
        behind = {}
        for name, cell in cells.items():
            best = max(BASELINES, key=lambda method: cell[method])
            runs = found[name][shots]
            pairs = 100 * (np.array(runs["auto"]) - np.array(runs[best]))
            error = pairs.std(ddof=1) / len(pairs) ** 0.5 if len(pairs) > 1 else np.nan
            behind[name] = (float(pairs.mean()), best, float(error))
        worst = sorted(behind.items(), key=lambda pair: pair[1][0])[:5]
        yield {
            "shots": shots,
            "tables": len(drawn_ones),
            "means": {m: round(float(v), 2) for m, v in means.items()},
            "below_the_best_by_more_than_2": sum(v[0] < -2 for v in behind.values()),
            "and_by_two_standard_errors": sum(
                v[0] + 2 * v[2] < -2 for v in behind.values() if np.isfinite(v[2])
            ),
            "worst": [
                {"table": n, "points": round(v[0], 1), "best": v[1], "error": round(v[2], 1)}
                for n, v in worst
            ],
            "seconds": round(max(max(found[n][shots]["seconds"]) for n in drawn_ones), 2),
        }


def on_a_line(count: int) -> list[dict[str, Any]]:
    """Return the accuracies on classes on a line, 5 deviations apart, in per cent."""
    found = []
    for classes in (3, 5):
        for shots in (1, 2, 5, 10, 20):
            runs: dict[str, list[float]] = {}
            for seed in range(count):
                rng = np.random.default_rng([seed, shots, classes])
                y = np.repeat(np.arange(classes), shots + 100)
                x = 5.0 * y + rng.normal(size=len(y))
                support = np.concatenate([np.flatnonzero(y == c)[:shots] for c in range(classes)])
                for name, value in scores(task_of([x], y, support, rng), seed).items():
                    runs.setdefault(name, []).append(value)
            means = {
                m: round(100 * float(np.mean(v)), 2) for m, v in runs.items() if m != "seconds"
            }
            found.append({"classes": classes, "shots": shots, "means": means})
    return found


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--episodes", type=int, default=4, help="of each table and size; half as many of a part"
    )
    parser.add_argument("--name", default="tables", help="of the result")
    parser.add_argument("--parts", nargs="*", default=[*PARTS, "as they come", "line"])
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ["QUICKSTUDY_DATA"]) / "tabular"
    names = sorted(path.stem for path in folder.glob("*.parquet"))
    halves = {"all": names, "chosen on": names[::2], "others": names[1::2]}
    document: dict[str, Any] = {}
    seeds = list(range(given.episodes))
    made = provenance(seeds=seeds)  # of the commit that runs

    def write() -> None:
        """Write what is there: an hour's work is not lost with the last part."""
        now = {"finished": provenance(seeds=seeds)["finished"]}
        write_result(given.name, {"name": given.name, **made, **now, **document}, given.out)

    for part in given.parts:
        if part == "line":
            document[part] = on_a_line(given.episodes * 10)
            write()
            continue
        natural = part == "as they come"
        count = given.episodes if part == "all" else max(1, given.episodes // 2)
        found = tables(folder, count, width=PARTS.get(part), natural=natural)
        document[part] = {half: list(summary(found, kept)) for half, kept in halves.items()}
        for one in document[part]["all"]:
            print(part, one["shots"], one["means"], one["worst"][0], one["seconds"], flush=True)
        write()


if __name__ == "__main__":
    main()

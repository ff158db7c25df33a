"""Score the estimator beside logistic regression on raw, unit and standardised embeddings.

    python benchmarks/lengths.py --embeddings EMB --priors PRIORS

reads EMB/ENCODER/NAME.npz (benchmarks/embed.py) and PRIORS/ENCODER-without-KIND
(benchmarks/learn_priors.py --without), and writes docs/results/lengths.json: for each data set the
accuracy of 5-way tasks of scikit-learn's LogisticRegression on embeddings as they come, of length 1
and standardised on the support, and of ``fit_task`` without a prior and with one that never saw
such data. Where there are test splits they are scored.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from honesty import SCORED
from learn_priors import SOURCES, read, rows_of
from machine import provenance, write_result
from quickstudy.evaluation.statistics import mean_interval
from quickstudy.fitting.draws import AuxiliaryClasses
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import fit_task

WAYS, SEED = 5, 21
Array = npt.NDArray[Any]


def answers(prior: TaskPrior, x: torch.Tensor, y: torch.Tensor, q: torch.Tensor) -> dict[str, Any]:
    """Return by method what is answered to the queries of one task."""
    mean, deviation = x.mean(0), x.std(0, correction=0) + 1e-6
    shown = {
        "raw": (x, q, 1.0),
        "raw, C=10": (x, q, 10.0),
        # scaled to the length that embeddings have in the heads, where C=1 would be a strong pull
        "unit, C=10": (F.normalize(x, dim=1), F.normalize(q, dim=1), 10.0),
        "standardised": ((x - mean) / deviation, (q - mean) / deviation, 1.0),
    }
    found: dict[str, Any] = {}
    for name, (support, query, strength) in shown.items():
        model = LogisticRegression(C=strength, max_iter=1000).fit(support.numpy(), y.numpy())
        found[f"logistic regression, {name}"] = model.predict(query.numpy())
    for name, used in (("no prior", TaskPrior.plain(x.shape[1])), ("prior", prior)):
        task = fit_task(used, x, y, n_way=WAYS)
        found[f"auto, {name}"] = task.logits(q).argmax(1).numpy()
    return found


def score(prior: TaskPrior, classes: AuxiliaryClasses, shots: int, tasks: int) -> dict[str, Any]:
    """Return by method the accuracy and its interval; none where classes are too few or small."""
    drawn = classes.episodes(WAYS, shots, tasks=tasks, seed=SEED, n_query=10, n_strangers=0)
    if drawn is None:
        return {}
    right: dict[str, list[float]] = {}
    support, query = drawn.episode.support, drawn.episode.query
    for t in range(tasks):
        for name, said in answers(prior, support.x[t], support.y[t], query.x[t]).items():
            right.setdefault(name, []).append(float(np.mean(said == query.y[t].numpy())))
    found: dict[str, Any] = {}
    for name, values in right.items():
        scores = np.array(values)
        found[name] = {
            "mean": round(float(scores.mean()), 4),
            "ci95": round(mean_interval(scores), 4),
        }
    return found


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--priors", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for encoder, kinds in SOURCES.items():
        for kind, sets in kinds.items():
            prior = TaskPrior.load(given.priors / f"{encoder}-without-{kind}")
            for name in sets:
                data = read(given.embeddings / encoder, name)
                z, label, _, groups = rows_of(data, encoder, name, SCORED.get(name))
                classes = AuxiliaryClasses(z, label, groups=groups)
                for shots in (1, 5, 10):
                    found = score(prior, classes, shots, given.tasks)
                    if found:
                        facts = {"encoder": encoder, "set": name, "shots": shots}
                        rows.append(facts | {"accuracy": found})
                print(encoder, name, flush=True)
    made = provenance(seeds=[SEED], shown={given.embeddings: "EMB", given.priors: "PRIORS"})
    write_result("lengths", {"name": "lengths", **made, "tasks": given.tasks, "rows": rows})


if __name__ == "__main__":
    main()

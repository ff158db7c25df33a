"""Score the in-context head on kinds of data that neither it nor its prior was trained on.

    python benchmarks/incontext_heads.py image --embeddings EMB --priors PRIORS --heads HEADS

reads EMB/NAME.npz (benchmarks/embed.py --small), PRIORS/ENCODER-without-KIND
(benchmarks/learn_priors.py --without) and HEADS/ENCODER-without-KIND.safetensors
(benchmarks/learn_incontext.py --without), and writes docs/results/incontext-heads-ENCODER.json:
for each data set and number of shots the accuracy of 5-way tasks with the nearest class mean
(``prototype``), with ``auto`` and with ``incontext``, the paired differences with 95 % intervals
over tasks, and the calibration errors. The classes are the test classes of benchmarks/honesty.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from honesty import Scored, scored
from learn_priors import SOURCES
from machine import provenance, write_result
from quickstudy.core import Examples
from quickstudy.evaluation.statistics import CalibrationCounts
from quickstudy.fitting.incontext import load_incontext
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import fit_task
from quickstudy.learners.heads import CentredHead, InContextHead

SETS = {"image": ("cifar_fs", "gtsrb", "dtd10", "quickdraw")}
HEADS = ("prototype", "auto", "incontext")


def answered(
    prior: TaskPrior, head: InContextHead, data: Scored, k_shot: int, tasks: int
) -> dict[str, dict[str, list[float] | CalibrationCounts]]:
    """Return the accuracy of each task by head, and the counts of its calibration."""
    found: dict[str, Any] = {n: {"right": [], "sure": CalibrationCounts()} for n in HEADS}
    made = CentredHead(head, prior=prior.centre_prior).eval()
    for task in data.tasks(5, k_shot, tasks):
        p: dict[str, Tensor] = {
            name: fit_task(prior, task.z, task.y, n_way=5, head=name).proba(task.query)
            for name in HEADS[:2]
        }
        with torch.no_grad():
            support = Examples.full(prior.transform(task.z)[None], task.y[None])
            state = made.adapt(support, n_way=5)
            p["incontext"] = made.predict(state, prior.transform(task.query)[None])[0].softmax(1)
        for name, of_head in p.items():
            right = of_head.argmax(1) == task.answer
            found[name]["right"].append(float(right.double().mean()))
            found[name]["sure"].add(of_head.amax(1).numpy(), right.numpy())
    return found


def compared(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Return the mean difference of tasks in points, and its 95 % half width."""
    gap = 100 * (ours - theirs)
    return {
        "difference": round(float(gap.mean()), 3),
        "ci95": round(float(1.96 * gap.std(ddof=1) / len(gap) ** 0.5), 3),
    }


def row(found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what is written of one data set and number of shots, and the scores by head."""
    right = {name: np.array(of_head["right"]) for name, of_head in found.items()}
    facts: dict[str, Any] = {"tasks": len(right["auto"])}
    for name, values in right.items():
        facts[name] = round(100 * float(values.mean()), 2)
        facts[f"{name}_calibration_error"] = round(found[name]["sure"].error(), 4)
    for other in HEADS[:2]:
        facts[f"over_{other}"] = compared(right["incontext"], right[other])
    return facts, right


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", choices=sorted(SETS))
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--priors", type=Path, required=True)
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--results", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows, trained, everything = [], {}, {}
    for name in SETS[given.encoder]:
        kind = next(k for k, sets in SOURCES[given.encoder].items() if name in sets)
        prior = TaskPrior.load(given.priors / f"{given.encoder}-without-{kind}")
        path = given.heads / f"{given.encoder}-without-{kind}.safetensors"
        head, trained[kind] = load_incontext(path)
        data = scored(given.embeddings, given.encoder, kind, name)
        for k_shot in (1, 5):
            begun = time.monotonic()
            facts, right = row(answered(prior, head, data, k_shot, given.tasks))
            rows.append({"set": name, "kind": kind, "shots": k_shot} | facts)
            everything[name, k_shot] = right
            print(rows[-1], f"{time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    for k_shot in (1, 5):
        # sets of tasks are independent: task i of every set makes one row of the mean
        of_shots = [v for (_, k), v in everything.items() if k == k_shot]
        means = {n: np.mean([v[n] for v in of_shots], 0) for n in HEADS}
        facts = {n: round(100 * float(v.mean()), 2) for n, v in means.items()}
        for other in HEADS[:2]:
            facts[f"over_{other}"] = compared(means["incontext"], means[other])
        rows.append({"set": "mean", "shots": k_shot} | facts)
    shown = {given.embeddings: "EMB", given.priors: "PRIORS", given.heads: "HEADS"}
    document = {
        "name": f"incontext-heads-{given.encoder}",
        **provenance(seeds=[11], shown=shown),
        "n_way": 5,
        "heads": trained,
        "rows": rows,
    }
    write_result(document["name"], document, given.results)


if __name__ == "__main__":
    main()

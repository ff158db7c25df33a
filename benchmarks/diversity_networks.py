"""One network for several domains, or one for each? On classes that none of them has seen.

    python benchmarks/diversity_networks.py SEVERAL OWN ...          (needs QUICKSTUDY_DATA)

SEVERAL is a run of ``several-protonet``, the others runs of the same network on one of its data
sets each, with as many steps of it. ``quickstudy compare`` scores all of them, and other heads on
SEVERAL's features, on each data set and on ``--novel``; docs/results/diversity-networks.json gets
the accuracies, and what each gains over SEVERAL on the same tasks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from machine import compare, provenance, write_result
from quickstudy.runs.folder import read_recipe


def main() -> None:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("several", type=Path)
    parser.add_argument("own", nargs="+", type=Path)
    parser.add_argument("--novel", nargs="*", default=["quickdraw"])
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("compared"))
    given = parser.parse_args()
    runs = [given.several, *given.own]
    words = [*map(str, runs), "--no-trained"]
    for name in [part.name for part in read_recipe(given.several).data.parts] + given.novel:
        words += ["--data", name]
    for name in ("logistic", "fine-tuned"):
        words += ["--baseline", name]
    words += ["--k-shot", "1", "--k-shot", "5", "--episodes", str(given.episodes)]
    start = time.perf_counter()
    document = compare(words, given.out / "networks")
    made = provenance(
        seeds=[0], shown={f"{given.several.parent}/": "runs/", f" --out {given.out}": ""}
    )
    scores = {
        "runs": {run.name: trained_with(run) for run in runs},
        "rows": rows(document, given.several.name),
        "seconds": round(time.perf_counter() - start, 1),
    }
    write_result("diversity-networks", {"name": "diversity-networks", **made, "scores": scores})


def trained_with(run: Path) -> str:
    """Return what a run was trained with, in words."""
    recipe = read_recipe(run)
    return (
        f"{recipe.data.names}, {recipe.train.steps:,} steps, {recipe.encoder.norm} norm, "
        f"{recipe.train.precision}, seed {recipe.train.seed}"
    )


def rows(document: dict[str, Any], several: str) -> list[dict[str, Any]]:
    """Return each accuracy, and what it gains over the shared network on the same tasks."""
    gains: dict[tuple[str, str], dict[str, Any]] = {}
    for pair in document["paired"]:
        if several in (pair["first"], pair["second"]):
            mine = pair["second"] == several
            other = pair["first"] if mine else pair["second"]
            gain = pair["mean"] if mine else -pair["mean"]
            gains[pair["tasks"], other] = {
                "gain": gain,
                "ci95": pair["ci95"],
                "p_holm": pair["p_holm"],
            }
    return [
        {
            "tasks": r["tasks"],
            "role": r["role"],
            "learner": r["learner"],
            "mean": r["accuracy"]["mean"],
            "ci95": r["accuracy"]["ci95"],
            "over_shared": gains.get((r["tasks"], r["learner"])),
        }
        for r in document["results"]
    ]


if __name__ == "__main__":
    main()

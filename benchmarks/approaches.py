"""Compare every learner that was trained, on Omniglot and across domains.

    python benchmarks/approaches.py RUN ...          (needs QUICKSTUDY_DATA)

writes docs/results/approaches.md (Omniglot and QuickDraw, 5-way, 1 and 5 shots) and
docs/results/cross-domain.md (every domain, 5 to 20 ways, 1 to 10 shots), both made by ``quickstudy
compare``, and beside each a JSON file with commit, machine and seeds. Finished cells are kept in
``--out`` and not computed again. ``--speed`` times 10,000 episodes with six learners instead.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from machine import ROOT, compare, provenance, write_result
from quickstudy.runs.folder import read_recipe

RESULTS = ROOT / "docs" / "results"


def publish(name: str, document: dict[str, Any], out: Path, runs: list[Path]) -> None:
    """Write the Markdown page and the JSON file."""
    made = provenance(seeds=[0], shown={runs[0].parent: "runs", out.parent: "compared"})
    text = (out / "comparison.md").read_text(encoding="utf-8")
    # where the runs lay is nobody's business: their names are
    for run in runs:
        text = text.replace(str(run), f"runs/{run.name}")
    text = text.replace(str(out), "compared")
    trained = "\n".join(f"* `{run.name}`: {described(run)}" for run in runs)
    machine = made["machine"]
    text += (
        f"\n## The runs\n\n{trained}\n\nCommit {made['commit'][:12]}, {machine['processor']}, "
        f"{machine['cores']} cores, {made['finished'][:10]}; made by `benchmarks/approaches.py`.\n"
    )
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    kept = {key: document[key] for key in ("approaches", "over_seeds", "seconds")}
    kept["results"] = [
        {"learner": r["learner"], "tasks": r["tasks"], "role": r["role"], **r["accuracy"]}
        for r in document["results"]
    ]
    write_result(name, {"name": name, **made, "scores": kept})
    shutil.copy(out / "comparison.html", out.parent / f"{name}.html")


def described(run: Path) -> str:
    """Return what a run was trained with, in words."""
    recipe = read_recipe(run)
    data = " and ".join(
        part.name + (f" (split {part.split_file})" if part.split_file else "")
        for part in recipe.data.parts
    )
    start = f", from {recipe.start}" if recipe.start else ""
    train = recipe.train
    return (
        f"recipe {recipe.name}, {data}{start}, {train.steps:,} steps of "
        f"{train.tasks_per_step} tasks, {train.n_way}-way {train.k_shot}-shot, seed {train.seed}, "
        f"{train.precision}"
    )


def main() -> None:
    """Compare and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("compared"))
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--domain-episodes", type=int, default=200)
    parser.add_argument("--page", choices=("approaches", "cross-domain"), help="one of them only")
    parser.add_argument("--speed", action="store_true")
    given = parser.parse_args()
    if given.speed:
        speed(given.runs, given.out / "speed")
        return
    common = ["--data", "omniglot", "--data", "quickdraw", "--k-shot", "1", "--k-shot", "5"]
    pages = {
        "approaches": [*common, "--episodes", str(given.episodes)],
        "cross-domain": ["--domains", "--episodes", str(given.domain_episodes)],
    }
    for page, options in pages.items():
        if given.page in (None, page):
            document = compare([*given.runs, *options], given.out / page)
            publish(page, document, given.out / page, given.runs)


def speed(runs: list[Path], out: Path) -> None:
    """Time 10,000 episodes of Omniglot with six learners, from nothing."""
    shutil.rmtree(out, ignore_errors=True)
    options = ["--data", "omniglot", "--no-trained", "--episodes", "10000"]
    for name in ("pixels", "neighbour", "logistic", "fine-tuned")[: 6 - len(runs)]:
        options += ["--baseline", name]
    start = time.perf_counter()
    document = compare([*runs, *options], out)
    seconds = time.perf_counter() - start
    each = {r["learner"]: r["seconds"] for r in document["results"]}
    made = provenance(seeds=[0], shown={runs[0].parent: "runs", f" --out {out.parent}": ""})
    write_result(
        "compare-speed",
        {
            "name": "compare-speed",
            **made,
            "scores": {
                "episodes": 10_000,
                "learners": len(each),
                "tasks": document["results"][0]["tasks"],
                "seconds": round(seconds, 1),
                "seconds_of_each": each,
            },
        },
    )


if __name__ == "__main__":
    main()

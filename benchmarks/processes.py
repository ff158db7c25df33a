"""Neural processes: squared error, likelihood and intervals beside MAML and the exact posterior.

python benchmarks/processes.py --runs runs        (40 minutes on one core, needs no data)

trains `sinusoid-cnp`, `sinusoid-anp`, `gp-anp` and `sinusoid-maml` for 5 and 10 shots into the
folder of runs, unless their runs are there, scores them on 600 test tasks, writes
docs/results/processes.json and draws docs/images/processes.svg. On functions of Gaussian processes
the exact posterior, which knows the kernel of each task, is the bound: no learner can do better.
With --published-maml MAML is not trained: its squared error on more of these tasks is taken from
docs/results/sinusoid.json, which has no likelihood.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from machine import ROOT, provenance, write_result
from quickstudy.core import EpisodeSpec
from quickstudy.evaluation import Likelihood, Mean, Report, compare, evaluate
from quickstudy.evaluation.functions import function_chart
from quickstudy.evaluation.likelihood import scores_of
from quickstudy.learners import Gaussian
from quickstudy.learners.base import Learner
from quickstudy.pages.curves import standalone
from quickstudy.recipes import get_recipe
from quickstudy.runs import load_run, train_recipe
from quickstudy.tasks import GaussianProcessSource, SinusoidSource

SHOTS, EPISODES, QUERIES = (1, 3, 5, 10), 600, 100
MAML_SHOTS = (5, 10)
GP_SHOTS = (3, 10, 20)


def trained(recipe: str, out: Path, *settings: str) -> tuple[Learner, dict[str, Any]]:
    """Return the learner of a run, and steps and time; it is trained if it is not there yet.

    A run that is there may be shorter than the recipe has it: both numbers of steps are told.
    """
    if not (out / "model.safetensors").exists():
        begun = (out / "recipe.json").exists()
        train_recipe(recipe, settings, out=out, resume=begun, progress=True)
    run = load_run(out)
    steps = {"kept_step": run.meta["step"], "recipe_steps": get_recipe(recipe).train.steps}
    return run.learner, {"recipe": recipe} | steps | run.meta["training"]


def scored(learner: Learner, source: Any, shots: int, n: int) -> Report:
    """Return squared error, likelihood and coverage on the first test tasks."""
    report = evaluate(learner, source, EpisodeSpec(1, shots, QUERIES), episodes=n)
    print(f"{source.name}, {shots} shots: {report}", file=sys.stderr)
    return report


def numbers(report: Report) -> dict[str, Any]:
    """Return what stands in the result of a report."""
    document = report.to_dict()
    names = ("mse", "nll", "coverage90", "deviation")
    return {name: document[name] for name in names if name in document}


def exact(source: GaussianProcessSource, shots: int, n: int) -> dict[str, Any]:
    """Return the same numbers of the exact posterior."""
    tasks = source.episodes(EpisodeSpec(1, shots, QUERIES), range(n), seed=0)
    mean, deviation = source.posterior(tasks)
    error = (mean - tasks.query.y).square().mean(1).numpy()
    likelihood = Likelihood(*scores_of(Gaussian(mean, deviation), tasks.query), estimated=False)
    return {"mse": Mean.of(error, over="episodes").to_dict()} | likelihood.to_dict()


def published_maml(shots: int) -> dict[str, Any]:
    """Return what docs/results/sinusoid.json says of MAML after ten steps, on more tasks."""
    path = ROOT / "docs" / "results" / "sinusoid.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["mean_squared_error"]
    row = next(r for r in rows if (r["k_shot"], r["inner_steps"]) == (shots, 10))
    # these are the first of its tasks
    return {"mse": row["maml"], "episodes": row["episodes"], "from": "sinusoid.json"}


def draw(learners: dict[str, Learner], path: Path) -> None:
    """Draw one sine wave and two functions from 3, 5 and 10 points."""
    waves, functions = SinusoidSource("test"), GaussianProcessSource("test")
    # the first waves of some size; any function
    sizes = waves.episodes(EpisodeSpec(1, 1, 1), range(50), seed=0).info["amplitude"]
    wave = next(t for t in range(50) if float(sizes[t]) > 3)
    charts = []
    for title, name, source, task in (
        ("conditional neural process, sine wave", "sinusoid-cnp", waves, wave),
        ("attentive neural process, sine wave", "sinusoid-anp", waves, wave),
        ("attentive neural process, function", "gp-anp", functions, 1),
    ):
        for shots in (3, 10):
            chart = function_chart(
                learners[name], source, EpisodeSpec(1, shots, QUERIES), task_id=task, seed=0
            )
            charts.append((f"{title}, {shots} points", chart))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(standalone(charts), encoding="utf-8")


def sine_waves(
    processes: dict[str, Learner], mamls: dict[int, Learner], n: int
) -> list[dict[str, Any]]:
    """Return a row for each number of shots; MAML takes ten steps, and was trained for them."""
    rows = []
    for shots in SHOTS:
        reports = {
            name: scored(one, SinusoidSource("test"), shots, n) for name, one in processes.items()
        }
        row: dict[str, Any] = {"k_shot": shots, "episodes": n}
        row |= {name: numbers(report) for name, report in reports.items()}
        if shots in mamls:
            maml = scored(mamls[shots].with_inner_steps(10), SinusoidSource("test"), shots, n)
            row["maml, 10 steps"] = numbers(maml)
            for name, report in reports.items():
                row[f"{name} minus maml"] = compare(report, maml).to_dict()
        elif shots in MAML_SHOTS:
            row["maml, 10 steps"] = published_maml(shots)
        rows.append(row)
    return rows


def main() -> None:
    """Train, score, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--published-maml", action="store_true", help="see above")
    parser.add_argument("-s", action="append", default=[], help="as in quickstudy train")
    given = parser.parse_args()
    if (given.s or given.episodes != EPISODES) and given.results is None:
        parser.error("a trial must not replace the published result: name another --results")
    torch.set_num_threads(1)
    learners: dict[str, Learner] = {}
    training = {}
    for name in ("sinusoid-cnp", "sinusoid-anp", "gp-anp"):
        learners[name], training[name] = trained(name, given.runs / name, *given.s)
    mamls = {}
    for shots in () if given.published_maml else MAML_SHOTS:
        sizes = (f"train.k_shot={shots}", f"validation.k_shot={shots}", *given.s)
        name = f"sinusoid-maml-{shots}"
        mamls[shots], training[name] = trained("sinusoid-maml", given.runs / name, *sizes)
    n = given.episodes
    waves = sine_waves({k: v for k, v in learners.items() if k != "gp-anp"}, mamls, n)
    source = GaussianProcessSource("test")
    functions = [
        {
            "k_shot": shots,
            "episodes": n,
            "gp-anp": numbers(scored(learners["gp-anp"], source, shots, n)),
            "exact posterior, kernel known": exact(source, shots, n),
        }
        for shots in GP_SHOTS
    ]
    draw(learners, (given.results or ROOT / "docs" / "images") / "processes.svg")
    write_result(
        "processes",
        {
            "name": "processes",
            **provenance(seeds=[0], shown={given.runs: "runs"}),
            "training": training,
            "sine_waves": waves,
            "gaussian_processes": functions,
        },
        given.results,
    )


if __name__ == "__main__":
    main()

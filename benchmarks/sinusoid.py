"""Sine waves: MAML against a net that was pretrained on all of them and fine-tuned.

python benchmarks/sinusoid.py                (five minutes on one core, needs no data)

trains `sinusoid-maml` for 5 and for 10 shots and `sinusoid-pretrained`, scores them on 2,000 test
tasks after 1 and after 10 steps, writes docs/results/sinusoid.json and draws
docs/images/sinusoid.png, the picture of Finn et al. (2017), figure 2. The baseline's step size at
test is chosen on validation tasks, as the paper tuned it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from machine import ROOT, provenance, write_result
from quickstudy.core import DivergenceError, EpisodeSpec
from quickstudy.evaluation import Report, compare, evaluate
from quickstudy.learners.gradient import GradientLearner
from quickstudy.runs import load_run, train_recipe
from quickstudy.tasks import SinusoidSource

SHOTS, STEPS, EPISODES = (5, 10), (1, 10), 2000
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


def trained(recipe: str, out: Path, *settings: str) -> GradientLearner:
    """Return the learner of a run; it is trained if it is not there yet."""
    if not (out / "model.safetensors").exists():
        begun = (out / "recipe.json").exists()
        train_recipe(recipe, settings, out=out, resume=begun, progress=True)
    learner = load_run(out).learner
    assert isinstance(learner, GradientLearner)
    return learner


def scored(learner: GradientLearner, split: str, shots: int, steps: int, n: int) -> Report:
    """Return the mean squared error after so many steps on so many points."""
    spec = EpisodeSpec(1, shots, 100)
    return evaluate(learner.judged(eval_steps=steps), SinusoidSource(split), spec, episodes=n)


def with_rate(learner: GradientLearner, rate: float) -> GradientLearner:
    """Return the same learner with another step size at test."""
    other = learner.judged()
    other.inner = replace(other.inner, lr=rate)
    return other


def best_rate(learner: GradientLearner, shots: int, steps: int) -> float:
    """Return the step size that does best on validation tasks."""

    def error(rate: float) -> float:
        try:
            return scored(with_rate(learner, rate), "val", shots, steps, 500).mean
        except DivergenceError:
            return float("inf")

    return min(RATES, key=error)


@torch.no_grad()
def draw(learners: dict[str, GradientLearner], path: Path) -> None:
    """Draw one task: the wave, its five points, and what each learner makes of them."""
    source, spec = SinusoidSource("test"), EpisodeSpec(1, 5, 10)
    # the first test task of some size, points on one half only are the paper's hard case
    batch = source.episodes(spec, range(50), seed=0)
    task = next(t for t in range(50) if float(batch.info["amplitude"][t]) > 3)
    episode = batch.tasks(slice(task, task + 1))
    x = torch.linspace(-5, 5, 200)
    amplitude, phase = (float(episode.info[n][0]) for n in ("amplitude", "phase"))
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, constrained_layout=True)
    for axis, (name, learner) in zip(axes, learners.items(), strict=True):
        axis.plot(x, amplitude * np.sin(x.numpy() - phase), color="#c23b22", label="the wave")
        for steps, style, shade in (
            (0, ":", "#8a8a8a"),
            (1, "--", "#4a7ab5"),
            (10, "-", "#123d6b"),
        ):
            state = learner.judged(eval_steps=steps).adapt(episode.support, n_way=1)
            y = learner.predict(state, x[None, :, None])[0, :, 0]
            word = "before" if steps == 0 else f"{steps} step" + "s" * (steps > 1)
            axis.plot(x, y, style, color=shade, label=word)
        support = episode.support
        axis.plot(support.x[0, :, 0], support.y[0], "^", color="#6b2d8f", ms=8, label="5 points")
        axis.set_title(name)
        axis.set_xlabel("x")
    axes[0].set_ylabel("y")
    handles, words = axes[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside right upper", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train, score, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("-s", action="append", default=[], help="as in quickstudy train")
    given = parser.parse_args()
    if given.s and given.results is None:
        parser.error("a trial must not replace the published result: name another --results")
    pretrained = trained("sinusoid-pretrained", given.runs / "sinusoid-pretrained", *given.s)
    rows: list[dict[str, Any]] = []
    for shots in SHOTS:
        sizes = (f"train.k_shot={shots}", f"validation.k_shot={shots}", *given.s)
        maml = trained("sinusoid-maml", given.runs / f"sinusoid-maml-{shots}", *sizes)
        for steps in STEPS:
            rate = best_rate(pretrained, shots, steps)
            ours = scored(maml, "test", shots, steps, EPISODES)
            theirs = scored(with_rate(pretrained, rate), "test", shots, steps, EPISODES)
            rows.append(
                {
                    "k_shot": shots,
                    "inner_steps": steps,
                    "maml": ours.to_dict()["mse"],
                    "pretrained": theirs.to_dict()["mse"] | {"lr": rate},
                    "difference": compare(ours, theirs).to_dict(),
                    "episodes": EPISODES,
                }
            )
            print(f"{shots} shots, {steps} steps: {ours} / {theirs} (rate {rate})", file=sys.stderr)
    maml = trained("sinusoid-maml", given.runs / "sinusoid-maml-5", *given.s)
    rate = best_rate(pretrained, 5, 10)
    pictures = (given.results or ROOT / "docs" / "images") / "sinusoid.png"
    draw({"MAML": maml, "pretrained, fine-tuned": with_rate(pretrained, rate)}, pictures)
    write_result(
        "sinusoid",
        {"name": "sinusoid", **provenance(seeds=[0]), "mean_squared_error": rows},
        given.results,
    )


if __name__ == "__main__":
    main()

"""Meta-overfitting on Omniglot: a recipe that overfits on purpose beside one that does not.

python benchmarks/overfitting.py            (a few minutes on one core)

trains `omniglot-few` (20 characters, no augmentation), the same network on all training characters
with augmentation, and a Conv-4 like that, each followed on training classes, on novel classes and
on the domains MNIST and QuickDraw; writes docs/results/overfitting.json and draws
docs/images/overfitting.png. A fourth run is `omniglot-few` with weights chosen by MNIST, and both
choices are scored on MNIST's images and on Omniglot's validation classes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from machine import ROOT, provenance, write_result
from quickstudy.evaluation import mean_interval
from quickstudy.recipes import RECIPES, Recipe, build_learner, domains, override, sources
from quickstudy.training import TrainResult, train
from quickstudy.training.overfitting import NOVEL, TRAINING, Curve, find_overfitting

DOMAINS = ("mnist", "quickdraw")
FOLLOWED = (f"domains={','.join(DOMAINS)}", "watch_episodes=400", "validation.episodes=400")
_INK = RECIPES["omniglot-protonet"].data
_HEALTHY = (
    "classes=null",
    "rotations=true",
    f"data.jitter={_INK.jitter.model_dump_json()}" if _INK.jitter else "data.jitter=null",
    f"data.class_jitter={_INK.class_jitter.model_dump_json()}" if _INK.class_jitter else "",
)
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "omniglot-few: 20 characters": ("omniglot-few", ()),
    "the same, all characters, augmented": (
        "omniglot-few",
        (*_HEALTHY, "steps=600", "validation.every=60", "outer_lr=0.001"),
    ),
    "omniglot-protonet, 32 channels, 200 steps": (
        "omniglot-protonet",
        (
            *("steps=200", "validation.every=40", "channels=32", "ema_decay=0.95"),
            *("validation.n_way=5", "precision=float32"),
        ),
    ),
}
_INKS = {TRAINING: "#8a8a8a", NOVEL: "#123d6b", "mnist": "#c23b22", "quickdraw": "#2f8f4e"}


def trained(recipe: Recipe) -> TrainResult:
    """Train a recipe in memory."""
    followed, _ = domains(recipe)
    source, validation, _ = sources(recipe)
    learner = build_learner(recipe.encoder, recipe.learner, seed=recipe.train.seed)
    return train(
        learner, source, recipe.train, validation=validation, domains=followed, progress=True
    )


def document(recipe: Recipe, result: TrainResult) -> dict[str, Any]:
    """Return the curve of a run and what is found in it."""
    assert result.curve is not None
    found = find_overfitting(result.curve)
    return {
        "recipe": recipe.model_dump(mode="json"),
        "kept_step": result.best_step,
        "curve": result.curve.to_dict(),
        "found": [one.to_dict() for one in found],
        "said": [
            f"{one}. {one.advice(kept=result.best_step)}." for one in find_overfitting(result.curve)
        ],
        "seconds": round(result.seconds, 1),
    }


def choice(curve: Curve, judge: str) -> dict[str, Any]:
    """Return what the step that a list chooses scores on every list, and on MNIST at the end."""
    at = int(curve.scores[judge].mean(1).argmax())
    return {
        "step": curve.steps[at],
        "scores": {
            name: {"mean": float(s[at].mean()), "ci95": mean_interval(s[at])}
            for name, s in curve.scores.items()
        },
    }


def draw(curves: dict[str, Curve], path: Path) -> None:
    """Draw accuracy over steps with 95 % intervals, one panel for each run."""
    figure, axes = plt.subplots(
        1, len(curves), figsize=(11, 3.6), sharey=True, layout="constrained"
    )
    for axis, (title, curve) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        for name, scores in curve.scores.items():
            mean = 100 * scores.mean(1)
            half = 100 * np.array([mean_interval(row) for row in scores])
            axis.plot(curve.steps, mean, color=_INKS[name], label=name)
            axis.fill_between(
                curve.steps, mean - half, mean + half, color=_INKS[name], alpha=0.2, lw=0
            )
        for one in find_overfitting(curve):
            axis.axvline(one.since, color=_INKS[one.novel], ls=":", lw=1.2)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
    np.atleast_1d(axes)[0].set_ylabel("accuracy, %, 5-way 1-shot")
    handles, words = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=4, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("-s", action="append", default=[], help="as in quickstudy train")
    given = parser.parse_args()
    if given.s and given.results is None:
        parser.error("a trial must not replace the published result: name another --results")
    runs: dict[str, Any] = {}
    curves: dict[str, Curve] = {}
    for title, (name, settings) in RUNS.items():
        recipe = override(RECIPES[name], [s for s in (*settings, *FOLLOWED, *given.s) if s])
        begin = time.perf_counter()
        result = trained(recipe)
        assert result.curve is not None
        runs[title], curves[title] = document(recipe, result), result.curve
        took = time.perf_counter() - begin
        print(f"{title}: {took:.0f} s; {runs[title]['said']}", file=sys.stderr)
    few = curves[next(iter(RUNS))]
    choices = {judge: choice(few, judge) for judge in (NOVEL, *DOMAINS)}
    draw(curves, (given.results or ROOT / "docs" / "images") / "overfitting.png")
    write_result(
        "overfitting",
        {"name": "overfitting", **provenance(seeds=[0]), "runs": runs, "chosen_by": choices},
        given.results,
    )


if __name__ == "__main__":
    main()

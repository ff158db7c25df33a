"""The demonstration: train, score, compare with pixel nearest neighbour, write the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError, ConfigError, EpisodeSpec
from quickstudy.core.arguments import checked
from quickstudy.core.devices import choose_device
from quickstudy.core.limits import check_seed
from quickstudy.demo.data import DemoData, find_data
from quickstudy.demo.page import write_report
from quickstudy.demo.text import DIGITS, Facts, Score
from quickstudy.evaluation import compare, evaluate
from quickstudy.learners import EmbeddingLearner, NearestNeighbour
from quickstudy.recipes import build_learner
from quickstudy.runs.folder import save_recipe
from quickstudy.storage.outputs import (
    check_output,
    check_output_folder,
    is_page,
    is_run_folder,
)
from quickstudy.storage.tensors import save_tensors
from quickstudy.tasks import PoolSource
from quickstudy.training import TrainConfig, train

__all__ = ["DemoResult", "run_demo"]

Say = Callable[[str], None]

_QUERIES_PER_CLASS = 15
_FLOOR = "pixel nearest neighbour"  # a learner that is not better than this has learned nothing


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The outcome of a demonstration.

    Args:
        scores: one for each test.
        report: the page, an HTML file.
        run: folder with the trained weights, for ``quickstudy evaluate``.
        trained_on: the training data in plain words.
        seconds: wall time of everything.
        unwritten: why the page could not be written, if so.
    """

    scores: tuple[Score, ...]
    report: Path
    run: Path
    trained_on: str
    seconds: float
    unwritten: str | None = None

    @property
    def results(self) -> list[dict[str, Any]]:
        """One JSON-ready document per test; scores are fractions."""
        return [_document(score, self.run) for score in self.scores]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values."""
        return {
            "command": "demo",
            "results": self.results,
            "report": str(self.report) if self.unwritten is None else None,
            "run": str(self.run),
            "trained_on": self.trained_on,
            "seconds": round(self.seconds, 3),
        }

    def summary(self) -> str:
        """Return a few lines for people: accuracies, intervals, floors, and the page's path."""
        rows = [
            (
                score.title,
                score.ours.score.percent(),
                score.floor.score.percent(),
                score.paired.gap.cell(signed=True),
            )
            for score in self.scores
        ]
        head = ("classes it has never seen", "accuracy", _FLOOR, "difference (points)")
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(cells))
            for cells in (list(zip(row, widths, strict=True)) for row in [head, *rows])
        ]
        p = self.scores[0].ours.protocol
        lines += [
            f"95 % intervals over {p.episodes} episodes of {p.n_query} queries per class "
            f"(fixed classes, seed {p.seed}); differences are paired.",
            f"Meta-trained on {self.trained_on}; {self.seconds:.0f} s in all.",
            *([f"report: {self.report}"] if self.unwritten is None else []),
            f"run:    {self.run}",
        ]
        return "\n".join(lines)


@checked
def run_demo(
    *,
    out: str | Path,
    seed: int = 0,
    steps: int | None = None,
    device: str = "auto",
    progress: bool = True,
    say: Say,
    data: DemoData | None = None,
    episodes: int = 600,
) -> DemoResult:
    """Meta-train a Prototypical Network, score it on classes never seen, and write a page about it.

    The trained weights go into a folder beside the page, named after it (``report-run``).

    Args:
        out: the page, an HTML file.
        seed: of weights, training episodes and tests.
        steps: training steps; if not given, as many as take about 100 seconds on two cores.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        progress: show a bar on standard error while training.
        say: is called with a sentence about each thing that happens.
        data: what to train and score on; if not given, Omniglot, or glyphs where it cannot be had.
        episodes: number of episodes per test, at least 2.

    Raises:
        ConfigError: if ``out``, ``seed``, ``steps``, ``episodes`` or ``device`` is not usable.
        TrainingInterrupted: on Ctrl-C during training; nothing is written then.
    """
    start = time.perf_counter()
    check_seed(seed)
    out = _check(out, steps, episodes)
    where = choose_device(device)
    data = data or find_data(say)
    config = _config(data.recipe.train, steps, seed)
    recipe = data.recipe.model_copy(update={"train": config})
    learner = build_learner(recipe.encoder, recipe.learner, seed=seed)
    if not isinstance(learner, EmbeddingLearner):
        raise ConfigError(f"the demo needs a metric learner; {recipe.name} has another.")
    say(f"{config.steps:,} steps, each one task of {config.n_way} classes.")
    trained = train(
        learner,
        data.train,
        config,
        validation=data.validation,
        device=str(where),
        progress=progress,
    )
    run = _run_folder(out)
    save_recipe(run, recipe, data.facts)
    meta = {"step": trained.best_step, "validation": trained.best_validation}
    save_tensors(run / "model.safetensors", learner.state_dict(), meta)
    say(f"Scoring {episodes} tasks per test on classes it has never seen.")
    tests = [
        (data.unseen_what, data.unseen, EpisodeSpec(20, 1, _QUERIES_PER_CLASS)),
        (data.unseen_what, data.unseen, EpisodeSpec(5, 1, _QUERIES_PER_CLASS)),
        (data.unseen_what, data.unseen, EpisodeSpec(5, 5, _QUERIES_PER_CLASS)),
        (DIGITS, data.digits, EpisodeSpec(5, 1, _QUERIES_PER_CLASS)),
        (DIGITS, data.digits, EpisodeSpec(5, 5, _QUERIES_PER_CLASS)),
    ]
    scores = [_score(learner, *test, episodes=episodes, seed=seed) for test in tests]
    say("Writing the report.")
    facts = Facts(data=data, config=config, trained=trained, seed=seed, run=run, device=where)
    unwritten = None
    try:
        write_report(out, learner, scores, facts)
    except CheckpointError as error:  # the scores are worth two minutes: they are returned
        unwritten = str(error)
    return DemoResult(
        scores=tuple(scores),
        report=out,
        run=run,
        trained_on=data.trained_on,
        seconds=time.perf_counter() - start,
        unwritten=unwritten,
    )


def _run_folder(out: Path) -> Path:
    """Return the folder of the weights, beside the page and named after it."""
    return out.with_name(out.stem + "-run")


def _check(out: str | Path, steps: int | None, episodes: int) -> Path:
    """Return the page, after refusing a bad place and numbers out of range: before training."""
    page = check_output(out, ours=is_page)
    check_output_folder(_run_folder(page), name="the folder of the run", ours=is_run_folder)
    if steps is not None and steps < 1:
        raise ConfigError(f"steps must be at least 1; got {steps}.")
    if episodes < 2:
        raise ConfigError(f"an interval needs at least 2 episodes; got {episodes}.")
    return page


def _config(config: TrainConfig, steps: int | None, seed: int) -> TrainConfig:
    """Return the training configuration with five validations."""
    total = steps or config.steps
    # the page shows validation classes only: scoring training classes would just cost time
    changed = {"episodes": 400, "every": max(1, total // 5), "watch_episodes": 0}
    validation = config.validation.model_copy(update=changed)
    changes = {"steps": total, "seed": seed, "validation": validation}
    return config.model_copy(update=changes)


def _score(
    learner: EmbeddingLearner,
    what: str,
    source: PoolSource,
    spec: EpisodeSpec,
    *,
    episodes: int,
    seed: int,
) -> Score:
    """Score the learner and pixel nearest neighbour on the same episodes."""
    ours = evaluate(
        learner, source, spec, episodes=episodes, seed=seed, name="Prototypical Network"
    )
    floor = evaluate(NearestNeighbour(), source, spec, episodes=episodes, seed=seed, name=_FLOOR)
    return Score(what, source, spec, ours, floor, compare(ours, floor))


def _document(score: Score, run: Path) -> dict[str, Any]:
    """Return one test as a document like that of ``quickstudy evaluate --json``."""
    floor = score.floor.to_dict()
    return {
        "command": "demo",
        "run": str(run),
        "what": score.what,
        **score.ours.to_dict(),
        "floor": {name: floor[name] for name in ("learner", "accuracy", "seconds")},
        "paired": score.paired.to_dict(),
    }

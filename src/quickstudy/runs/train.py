"""Training a recipe into a run folder that can be resumed, after the recipe it starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError, ConfigError
from quickstudy.core.devices import choose_device, computes_bfloat16
from quickstudy.core.words import quiet
from quickstudy.recipes import Recipe, build_learner, domains, override, sources
from quickstudy.runs.code import code_of, named_recipe, remember_code
from quickstudy.runs.folder import (
    RECIPE,
    Run,
    load_run,
    manifest,
    read_facts,
    read_recipe,
    run_folder,
    save_recipe,
)
from quickstudy.runs.start import check_start, load_start
from quickstudy.training import (
    CHECKPOINT,
    MODEL,
    TrainingInterrupted,
    TrainResult,
    Watcher,
    check_folder,
    train,
)
from quickstudy.training.overfitting import NOVEL, Overfitting, find_overfitting
from quickstudy.training.step import check_config, chosen_schedule

__all__ = ["TrainedRun", "train_recipe"]


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A recipe that has been trained.

    Args:
        folder: of the run.
        recipe: the recipe with the settings it was trained with.
        result: steps, time and validation curves.
        overfitting: where accuracy on novel classes stopped following the training classes.

    Example::

        trained = train_recipe("glyphs-protonet", settings, out="runs/glyphs")
        print(trained.text())
        trained.result.best_step, trained.overfitting
        learner = trained.load().learner
    """

    folder: Path
    recipe: Recipe
    result: TrainResult = field(repr=False)
    overfitting: tuple[Overfitting, ...]

    def load(self) -> Run:
        """Return the run with its learner."""
        return load_run(self.folder, learners=(type(self.recipe.learner),))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; scores are fractions."""
        v, result = self.recipe.train.validation, self.result
        document = {
            "run": str(self.folder),
            "recipe": self.recipe.name,
            "steps": result.steps,
            "stopped": result.stopped,
            "best_step": result.best_step,
            "validation": {"n_way": v.n_way, "k_shot": v.k_shot, "mean": result.best_validation},
            "seconds": round(result.seconds, 1),
            "episodes_per_second": round(result.episodes_per_second, 2),
            "sampling_share": round(result.sampling_share, 4),
            "chosen_by": v.choose_by,
        }
        if result.curve is not None:
            document["curve"] = result.curve.to_dict()
            document["overfitting"] = [one.to_dict() for one in self.overfitting]
        return document

    def text(self) -> str:
        """Return steps, time, the score of the kept weights, and what to run next."""
        result, v = self.result, self.recipe.train.validation
        best, regression = result.best_validation, self.recipe.data.regression
        what = "tasks" if regression else "classes"
        score = "" if best is None else f"{100 * best:.2f} %"
        if best is not None and regression:
            score = f"mean squared error {-best:.4f}"
        rate = (
            f" ({result.episodes_per_second:.1f} episodes/s, {100 * result.sampling_share:.0f} % "
            "of it sampling)"
            if result.episodes_per_second
            else "; nothing was left to do"
        )
        judge = f"validation {what}" if v.choose_by == NOVEL else f"{v.choose_by}, which chose it"
        return (
            f"{self.folder}: {result.steps} steps in {result.seconds / 60:.1f} minutes{rate}\n"
            f"kept step {result.best_step}: {score} on {judge}, {v.spec}\n"
            f"{_last_scores(result)}"
            f"next: quickstudy evaluate {self.folder} {_protocol(self.recipe)}"
        )


def train_recipe(
    recipe: str | Recipe,
    settings: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    tensorboard: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = quiet,
    watchers: Sequence[Watcher] = (),
) -> TrainedRun:
    """Train a recipe into a run folder.

    If the recipe starts from the encoder of another one, that one is trained first, unless the
    folder beside ``out`` already holds its run.

    Args:
        recipe: a name (see ``quickstudy train --list``), ``file.py:NAME``, or a recipe.
        settings: ``"key=value"``, one or several, see :func:`quickstudy.recipes.override`.
        out: folder of the run; ``runs/NAME`` if not given.
        resume: continue the run in ``out``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        tensorboard: also write event files.
        progress: show a bar on standard error.
        say: is called with a sentence about each thing that happens.
        watchers: see :class:`quickstudy.training.Watcher`.

    Raises:
        ConfigError: if there is no such recipe or setting.
        CheckpointError: if ``out`` holds another run, or there is no run to resume.
        TrainingInterrupted: on Ctrl-C; the run can be resumed.

    Example::

        trained = train_recipe("glyphs-protonet", ["steps=300"], out="runs/glyphs")
        print(trained.text())
        run = trained.load()
        print(judge(run, "glyphs", n_way=5, k_shot=1).text())
    """
    named = named_recipe(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(named, Recipe):
        raise ConfigError(
            f"recipe must be a name, 'file.py:NAME' or a Recipe; got {type(named).__name__}."
        )
    settings = [settings] if isinstance(settings, str) else settings
    folder = run_folder(out) if out is not None else Path("runs") / named.name
    chosen = override(_recipe_to_resume(named, folder) if resume else named, settings)
    check_folder(folder, resume=resume)
    result = _train(
        chosen,
        folder,
        resume=resume,
        device=device,
        tensorboard=tensorboard,
        progress=progress,
        say=say,
        watchers=watchers,
        called=recipe if isinstance(recipe, str) else None,
    )
    found = () if result.curve is None else find_overfitting(result.curve)
    for one in found:
        say(f"warning: {one}. {one.advice(kept=result.best_step)}.")
    return TrainedRun(folder, chosen, result, found)


def _recipe_to_resume(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe of the run to resume, which may have other settings than ``recipe``."""
    saved = folder / RECIPE
    if not saved.exists():
        raise CheckpointError(
            f"{saved} is missing: there is no run to resume in {folder}. Name the folder of the "
            "run with --out, or leave --resume off to begin one."
        )
    kept = read_recipe(folder, learners=(type(recipe.learner),))
    if kept.name != recipe.name:
        raise CheckpointError(f"{folder} holds a run of {kept.name!r}, not of {recipe.name!r}.")
    return kept


class _Recorder(Watcher):
    """Writes the recipe into the run as soon as the run has begun."""

    def __init__(self, folder: Path, recipe: Recipe, facts: dict[str, str]) -> None:
        self.folder, self.recipe, self.facts = folder, recipe, facts

    def on_start(self, step: int) -> None:
        """Write the recipe, also of a resumed run: its settings may have changed."""
        del step
        save_recipe(self.folder, self.recipe, self.facts)
        remember_code(code_of(self.recipe))


def _train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool,
    device: str,
    tensorboard: bool,
    progress: bool,
    say: Callable[[str], None],
    watchers: Sequence[Watcher],
    called: str | None = None,
) -> TrainResult:
    """Train a recipe that has passed :func:`~quickstudy.training.check_folder`.

    Settings that do not fit are refused before data is read or a folder is made.
    """
    say(f"{recipe.name}: {recipe.summary}")
    learner = build_learner(
        recipe.encoder, recipe.learner, seed=recipe.train.seed, n_way=recipe.n_way
    )
    check_config(learner, recipe.train)
    if recipe.train.precision == "bfloat16" and not computes_bfloat16(choose_device(device)):
        say("note: this processor does not compute bfloat16 itself; float32 is used.")
    followed, more = domains(recipe)
    source, validation, facts = sources(recipe)
    facts = facts | more
    from_checkpoint = resume and (folder / CHECKPOINT).exists()
    if recipe.start is not None and from_checkpoint:
        # the checkpoint holds the weights; only the fact has to be kept
        facts |= {name: v for name, v in read_facts(folder).items() if name == "start"}
    elif recipe.start is not None:
        started_from = _start(recipe, folder, device=device, progress=progress, say=say)
        facts |= load_start(learner, recipe, started_from)
    # drawing a first episode of each refuses data that is too small, before there is a folder
    config = recipe.train
    has_inner_loop = learner.inner_steps_at_test() is not None
    first_tasks = range(config.tasks_per_step if has_inner_loop else 1)
    first = source.episodes(config.spec, first_tasks, seed=config.seed)
    validation.episodes(config.validation.spec, [0], seed=0)
    if has_inner_loop:
        say(f"inner loop: {chosen_schedule(learner, first, config)}")
    try:
        return train(
            learner,
            source,
            config,
            validation=validation,
            domains=followed,
            out=folder,
            resume=resume,
            device=device,
            manifest=manifest(recipe, facts),
            tensorboard=tensorboard,
            progress=progress,
            watchers=(_Recorder(folder, recipe, facts), *watchers),
        )
    except TrainingInterrupted as stop:
        command = f"quickstudy train {called or recipe.name} --out {folder} --resume"
        raise TrainingInterrupted(stop.step, stop.steps, stop.out, command) from stop


def _start(
    recipe: Recipe,
    folder: Path,
    *,
    device: str,
    progress: bool,
    say: Callable[[str], None],
) -> Path:
    """Return the folder of the run that a recipe starts from; train it if it is not there."""
    beside = folder.parent / str(recipe.start)
    begun = (beside / RECIPE).exists()
    first = read_recipe(beside) if begun else named_recipe(str(recipe.start))
    # checked before the start is trained, which may take hours
    check_start(recipe, first, beside)
    if not (beside / MODEL).exists():
        say(f"{recipe.name} starts from the encoder of {recipe.start}, which is trained first.")
        _train(
            first,
            beside,
            resume=begun,
            device=device,
            tensorboard=False,
            progress=progress,
            say=say,
            watchers=(),
        )
    return beside


def _last_scores(result: TrainResult) -> str:
    """Return a line with the last score on each list of tasks that was followed."""
    curve = result.curve
    if curve is None:
        return ""
    mse = curve.metric == "mse"
    words = [
        f"{name} {value:.4f}" if mse else f"{name} {100 * value:.1f} %"
        for name, scores in curve.scores.items()
        for value in [float(scores[-1].mean())]
    ]
    return f"last step: {', '.join(words)}\n"


def _protocol(recipe: Recipe) -> str:
    """Return the options of ``evaluate`` for tasks like those of validation."""
    v, words = recipe.train.validation, recipe.data.options
    for option, value in (("--n-way", v.n_way), ("--k-shot", v.k_shot)):
        words.append(f"{option} {'-'.join(map(str, value)) if isinstance(value, tuple) else value}")
    return " ".join(words)

"""Training a recipe into a run folder that can be resumed, after the recipe it starts from."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError, ConfigError, QuickstudyError
from quickstudy.core.arguments import checked
from quickstudy.core.devices import choose_device, computes_bfloat16
from quickstudy.core.words import quiet
from quickstudy.evaluation.metrics import metric_named
from quickstudy.learners.base import Learner
from quickstudy.nets import MLP
from quickstudy.recipes import (
    Recipe,
    build_learner,
    domains,
    encoder_of,
    override,
    parse_recipe,
    sources,
)
from quickstudy.recipes.files import data_document
from quickstudy.runs.code import named_recipe
from quickstudy.runs.folder import (
    RECIPE,
    Run,
    load_run,
    manifest,
    read_facts,
    read_recipe,
    run_folder,
)
from quickstudy.runs.own import ARRAYS, forget_arrays, prepared, save_arrays
from quickstudy.runs.resuming import Recorder, check_resume, recipe_to_resume
from quickstudy.runs.start import check_start, load_start
from quickstudy.storage.run_lock import locked, refuse_locked
from quickstudy.tasks import Pool, PoolSource, TaskSource
from quickstudy.tasks.arrays import pool_from_arrays
from quickstudy.tasks.own import own_path
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

_EPISODES_MEASURED = 100  # whose examples give mean and deviation of the inputs


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


@checked
def train_recipe(
    recipe: str | Path | Recipe | None,
    settings: str | Sequence[str] = (),
    *,
    data: str | Path | Pool | tuple[Any, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    tensorboard: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = quiet,
    watchers: Watcher | Sequence[Watcher] = (),
) -> TrainedRun:
    """Train a recipe into a run folder.

    If the recipe starts from the encoder of another one, that one is trained first, unless the
    folder beside ``out`` already holds its run.

    Args:
        recipe: a name (see ``quickstudy train --list``), ``file.py:NAME``, or a recipe. To resume,
            it may be the folder of the run, or ``None`` if ``out`` is.
        settings: ``"key=value"``, one or several, see :func:`quickstudy.recipes.override`.
        data: what to train on instead of the recipe's data: a named data set, the path of a folder,
            table or file of arrays (see :func:`quickstudy.tasks.own.read_own`), a pool, or arrays
            ``(X, y)``. A pool and arrays are written into the run.
        out: folder of the run; ``runs/NAME`` if not given.
        resume: continue the run in ``out``. A finished one goes on if ``settings`` ask for more
            ``train.steps``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        tensorboard: also write event files.
        progress: show a bar on standard error.
        say: is called with a sentence about each thing that happens.
        watchers: one or several, see :class:`quickstudy.training.Watcher`.

    Raises:
        ConfigError: if there is no such recipe or setting, or it does not fit the data.
        DataError: if the data cannot be read.
        CheckpointError: if ``out`` holds another run, or there is no run to resume, or another
            process is training it.
        TrainingInterrupted: on Ctrl-C; the run can be resumed.

    Example::

        trained = train_recipe("glyphs-protonet", ["steps=300"], out="runs/glyphs")
        print(trained.text())
        run = trained.load()
        print(judge(run, "glyphs", n_way=5, k_shot=1).text())
    """
    settings = [settings] if isinstance(settings, str) else list(settings)
    watchers = (watchers,) if isinstance(watchers, Watcher) else tuple(watchers)
    named, folder = _named(recipe, out, resume=resume)
    refuse_locked(folder)
    arrays: Pool | None = None
    if isinstance(data, (Pool, tuple)):
        arrays = data if isinstance(data, Pool) else _pool_of(data)
        data = folder / ARRAYS
    given = [f"data={os.fspath(data)}", *settings] if data is not None else settings
    if resume:
        kept = recipe_to_resume(named, folder)
        given = given if data is None else settings
        _check_same_data(kept, data, folder)
        chosen = override(kept, given)
        check_resume(kept, chosen, folder, say)
        check_folder(folder, resume=True)
    else:
        assert named is not None
        check_folder(folder, resume=False)
        if arrays is not None:
            save_arrays(arrays, folder)
        try:
            chosen = prepared(override(named, given), say=say)
        except QuickstudyError:
            if arrays is not None:
                forget_arrays(folder)
            raise
    result = _train(
        chosen,
        folder,
        resume=resume,
        device=device,
        tensorboard=tensorboard,
        progress=progress,
        say=say,
        watchers=watchers,
    )
    found = () if result.curve is None else find_overfitting(result.curve)
    for one in found:
        say(f"warning: {one}. {one.advice(kept=result.best_step)}.")
    return TrainedRun(folder, chosen, result, found)


def _named(
    recipe: str | Path | Recipe | None, out: str | Path | None, *, resume: bool
) -> tuple[Recipe | None, Path]:
    """Return the recipe that was named, and the folder of its run."""
    folder = None if out is None else run_folder(out)
    if isinstance(recipe, Recipe):
        return recipe, folder or Path("runs") / recipe.name
    if recipe is None:
        if not resume or folder is None:
            raise ConfigError("name a recipe; to resume, the folder of a run is enough.")
        return None, folder
    text = os.fspath(recipe)
    if resume and (Path(text) / RECIPE).is_file():
        if folder is not None and folder.resolve() != Path(text).resolve():
            raise ConfigError(f"{text} and {folder} are two runs. Name the one to resume.")
        return None, run_folder(text)
    try:
        named = named_recipe(text)
    except ConfigError as error:
        if not resume:
            raise
        raise ConfigError(f"{text} is no folder with a run to resume, and {error}") from error
    return named, folder or Path("runs") / named.name


def _pool_of(arrays: tuple[Any, Any]) -> Pool:
    if len(arrays) != 2:
        raise ConfigError(f"data as arrays is a pair (X, y); got {len(arrays)} of them.")
    return pool_from_arrays(*arrays)


def _check_same_data(kept: Recipe, data: str | Path | None, folder: Path) -> None:
    """Refuse to go on with other data than the run was begun with."""
    if data is None:
        return
    text = os.fspath(data)
    if text != kept.data.name and own_path(text) != kept.data.name:
        raise CheckpointError(
            f"{folder} was begun with {kept.data.name}, and a resumed run must not change its "
            "data. Leave data out."
        )


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
) -> TrainResult:
    """Train a recipe that has passed :func:`~quickstudy.training.check_folder`.

    Settings that do not fit are refused before data is read or a folder is made.
    """
    own = getattr(recipe.data, "files", None) is not None
    say(f"{recipe.name}: {recipe.summary}" + (f"; here on {recipe.data.name}" if own else ""))
    learner = build_learner(
        recipe.encoder, recipe.learner, seed=recipe.train.seed, n_way=recipe.n_way
    )
    check_config(learner, recipe.train)
    if recipe.train.precision == "bfloat16" and not computes_bfloat16(choose_device(device)):
        say("note: this processor does not compute bfloat16 itself; float32 is used.")
    followed, more = domains(recipe)
    source, validation, facts = sources(recipe)
    facts = facts | more
    _standardise(learner, source, recipe)
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
        # how tasks are run depends on the device, so the learner is moved before it is asked
        where = choose_device(device)
        say(f"inner loop: {chosen_schedule(learner.to(where), first.to(where), config)}")
    # a bar prints warnings itself
    warn = quiet if progress else say
    recorder = Recorder(folder, recipe, facts, resumed=from_checkpoint, warn=warn)
    with locked(folder):
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
                watchers=(recorder, *watchers),
            )
        except KeyboardInterrupt as stop:
            raise _interrupted(stop, recorder, config.steps) from stop


def _standardise(learner: Learner, source: TaskSource, recipe: Recipe) -> None:
    """Let the encoder measure the training inputs, if it brings them to mean 0 and deviation 1."""
    if not recipe.encoder.standardise:
        return
    if isinstance(source, PoolSource) and source.pool.x.is_floating_point():
        x = source.pool.x
    else:  # images are turned to numbers when an episode is made
        drawn = source.episodes(
            recipe.train.spec, range(_EPISODES_MEASURED), seed=recipe.train.seed
        )
        x = drawn.query.x[drawn.query.mask]
    encoder = encoder_of(learner)
    if isinstance(encoder, MLP):
        encoder.measure(x)


def _interrupted(stop: KeyboardInterrupt, recorder: Recorder, steps: int) -> TrainingInterrupted:
    """Return the interruption with the command that goes on.

    A second Ctrl-C, or one that a watcher raises, comes between two checkpoints.
    """
    out = recorder.folder
    command = f"quickstudy train --resume {shlex.quote(str(out))}"
    if isinstance(stop, TrainingInterrupted):
        return TrainingInterrupted(stop.step, stop.steps, stop.out, command)
    interrupted = TrainingInterrupted(recorder.kept, steps, out, command)
    interrupted.args = (
        f"stopped at step {recorder.steps} of {steps}; what was done up to step {recorder.kept} is "
        f"kept. Go on with: {command}",
    )
    return interrupted


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
    first = read_recipe(beside) if begun else _first(recipe, say)
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


def _first(recipe: Recipe, say: Callable[[str], None]) -> Recipe:
    """Return the recipe that another one starts from, on the same data if that is one's own."""
    first = named_recipe(str(recipe.start))
    own = next((part for part in recipe.data.parts if part.files is not None), None)
    if own is None or own.files is None:
        return first
    document = first.model_dump(mode="json")
    data = data_document(document["data"], own.name) | {"files": own.files.model_dump(mode="json")}
    try:
        return prepared(parse_recipe(document | {"data": data}), say=say)
    except ConfigError as error:
        raise ConfigError(
            f"{recipe.name} starts from {first.name}, which is trained on the same data first: "
            f"{error} Train {first.name} with these settings into a folder of its name beside this "
            "run, or set start=null."
        ) from error


def _last_scores(result: TrainResult) -> str:
    """Return a line with the last score on each list of tasks that was followed."""
    curve = result.curve
    if curve is None:
        return ""
    metric = metric_named(curve.metric)
    words = [
        # a regression has no classes
        f"{name if metric.fraction else name.replace('classes', 'tasks')} {metric.number(value)}"
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

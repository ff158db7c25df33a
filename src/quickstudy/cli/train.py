"""``quickstudy train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.cli.output import emit, say
from quickstudy.core import CheckpointError, ConfigError
from quickstudy.core.devices import choose_device, computes_bfloat16
from quickstudy.learners import Learner
from quickstudy.learners.gradient import GradientLearner
from quickstudy.recipes import (
    Recipe,
    build_learner,
    domains,
    get_recipe,
    known_recipes,
    override,
    sources,
)
from quickstudy.runs.folder import manifest, read_facts, read_recipe, save_recipe
from quickstudy.runs.start import check_start, load_start
from quickstudy.tasks import TaskSource
from quickstudy.training import (
    CHECKPOINT,
    TrainingInterrupted,
    TrainResult,
    check_folder,
    train,
)
from quickstudy.training.overfitting import NOVEL, Parting, parting
from quickstudy.training.step import check_config, chosen_schedule

__all__ = ["train_command"]


def train_command(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe; see --list.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("-s", "--set", help="Change a setting: key=value.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; else runs/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Event files too.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Meta-train a recipe and keep the weights that validation chose.

    Example: quickstudy train omniglot-protonet --out runs/x -s steps=2000

    Ctrl-C (or a crash) leaves a run that --resume takes up again.

    Other domains are followed with -s domains=mnist,quickdraw; -s choose_by=mnist lets one choose.
    """
    if list_:
        _list(as_json)
        return
    if recipe is None:
        raise ConfigError("name a recipe; 'quickstudy train --list' shows them.")
    folder = out or Path("runs") / recipe
    chosen = _recipe(recipe, setting or [], folder, resume)
    check_folder(folder, resume=resume)
    result = _train(chosen, folder, resume=resume, device=device, tensorboard=tensorboard)
    found = () if result.curve is None else parting(result.curve)
    for one in found:
        say(f"warning: {one}. {one.advice(kept=result.best_step)}.")
    document = _document(folder, chosen, result, found)
    emit(document, as_json=as_json, text=_summary(folder, chosen, result))


def _train(
    recipe: Recipe, folder: Path, *, resume: bool, device: str, tensorboard: bool
) -> TrainResult:
    """Train a recipe, and first the one it starts from, if that was not trained yet."""
    say(f"{recipe.name}: {recipe.summary}")
    # what is refused is refused before data are read or a folder is made
    learner = build_learner(
        recipe.encoder, recipe.learner, seed=recipe.train.seed, n_way=recipe.n_way
    )
    check_config(learner, recipe.train)
    if recipe.train.precision == "bfloat16" and not computes_bfloat16(choose_device(device)):
        say("note: this processor does not compute bfloat16 itself; float32 is used.")
    followed, more = domains(recipe)
    source, validation, facts = sources(recipe)
    facts |= more
    goes_on = resume and (folder / CHECKPOINT).exists()
    if recipe.start is not None and goes_on:
        facts |= {name: v for name, v in read_facts(folder).items() if name == "start"}
    elif recipe.start is not None:
        facts |= load_start(learner, recipe, _start(recipe, folder, device))
    # data that is too small for such a task is refused before there is a folder to resume
    source.episodes(recipe.train.spec, [0], seed=recipe.train.seed)
    validation.episodes(recipe.train.validation.spec, [0], seed=0)
    _say_schedule(learner, source, recipe)
    try:
        return train(
            learner,
            source,
            recipe.train,
            validation=validation,
            domains=followed,
            out=folder,
            resume=resume,
            device=device,
            manifest=manifest(recipe, facts),
            tensorboard=tensorboard,
            progress=True,
            begun=lambda: save_recipe(folder, recipe, facts),
        )
    except TrainingInterrupted as stop:
        raise KeyboardInterrupt(
            f"stopped at step {stop.step} of {stop.steps}; nothing is lost. "
            f"Go on with: quickstudy train {recipe.name} --out {folder} --resume"
        ) from stop


def _start(recipe: Recipe, folder: Path, device: str) -> Path:
    """Return the folder of the run that a recipe starts from; train it if it is not there."""
    beside = folder.parent / str(recipe.start)
    begun = (beside / "recipe.json").exists()
    first = read_recipe(beside) if begun else get_recipe(str(recipe.start))
    # before it is trained, not after
    check_start(recipe, first, beside)
    if not (beside / "model.safetensors").exists():
        say(f"{recipe.name} starts from the encoder of {recipe.start}, which is trained first.")
        _train(first, beside, resume=begun, device=device, tensorboard=False)
    return beside


def _say_schedule(learner: Learner, source: TaskSource, recipe: Recipe) -> None:
    """Say how the tasks of a step are run, where there is a choice."""
    if isinstance(learner, GradientLearner):
        c = recipe.train
        episode = source.episodes(c.spec, range(c.tasks_per_step), seed=c.seed)
        say(f"inner loop: {chosen_schedule(learner, episode, c)}")


def _document(
    folder: Path, recipe: Recipe, result: TrainResult, found: tuple[Parting, ...]
) -> dict[str, Any]:
    v = recipe.train.validation
    document = {
        "command": "train",
        "run": str(folder),
        "recipe": recipe.name,
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
        document["overfitting"] = [one.to_dict() for one in found]
    return document


def _summary(folder: Path, recipe: Recipe, result: TrainResult) -> str:
    best, regression = result.best_validation, recipe.data.name == "sinusoid"
    what = "tasks" if regression else "classes"
    score = "" if best is None else f"{100 * best:.2f} %"
    if best is not None and regression:
        score = f"mean squared error {-best:.4f}"
    rate = (
        f" ({result.episodes_per_second:.1f} episodes/s, {100 * result.sampling_share:.0f} % of "
        "it sampling)"
        if result.episodes_per_second
        else "; nothing was left to do"
    )
    v = recipe.train.validation
    judge = f"validation {what}" if v.choose_by == NOVEL else f"{v.choose_by}, which chose it"
    return (
        f"{folder}: {result.steps} steps in {result.seconds / 60:.1f} minutes{rate}\n"
        f"kept step {result.best_step}: {score} on {judge}, {v.spec}\n"
        f"{_last(result)}"
        f"next: quickstudy evaluate {folder} {_protocol(recipe)}"
    )


def _last(result: TrainResult) -> str:
    """Return where each list that was followed stands at the end."""
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
    data, v = recipe.data, recipe.train.validation
    words = [f"--data {data.name}"]
    words += ["--rotations"] if data.rotations else []
    words += ["--groups"] if data.group_aware else []
    for option, value in (("--n-way", v.n_way), ("--k-shot", v.k_shot)):
        words.append(f"{option} {'-'.join(map(str, value)) if isinstance(value, tuple) else value}")
    return " ".join(words)


def _recipe(name: str, settings: list[str], folder: Path, resume: bool) -> Recipe:
    """Return the recipe to run: a resumed run's own, with settings changed."""
    recipe = get_recipe(name)
    if not resume:
        return override(recipe, settings)
    saved = folder / "recipe.json"
    if not saved.exists():
        raise CheckpointError(
            f"{saved} is missing: there is no run to resume in {folder}. Name the folder of the "
            "run with --out, or leave --resume off to begin one."
        )
    kept = read_recipe(folder)
    if kept.name != name:
        raise CheckpointError(f"{folder} holds a run of {kept.name!r}, not of {name!r}.")
    return override(kept, settings)


def _list(as_json: bool) -> None:
    recipes = known_recipes()
    width = max(len(name) for name in recipes)
    emit(
        {"command": "train", "recipes": {n: r.model_dump(mode="json") for n, r in recipes.items()}},
        as_json=as_json,
        text="\n".join(f"{name:<{width}}  {r.summary}" for name, r in recipes.items()),
    )

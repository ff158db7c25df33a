"""Checks of a run, data, a result document, or a learner or source of the user's own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quickstudy.checks.findings import CheckReport, Finding, Outcome, Passed
from quickstudy.checks.suite import CheckedData, Suite, check_file, read_data, read_named
from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.core.arguments import checked
from quickstudy.core.imports import call_own, load_attribute, names_code
from quickstudy.core.words import quiet
from quickstudy.learners.base import Learner
from quickstudy.recipes import Recipe
from quickstudy.recipes.data import generated_data
from quickstudy.runs.exposure import chosen_on, trained_on
from quickstudy.runs.folder import RECIPE, Run, load_run
from quickstudy.runs.own import known_part, own_parts
from quickstudy.runs.saved import UNKNOWN_DATA
from quickstudy.tasks import PoolSource, TaskSource
from quickstudy.tasks.datasets import DATASETS, DataPart
from quickstudy.tasks.fit import fit_images, fit_inputs
from quickstudy.tasks.own import is_own

__all__ = ["check", "check_run"]

# queries per class, at most: the checks ask a learner many times
_QUERIES_PER_CLASS = 5


@checked
def check(
    target: str | Path | Run,
    *,
    data: str | Path | None = None,
    n_way: int | tuple[int, int] = 5,
    k_shot: int | tuple[int, int] = 1,
    episodes: int = 1000,
    size: int | None = None,
    channels: int | None = None,
    say: Callable[[str], None] = quiet,
) -> CheckReport:
    """Look for leaks and broken protocol: what is wrong, the evidence, the remedy.

    Args:
        target: a run folder, a named data set, a folder of class folders (or of ``train/``,
            ``val/``, ``test/`` with such), ``module:attribute`` or ``file.py:attribute`` with a
            learner or source of your own, or a JSON document of ``quickstudy evaluate``.
        data: a named data set or a folder whose tasks a learner is given.
        n_way: classes in a task.
        k_shot: support examples of a class.
        episodes: how many episodes of a source are examined.
        size: side in pixels of the images that your own learner takes.
        channels: of these images, 1 or 3.
        say: is called with a sentence at each step.

    Raises:
        ConfigError: if the target does not exist, or a setting does not fit it.
        DataError: if the data or the document cannot be read.

    Example::

        report = check("my/pictures")
        print(report.text())
        report.clean, report.faults
        report.to_dict()  # the document of ``quickstudy check --json``
    """
    if channels not in (None, 1, 3):
        raise ConfigError(f"channels= must be 1 or 3; got {channels}.")
    target = str(target.folder) if isinstance(target, Run) else os.fspath(target)
    data = None if data is None else os.fspath(data)
    if not target or data == "":
        raise ConfigError("an empty text names nothing to check. Give a folder, a name or a file.")
    suite = Suite(EpisodeSpec(n_way, k_shot, _QUERIES_PER_CLASS), episodes, say)
    path = Path(target)
    if path.suffix == ".json":
        reports = [check_file(path)]
    elif (path / RECIPE).is_file():
        reports = check_run(path, data=data, suite=suite)
    elif names_code(target):
        reports = _check_own(target, data, suite, size, channels)
    elif data is not None:
        raise ConfigError(f"data= is for learners; {target} is data itself. Leave it out.")
    else:
        reports = suite.data(read_data(target, say=say))
    return CheckReport.join(target, reports)


def check_run(folder: Path, *, data: str | None, suite: Suite) -> list[CheckReport]:
    """Check the data of a run and its learner, which answers inductively, as when it is judged.

    Args:
        folder: of the run.
        data: a named data set or a folder; ``None`` = the data that it was trained on.
        suite: the checks; the learner gets tasks of the size of its validation tasks.

    Raises:
        CheckpointError: if the run cannot be read.
    """
    run = load_run(folder)
    recipe, learner = run.recipe, run.learner.inductive()
    validation = recipe.train.validation
    n_query = min(_QUERIES_PER_CLASS, validation.n_query)
    spec = EpisodeSpec(validation.n_way, validation.k_shot, n_query)
    generated = generated_data(recipe.data.name)
    if generated is not None:
        source = generated.source("test")
        own = Suite(spec, suite.episodes, suite.say)
        return [own.source(source), *own.learner(learner, source, spec, str(folder))]
    encoder = recipe.encoder
    reports = []
    for name in (data,) if data is not None else tuple(part.name for part in recipe.data.parts):
        known = known_part(recipe, name, folder=folder) if is_own(name) else None
        part = known if is_own(name) else recipe.data.part(name)
        split_file = None if part is None else part.split_file
        if known is not None:
            found = own_parts(recipe, name, known)
        elif part is not None and part.name == UNKNOWN_DATA:
            raise ConfigError(
                f"{folder} was saved without saying what it was trained on. Name data to check it "
                "on."
            )
        elif part is not None:
            found = read_named(name, split_file, size=encoder.image_size, say=suite.say)
        else:
            found = read_data(
                name, size=encoder.image_size, channels=encoder.in_channels, say=suite.say
            )
        tested = fit_inputs(
            found.parts[found.tested],
            channels=encoder.in_channels,
            size=encoder.image_size,
            features=encoder.in_features,
        )
        trained = recipe.data.parts[0] if part is None else part
        title = str(folder) if len(recipe.data.parts) == 1 else f"{folder} on {name}"
        if name in DATASETS and not is_own(name):
            judged = DataPart(name, found.tested, split_file)
            reports.append(CheckReport(title, (_check_exposure(recipe, judged),)))
        reports += suite.data(found)
        reports += suite.learner(learner, PoolSource(tested, trained.group_aware), spec, title)
    return reports


def _check_exposure(recipe: Recipe, judged: DataPart) -> Outcome:
    """Check whether the run has seen the classes that it is judged on."""
    check_name, what = "classes-seen", f"{judged.name} ({judged.split})"
    if trained_on(recipe, judged):
        parts = [f"{p.name} ({p.train}, {p.validation})" for p in recipe.data.parts]
        return Finding(
            check_name,
            "fault",
            f"The run was trained or validated on classes of {what}: a score on them says nothing "
            "about new classes.",
            {"judged": judged._asdict(), "trained": parts},
            "Train on a part that shares no class with the one that is judged.",
        )
    if chosen_on(recipe, judged):
        return Finding(
            check_name,
            "note",
            f"The weights of the run were chosen by their score on classes of {what}: the domain "
            "is not new to it.",
            {"judged": judged._asdict(), "chosen_by": recipe.train.validation.choose_by},
            "Judge it on another domain.",
        )
    return Passed(check_name, f"the run was not trained, validated or chosen on classes of {what}")


def _check_own(
    target: str, data: str | None, suite: Suite, size: int | None, channels: int | None
) -> list[CheckReport]:
    """Check a learner or a source of the user's own, or one that the user's function makes."""
    thing = _load_own(target)
    if isinstance(thing, Learner):
        if data is None:
            raise ConfigError(f"{target} is a learner: name data to ask it about, with data=.")
        wanted = {n: v for n, v in (("size", size), ("channels", channels)) if v is not None}
        found = read_data(data, **wanted, say=suite.say)
        tested = list(found.parts.values())[-1]
        if wanted:
            own = tuple(tested.x.shape[1:])
            tested = fit_images(tested, channels=channels or own[0], size=size or own[1])
        return suite.learner(thing, PoolSource(tested), suite.spec, target)
    if not isinstance(thing, TaskSource):
        what = type(thing).__name__
        raise ConfigError(
            f"{target} is {'nothing (None)' if thing is None else f'of type {what}'}; it must be a "
            "Learner, a TaskSource, or a function without arguments that returns one."
        )
    if data is not None:
        raise ConfigError(f"data= is for learners; {target} is a source of tasks. Leave it out.")
    if isinstance(thing, PoolSource):
        pool = CheckedData({thing.split: thing.pool}, thing.split)
        return [suite.contents(pool), suite.source(thing)]
    return [suite.source(thing)]


def _load_own(target: str) -> Any:
    """Return the object that the user's code names; a function or a class is called."""
    thing = load_attribute(target, example="mypackage.models:build")
    ready = isinstance(thing, Learner) or (
        isinstance(thing, TaskSource) and not inspect.isclass(thing)
    )
    return thing if ready or not callable(thing) else call_own(target, thing)

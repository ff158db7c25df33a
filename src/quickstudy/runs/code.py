"""Runs whose learner is written in a file of the user's own.

Such a run names the file, and loading the run imports the file, which executes it. A run that was
copied from elsewhere must not execute code unasked. Therefore only files are imported from which
this user has trained on this machine, or which are named in ``QUICKSTUDY_CODE``.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError, ConfigError, DataError
from quickstudy.core.arguments import checked
from quickstudy.core.imports import import_file, load_attribute
from quickstudy.recipes import Recipe, get_recipe
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.kinds import LEARNERS, known_learners
from quickstudy.recipes.saved import SavedConfig
from quickstudy.storage.files import replacing
from quickstudy.storage.places import cache_home

__all__ = ["VARIABLE", "code_of", "load_code", "named_recipe", "remember_code"]

VARIABLE = "QUICKSTUDY_CODE"
"""Environment variable: files of learners that may be imported, separated as in ``PATH``."""


@checked
def named_recipe(name: str) -> Recipe:
    """Return a recipe by its name, or from the user's own code.

    Args:
        name: of a recipe, or ``file.py:NAME`` or ``module:NAME``.

    Raises:
        ConfigError: if there is no such recipe.
    """
    if ":" not in name and not name.endswith(".py"):
        return get_recipe(name)
    if ":" not in name:
        raise ConfigError(f"{name} is a file. Name the recipe in it, for example {name}:RECIPE.")
    found = load_attribute(name, example="own_learner.py:RECIPE")
    if not isinstance(found, Recipe):
        raise ConfigError(
            f"{name} is of type {type(found).__name__}; it must be a quickstudy.recipes.Recipe."
        )
    return found


def code_of(recipe: Recipe) -> dict[str, str] | None:
    """Return the file and the class of a learner's configuration.

    ``None`` if its kind is installed, or if it was defined in no file (as in a notebook).
    """
    config = type(recipe.learner)
    if config is SavedConfig:  # ours, though no name stands for it
        return None
    if config in LEARNERS.values() or known_learners().get(config.kind_name()) is config:
        return None
    try:
        return {"file": str(Path(inspect.getfile(config)).resolve()), "class": config.__qualname__}
    except (TypeError, OSError):  # defined in a notebook
        return None


def remember_code(code: Mapping[str, str] | None) -> None:
    """Record that this user trains from a file: runs may import it from now on."""
    if code is None:
        return
    # where the cache cannot be written, loading the run later says how to allow the file
    with contextlib.suppress(OSError, DataError):
        files = sorted({*_remembered(), code["file"]})
        with replacing(cache_home() / "code.json") as part:
            part.write_text(json.dumps(files, indent=0), encoding="utf-8")


def load_code(code: Mapping[str, Any], *, run: Path) -> type[LearnerConfig]:
    """Return the configuration class that a run names.

    Args:
        code: what :func:`code_of` returned when the run was made.
        run: its folder, for errors.

    Raises:
        CheckpointError: if the file may not be imported, cannot be, or does not hold the class.
    """
    file = Path(str(code.get("file")))
    given = [
        Path(path).resolve() for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path
    ]
    # what the user names now comes before what was recorded: the file may lie elsewhere by now.
    # Another remembered file of the same name is never taken: it may hold another learner
    named = [path for path in given if path.name == file.name]
    if named:
        file = named[0]
    elif not file.is_file():
        raise CheckpointError(
            f"the learner of the run in {run} is written in {file}, which is not there any more. "
            f"Put it back, or name where it lies now: {VARIABLE}=/path/{file.name}"
        )
    elif str(file) not in _remembered():
        raise CheckpointError(
            f"the learner of the run in {run} is written in {file}, and nobody has trained "
            f"from that file on this machine. If you trust the file, say so: {VARIABLE}={file}"
        )
    try:
        found = getattr(import_file(file), str(code.get("class")), None)
    except ConfigError as error:
        raise CheckpointError(f"the learner of the run in {run}: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, LearnerConfig)):
        raise CheckpointError(
            f"the run in {run} needs the class {code.get('class')} of {file}, a LearnerConfig, and "
            "it is not there. Put it back."
        )
    return found


def _remembered() -> list[str]:
    """Return the files that :func:`remember_code` recorded; none if the record is unreadable."""
    try:
        files = json.loads((cache_home() / "code.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, DataError):
        return []
    return [file for file in files if isinstance(file, str)] if isinstance(files, list) else []

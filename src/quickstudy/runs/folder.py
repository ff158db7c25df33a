"""A run on disk: its folder, written by training and read by everything else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError, ConfigError
from quickstudy.learners.base import Learner
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.build import build_learner
from quickstudy.recipes.schema import Recipe, parse_recipe
from quickstudy.runs.code import code_of, load_code
from quickstudy.storage.files import write_atomically
from quickstudy.storage.tensors import load_tensors, load_weights
from quickstudy.training import MODEL

__all__ = [
    "RECIPE",
    "Run",
    "load_run",
    "manifest",
    "read_facts",
    "read_recipe",
    "run_folder",
    "save_recipe",
]

RECIPE = "recipe.json"
"""The file in a run folder that holds its recipe and facts about its data."""

# entries of the file that are not facts about data or start
_NOT_FACTS = ("format", "recipe", "code")


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Args:
        folder: the run's folder.
        recipe: the recipe that was trained.
        learner: the learner with the kept weights, in evaluation mode.
        meta: step and validation score of these weights.

    Example::

        run = load_run("runs/omniglot-protonet")
        print(run.recipe.name, run.meta["step"])
        judged = judge(run, "omniglot", n_way=20, k_shot=1)
        print(judged.text())
    """

    folder: Path
    recipe: Recipe
    learner: Learner
    meta: dict[str, Any]


def load_run(folder: str | Path, *, learners: Sequence[type[LearnerConfig]] = ()) -> Run:
    """Return the run in a folder.

    Args:
        folder: the folder that training wrote.
        learners: configuration classes of your own that no file holds, as in a notebook.

    Raises:
        CheckpointError: if the run is missing, unfinished or damaged.
    """
    folder = run_folder(folder)
    if (folder / RECIPE).exists() and not (folder / MODEL).exists():
        raise CheckpointError(
            f"the run in {folder} is not finished. Go on with 'quickstudy train ... --out "
            f"{folder} --resume'."
        )
    recipe = read_recipe(folder, learners=learners)
    tensors, meta = load_tensors(folder / MODEL)
    learner = build_learner(
        recipe.encoder, recipe.learner, seed=recipe.train.seed, n_way=recipe.n_way
    )
    load_weights(learner, tensors, where=str(folder / MODEL))
    learner.eval()
    return Run(folder, recipe, learner, meta)


def read_recipe(folder: Path, *, learners: Sequence[type[LearnerConfig]] = ()) -> Recipe:
    """Return the recipe in a run folder.

    Args:
        folder: of the run.
        learners: as for :func:`load_run`.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = folder / RECIPE
    if isinstance(learners, type):
        raise ConfigError(f"learners is a list of classes; got {learners.__name__}. Put it in one.")
    document = _read_document(folder)
    try:
        known = list(learners)
        kinds = {config.kind_name() for config in known}
        code = document.get("code")
        if isinstance(code, Mapping) and document["recipe"]["learner"].get("kind") not in kinds:
            known.append(load_code(code, run=folder))
        return parse_recipe(document["recipe"], also=known)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Train again.") from error


def read_facts(folder: Path) -> dict[str, str]:
    """Return the facts about data and start that were written into a run folder.

    Raises:
        CheckpointError: if they are missing or damaged.
    """
    return {name: v for name, v in _read_document(folder).items() if name not in _NOT_FACTS}


def save_recipe(out: Path, recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Write the recipe and facts about the data into a run folder."""
    code = code_of(recipe)
    document = {"format": 1, "recipe": recipe.model_dump(mode="json"), **facts}
    if code is not None:
        document["code"] = code
    write_atomically(out / RECIPE, (json.dumps(document, indent=1) + "\n").encode())


def run_folder(path: str | Path) -> Path:
    """Return the path of a run folder.

    Raises:
        ConfigError: if it is empty, no path, or a file.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ConfigError(f"a run is named by its folder; got {path!r}.")
    folder = Path(path)
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; name the folder of a run.")
    return folder


def manifest(recipe: Recipe, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings and facts that must not change when a run is resumed."""
    document = recipe.model_dump(mode="json", exclude={"train", "summary"})
    return {"recipe": document, **facts}


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / RECIPE
    if not path.exists():
        raise CheckpointError(
            f"{folder} holds no run (no {RECIPE}). Name the folder that 'quickstudy train "
            f"--out' wrote."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or "recipe" not in document:
            raise ValueError("it holds no recipe")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Train again.") from error
    return document

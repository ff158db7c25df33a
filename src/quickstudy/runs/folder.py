"""A run on disk: its folder, written by training and read by everything else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError
from quickstudy.learners import Learner
from quickstudy.recipes.build import build_learner
from quickstudy.recipes.schema import Recipe
from quickstudy.storage.files import write_atomically
from quickstudy.storage.tensors import load_tensors, load_weights

__all__ = ["Run", "load_run", "manifest", "read_facts", "read_recipe", "save_recipe"]

_RECIPE = "recipe.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Args:
        folder: where it lies.
        recipe: how it was made.
        learner: with the chosen weights, in evaluation mode.
        meta: step and validation score of these weights.
    """

    folder: Path
    recipe: Recipe
    learner: Learner
    meta: dict[str, Any]


def load_run(folder: Path) -> Run:
    """Return the run in a folder.

    Raises:
        CheckpointError: if it is missing, unfinished or damaged.
    """
    if (folder / _RECIPE).exists() and not (folder / "model.safetensors").exists():
        raise CheckpointError(
            f"the run in {folder} is not finished. Go on with 'quickstudy train ... --out "
            f"{folder} --resume'."
        )
    recipe = read_recipe(folder)
    tensors, meta = load_tensors(folder / "model.safetensors")
    learner = build_learner(
        recipe.encoder, recipe.learner, seed=recipe.train.seed, n_way=recipe.n_way
    )
    load_weights(learner, tensors, where=str(folder / "model.safetensors"))
    learner.eval()
    return Run(folder, recipe, learner, meta)


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe in a run folder.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = folder / _RECIPE
    if not path.exists():
        raise CheckpointError(
            f"{folder} holds no run (no {_RECIPE}). Name the folder that 'quickstudy train "
            f"--out' wrote."
        )
    try:
        return Recipe.model_validate(json.loads(path.read_text(encoding="utf-8"))["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Train again.") from error


def save_recipe(out: Path, recipe: Recipe, facts: dict[str, Any]) -> None:
    """Write the recipe and facts about the data into a run folder."""
    document = {"format": 1, "recipe": recipe.model_dump(mode="json"), **facts}
    write_atomically(out / _RECIPE, (json.dumps(document, indent=1) + "\n").encode())


def read_facts(folder: Path) -> dict[str, str]:
    """Return the facts about data and start that were written into a run folder."""
    read_recipe(folder)  # names what is wrong with the file
    document = json.loads((folder / _RECIPE).read_text(encoding="utf-8"))
    return {name: v for name, v in document.items() if name not in ("format", "recipe")}


def manifest(recipe: Recipe, facts: dict[str, str]) -> dict[str, Any]:
    """Return what must not change when a run is resumed."""
    document = recipe.model_dump(mode="json", exclude={"train", "summary"})
    return {"recipe": document, **facts}

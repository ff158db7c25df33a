"""``quickstudy train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import AsJson
from quickstudy.core import ConfigError
from quickstudy.recipes import known_recipes
from quickstudy.runs.train import train_recipe

__all__ = ["train_command"]

RecipeName = Annotated[
    str | None, typer.Argument(help="Name of a recipe (see --list), or own_learner.py:RECIPE.")
]
Settings = Annotated[
    list[str] | None, typer.Option("-s", "--set", help="Change a setting: key=value.")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; else runs/RECIPE.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Event files too.")]
ListRecipes = Annotated[bool, typer.Option("--list", help="List the recipes.")]


def train_command(
    recipe: RecipeName = None,
    setting: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    tensorboard: TensorBoard = False,
    list_: ListRecipes = False,
    as_json: AsJson = False,
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
    trained = train_recipe(
        recipe,
        setting or [],
        out=out,
        resume=resume,
        device=device,
        tensorboard=tensorboard,
        progress=True,
        say=say,
    )
    emit({"command": "train", **trained.to_dict()}, as_json=as_json, text=trained.text())


def _list(as_json: bool) -> None:
    recipes = known_recipes()
    width = max(len(name) for name in recipes)
    emit(
        {"command": "train", "recipes": {n: r.model_dump(mode="json") for n, r in recipes.items()}},
        as_json=as_json,
        text="\n".join(f"{name:<{width}}  {r.summary}" for name, r in recipes.items()),
    )

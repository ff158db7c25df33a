"""``quickstudy train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import AsJson, Device
from quickstudy.core import ConfigError
from quickstudy.recipes import known_recipes
from quickstudy.runs.train import train_recipe

__all__ = ["train_command"]

RecipeName = Annotated[
    str | None,
    typer.Argument(
        help="Name of a recipe (see --list), or one of your own: own_learner.py:RECIPE."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", help="Change a setting of the recipe: key=value; may be repeated."),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; runs/RECIPE by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write event files for TensorBoard.")
]
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
    """Meta-train a recipe and keep the weights that are best in validation.

    Example: quickstudy train omniglot-protonet --out runs/x -s steps=2000

    After Ctrl-C or a crash, --resume continues the run.

    With -s domains=mnist,quickdraw the accuracy on other domains is followed as
    well; with -s choose_by=mnist the weights are kept that are best on this one.
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

"""``quickstudy train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, on_terminal, say, writable_folder
from quickstudy.cli.protocol import AsJson, Device
from quickstudy.core import ConfigError
from quickstudy.storage.outputs import is_run_folder

__all__ = ["train_command"]

RecipeName = Annotated[
    str | None,
    typer.Argument(
        help="Name of a recipe (see --list), or one of your own: own_learner.py:RECIPE. With "
        "--resume the folder of a run is enough."
    ),
]
OwnData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="What to train on instead of the recipe's data: a folder, table or .npz of your own, "
        "or a named data set.",
    ),
]
ShowSettings = Annotated[
    bool, typer.Option("--show", help="Show every setting with its value and meaning.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", help="Change a setting of the recipe: key=value; may be repeated."),
]
Out = Annotated[str | None, typer.Option(help="Folder of the run; runs/RECIPE by default.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue a run: --resume DIR, or the one in --out.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write event files for TensorBoard.")
]
ListRecipes = Annotated[bool, typer.Option("--list", help="List the recipes.")]


def train_command(
    recipe: RecipeName = None,
    setting: Settings = None,
    data: OwnData = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    tensorboard: TensorBoard = False,
    list_: ListRecipes = False,
    show: ShowSettings = False,
    as_json: AsJson = False,
) -> None:
    """Meta-train a recipe and keep the weights that are best in validation.

    Example: quickstudy train omniglot-protonet --out runs/x -s steps=2000

    Example: quickstudy train cifar-fs-protonet --data my/photos --out runs/mine

    After Ctrl-C or a crash, --resume continues the run; with more steps
    (-s train.steps=4000) also a finished one. --show explains the settings.

    With -s domains=mnist,quickdraw the accuracy on other domains is followed as
    well; with -s choose_by=mnist the weights are kept that are best on this one.
    """
    if list_:
        _list(as_json)
        return
    if show:
        _show(recipe, setting or [], data, as_json)
        return
    if recipe is None and not (resume and out is not None):
        raise ConfigError(
            "name a recipe ('quickstudy train --list' shows them), or a run to go on with: "
            "--resume DIR."
        )
    from quickstudy.runs.train import train_recipe

    if out:
        writable_folder(Path(out), "--out", ours=is_run_folder)
    trained = train_recipe(
        recipe,
        setting or [],
        data=data,
        out=out,
        resume=resume,
        device=device,
        tensorboard=tensorboard,
        progress=on_terminal(),
        say=say,
    )
    emit({"command": "train", **trained.to_dict()}, as_json=as_json, text=trained.text())


def _show(name: str | None, settings: list[str], data: str | None, as_json: bool) -> None:
    if name is None:
        raise ConfigError("name a recipe; 'quickstudy train --list' shows them.")
    from quickstudy.recipes import override
    from quickstudy.recipes.settings import settings_of, settings_text
    from quickstudy.runs.code import named_recipe

    given = settings if data is None else [f"data={data}", *settings]
    recipe = override(named_recipe(name), given)
    found = settings_of(recipe)
    emit(
        {"command": "train", "recipe": recipe.name, "settings": [one.to_dict() for one in found]},
        as_json=as_json,
        text=f"{recipe.name}: {recipe.summary}\n\n{settings_text(found)}",
    )


def _list(as_json: bool) -> None:
    from quickstudy.recipes import known_recipes

    recipes = known_recipes()
    width = max(len(name) for name in recipes)
    emit(
        {"command": "train", "recipes": {n: r.model_dump(mode="json") for n, r in recipes.items()}},
        as_json=as_json,
        text="\n".join(f"{name:<{width}}  {r.summary}" for name, r in recipes.items()),
    )

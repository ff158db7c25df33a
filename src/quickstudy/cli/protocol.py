"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.core import ConfigError

__all__ = [
    "AsJson",
    "Data",
    "Device",
    "EncoderPlace",
    "Episodes",
    "Groups",
    "KShot",
    "NQuery",
    "NWay",
    "Rotations",
    "RunFolder",
    "Seed",
    "TaskFile",
    "given_options",
    "read_number",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Data = Annotated[
    str, typer.Option(help="A named data set, or a folder with one folder of images per class.")
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, mps.")]
Episodes = Annotated[int, typer.Option(help="Number of episodes.")]
KShot = Annotated[
    str, typer.Option("--k-shot", help="Support examples per class: 1, or a range: 1-10.")
]
NQuery = Annotated[int, typer.Option("--n-query", help="Queries per class.")]
NWay = Annotated[
    str | None,
    typer.Option("--n-way", help="Classes per task: 5, or a range: 5-20; 1 in regression."),
]
RunFolder = Annotated[Path, typer.Argument(help="Folder that 'quickstudy train' wrote.")]
Seed = Annotated[
    int, typer.Option(help="Names the list of episodes; another seed gives other episodes.")
]
Rotations = Annotated[
    bool,
    typer.Option(
        "--rotations", help="A class turned by 90, 180 and 270 degrees is three further classes."
    ),
]
Groups = Annotated[
    bool,
    typer.Option(
        "--groups", help="Never put one drawer or track into both support and query of a task."
    ),
]
TaskFile = Annotated[Path, typer.Argument(help="A task file that 'quickstudy fit' wrote.")]
EncoderPlace = Annotated[
    str | None, typer.Option(help="Folder of the task's run or model, if it was moved.")
]


def read_number(text: str, option: str) -> int | tuple[int, int]:
    """Return the number or range in the text of an option, ``"5"`` or ``"5-20"``.

    Raises:
        ConfigError: if it is neither.
    """
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash else int(low)
    except ValueError as error:
        raise ConfigError(
            f"{option} is a whole number or a range like 5-20; got {text!r}."
        ) from error


def given_options(context: typer.Context, *names: str) -> list[str]:
    """Return those of the named parameters whose options are on the command line."""
    return [
        name
        for name in names
        if (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    ]

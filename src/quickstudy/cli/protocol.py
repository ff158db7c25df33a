"""How tasks are named on the command line: options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.core import ConfigError

__all__ = [
    "AsJson",
    "Data",
    "Device",
    "Episodes",
    "Groups",
    "KShot",
    "NQuery",
    "NWay",
    "Rotations",
    "RunFolder",
    "Seed",
    "given_options",
    "read_number",
]

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Data = Annotated[str, typer.Option(help="A named data set, or a folder of class folders.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
Episodes = Annotated[int, typer.Option(help="Number of episodes.")]
KShot = Annotated[str, typer.Option("--k-shot", help="Support per class: 1, or 1-10.")]
NQuery = Annotated[int, typer.Option("--n-query", help="Queries per class.")]
NWay = Annotated[
    str | None, typer.Option("--n-way", help="Classes per task: 5, or 5-20; 1 in regression.")
]
RunFolder = Annotated[Path, typer.Argument(help="Folder that 'quickstudy train' wrote.")]
Seed = Annotated[int, typer.Option(help="Names the list of episodes.")]
Rotations = Annotated[
    bool, typer.Option("--rotations", help="Turned classes are classes of their own.")
]
Groups = Annotated[
    bool, typer.Option("--groups", help="Keep drawers or tracks apart between the sides.")
]


def read_number(text: str, option: str) -> int | tuple[int, int]:
    """Read ``5`` or ``5-20``."""
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash else int(low)
    except ValueError as error:
        raise ConfigError(
            f"{option} is a whole number or a range like 5-20; got {text!r}."
        ) from error


def given_options(context: typer.Context, *names: str) -> list[str]:
    """Return the parameters among these whose options stand on the command line."""
    return [
        name
        for name in names
        if (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    ]

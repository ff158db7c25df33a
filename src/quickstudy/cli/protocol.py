"""How tasks are named on the command line: options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.core import ConfigError

__all__ = [
    "Data",
    "Episodes",
    "Groups",
    "KShot",
    "NQuery",
    "Rotations",
    "Seed",
    "is_folder",
    "read_number",
]

Data = Annotated[str, typer.Option(help="A named data set, or a folder of class folders.")]
KShot = Annotated[str, typer.Option("--k-shot", help="Support per class: 1, or 1-10.")]
NQuery = Annotated[int, typer.Option("--n-query", help="Queries per class.")]
Episodes = Annotated[int, typer.Option(help="Number of episodes.")]
Seed = Annotated[int, typer.Option(help="Names the list of episodes.")]
Rotations = Annotated[
    bool, typer.Option("--rotations", help="Turned classes are classes of their own.")
]
Groups = Annotated[
    bool, typer.Option("--groups", help="Keep drawers or tracks apart between the sides.")
]


def is_folder(data: str) -> bool:
    """Return whether ``--data`` means a folder of class folders, not a named data set."""
    return Path(data).is_dir() or "/" in data or data.startswith(".")


def read_number(text: str, option: str) -> int | tuple[int, int]:
    """Read ``5`` or ``5-20``."""
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash else int(low)
    except ValueError as error:
        raise ConfigError(
            f"{option} is a whole number or a range like 5-20; got {text!r}."
        ) from error

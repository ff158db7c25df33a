"""``quickstudy evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import (
    AsJson,
    Data,
    Device,
    Episodes,
    Groups,
    KShot,
    NQuery,
    NWay,
    Rotations,
    RunFolder,
    Seed,
    given_options,
    read_number,
)
from quickstudy.core import ConfigError
from quickstudy.runs.judging import judge

__all__ = ["evaluate_command"]

Tasks = Annotated[
    Path | None,
    typer.Option(help="The episodes of a file that 'episodes write' wrote, and no others."),
]
Split = Annotated[str | None, typer.Option(help="Part of a named data set; test if not given.")]
InvertInk = Annotated[
    str, typer.Option(help="Dark ink on light paper becomes bright on black: auto, yes, no.")
]
Floor = Annotated[
    bool, typer.Option("--floor", help="Pixel nearest neighbour on the same episodes too.")
]
InnerSteps = Annotated[
    int | None, typer.Option("--inner-steps", min=0, help="Gradient learners: steps at test.")
]
Transductive = Annotated[
    bool,
    typer.Option(
        "--transductive",
        help="Gradient learners: with the statistics of all queries too, and what it gains.",
    ),
]


def evaluate_command(
    context: typer.Context,
    run: RunFolder,
    data: Data,
    n_way: NWay = None,
    k_shot: KShot = "1",
    n_query: NQuery = 15,
    episodes: Episodes = 600,
    tasks: Tasks = None,
    seed: Seed = 0,
    split: Split = None,
    rotations: Rotations = False,
    groups: Groups = False,
    invert: InvertInk = "auto",
    floor: Floor = False,
    inner_steps: InnerSteps = None,
    transductive: Transductive = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a run on tasks, with a 95 % interval: of classes it has never seen, unless --split
    says otherwise.

    Example: quickstudy evaluate runs/x --data omniglot --n-way 20 --k-shot 1 --episodes 600 --json
    """
    if invert not in ("auto", "yes", "no"):
        raise ConfigError(f"--invert must be auto, yes or no; got {invert!r}.")
    numbers = {
        "n_way": None if n_way is None else read_number(n_way, "--n-way"),
        "k_shot": read_number(k_shot, "--k-shot"),
        "n_query": n_query,
        "episodes": episodes,
        "seed": seed,
    }
    if tasks is not None:
        if also := given_options(context, *numbers):
            options = ", ".join(f"--{name.replace('_', '-')}" for name in also)
            raise ConfigError(
                f"--tasks names a list of episodes, and {options} would ask for others. Leave "
                "one of them out."
            )
        numbers = {}
    judged = judge(
        run,
        data,
        **numbers,  # type: ignore[arg-type]
        tasks=tasks,
        split=split,
        rotations=rotations,
        groups=groups,
        invert=invert,  # type: ignore[arg-type]
        floor=floor,
        inner_steps=inner_steps,
        transductive=transductive,
        device=device,
        progress=True,
        say=say,
    )
    emit({"command": "evaluate", **judged.to_dict()}, as_json=as_json, text=judged.text())

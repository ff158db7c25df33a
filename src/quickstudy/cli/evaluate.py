"""``quickstudy evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, on_terminal, say
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

__all__ = ["evaluate_command"]

Tasks = Annotated[
    Path | None,
    typer.Option(help="A file that 'episodes write' wrote: score its episodes and no others."),
]
Split = Annotated[str | None, typer.Option(help="Split of a named data set; test by default.")]
InvertInk = Annotated[
    str,
    typer.Option(
        help="Swap dark and bright: yes, no, or auto (if a folder shows dark ink on light paper)."
    ),
]
Floor = Annotated[
    bool,
    typer.Option("--floor", help="Also score nearest neighbour on pixels, on the same episodes."),
]
Streams = Annotated[
    bool | None,
    typer.Option(
        "--streams/--no-streams",
        help="Also score streams with labels one step late, by instance; by default if the run was "
        "trained on them.",
    ),
]
InnerSteps = Annotated[
    int | None,
    typer.Option("--inner-steps", min=0, help="Gradient learners: number of inner steps at test."),
]
Transductive = Annotated[
    bool,
    typer.Option(
        "--transductive",
        help="Gradient learners: also score with batch norm over all queries, and print the gain.",
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
    streams: Streams = None,
    inner_steps: InnerSteps = None,
    transductive: Transductive = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a run on tasks of classes it has not seen (or of --split), with a 95 % interval.

    Example: quickstudy evaluate runs/x --data omniglot --n-way 20 --k-shot 1 --episodes 600 --json
    """
    from quickstudy.runs.judging import judge

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
        streams=streams,
        inner_steps=inner_steps,
        transductive=transductive,
        device=device,
        progress=on_terminal(),
        say=say,
    )
    emit({"command": "evaluate", **judged.to_dict()}, as_json=as_json, text=judged.text())

"""``quickstudy diversity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import AsJson, Seed

__all__ = ["diversity_command"]


def diversity_command(
    data: Annotated[
        list[str], typer.Argument(help="The domains: two or more named data sets or folders.")
    ],
    run: Annotated[
        Path | None,
        typer.Option(help="Run whose encoder embeds the images; by default pixels are used."),
    ] = None,
    n_way: Annotated[int, typer.Option("--n-way", help="Classes per task.")] = 5,
    k_shot: Annotated[int, typer.Option("--k-shot", help="Support examples per class.")] = 5,
    rank: Annotated[
        int, typer.Option(min=1, help="Number of directions that a linear embedding keeps.")
    ] = 32,
    episodes: Annotated[int, typer.Option(min=2, help="Number of episodes of each domain.")] = 200,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure what one shared embedding costs in tasks of several domains, and what helps.

    Example: quickstudy diversity omniglot cifar-fs quickdraw

    Linear embeddings are learned on half of the classes of each domain, and
    scored on the other half.
    """
    from quickstudy.advice.diversity import domain_diversity

    report = domain_diversity(
        data,
        run=run,
        n_way=n_way,
        k_shot=k_shot,
        rank=rank,
        episodes=episodes,
        seed=seed,
        say=say,
    )
    emit({"command": "diversity", **report.to_dict()}, as_json=as_json, text=report.text())

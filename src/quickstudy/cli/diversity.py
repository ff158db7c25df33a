"""``quickstudy diversity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.advice.diversity import domain_diversity
from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import Seed

__all__ = ["diversity_command"]


def diversity_command(
    data: Annotated[list[str], typer.Argument(help="Named data sets or folders: the domains.")],
    run: Annotated[
        Path | None, typer.Option(help="Embed with the encoder of this run; else pixels.")
    ] = None,
    n_way: Annotated[int, typer.Option("--n-way", help="Classes per task.")] = 5,
    k_shot: Annotated[int, typer.Option("--k-shot", help="Support per class.")] = 5,
    rank: Annotated[int, typer.Option(min=1, help="Directions that an embedding keeps.")] = 32,
    episodes: Annotated[int, typer.Option(min=2, help="Of each domain.")] = 200,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Is one shared embedding enough for tasks of these domains? What sharing costs, what helps.

    Example: quickstudy diversity omniglot cifar-fs quickdraw

    Linear embeddings are learned on half of the classes of each domain and judged on the other.
    """
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

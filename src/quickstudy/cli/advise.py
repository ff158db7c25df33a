"""``quickstudy advise``: which approach fits a folder or table, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, say, writable

__all__ = ["advise_command"]


def advise_command(
    examples: Annotated[
        Path, typer.Argument(help="Folder of class folders, or a table: csv, tsv, jsonl, parquet.")
    ],
    label: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column of what belongs together, e.g. frames of one thing: kept apart."),
    ] = None,
    most: Annotated[
        int | None, typer.Option(help="Examples to measure with, at most; else 2000, tables 5000.")
    ] = None,
    episodes: Annotated[
        int, typer.Option(help="Episodes for each number of labels, at first; 5 or more.")
    ] = 20,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page too.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say which approach to take for your examples, what accuracy to expect, what to run next.

    Example: quickstudy advise photos/ --html advice.html

    Every approach that is installed answers the same quick episodes drawn from the examples. Among
    the approaches not clearly behind the best (at most one point, and not significantly in the
    paired comparison), the simplest is recommended. Where another may be two points ahead, up to
    four times the episodes are drawn. Of a column "split" only the rows "train" are read, of
    folders train/ and test/ only the first; "fit" does the same.
    """
    from quickstudy.advice.advise import advise
    from quickstudy.advice.page import write_advice_page

    if page is not None:
        writable(page, "--html")
    found = advise(
        examples,
        label=label,
        group=group,
        most=most,
        episodes=episodes,
        seed=seed,
        device=device,
        progress=True,
    )
    document = {"command": "advise", **found.to_dict()}
    if page is not None:
        write_advice_page(found, page)
        document["page"] = str(page)
        say(f"{page}: open it in a browser")
    emit(document, as_json=as_json, text=found.text())

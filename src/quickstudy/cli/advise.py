"""``quickstudy advise``: which approach fits a folder or table, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit_written, on_terminal, writable
from quickstudy.cli.protocol import AsJson, Device
from quickstudy.storage.outputs import is_page

__all__ = ["advise_command"]


def advise_command(
    examples: Annotated[
        str, typer.Argument(help="Folder of class folders, or a table: csv, tsv, jsonl, parquet.")
    ],
    label: Annotated[
        str | None, typer.Option(help="Column of the labels; by default found by its name.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Column that names what belongs together, e.g. frames of one film. No such group "
            "is then in both the support and the query of an episode."
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(help="Largest number of examples to use; by default 2000, of a table 5000."),
    ] = None,
    episodes: Annotated[
        int,
        typer.Option(help="Episodes for each number of labels in the first round; at least 5."),
    ] = 20,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    page: Annotated[
        Path | None, typer.Option("--html", help="Also write a page to this file.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say which approach fits your examples, what accuracy to expect, and what to run next.

    Example: quickstudy advise photos/ --html advice.html

    Every approach that is installed classifies the same episodes, drawn from
    your examples. Among the approaches not clearly behind the best (at most one
    point, and not significantly in the paired comparison), the simplest is
    recommended. If another one may be two points ahead, up to four times as
    many episodes are drawn.

    If a table has a column "split", only its rows "train" are read; of folders
    train/ and test/, only train/. 'quickstudy fit' does the same.
    """
    from quickstudy.advice.advise import advise
    from quickstudy.advice.page import write_advice_page

    if page is not None:
        writable(page, "--html", inputs=[examples], ours=is_page)
    found = advise(
        examples,
        label=label,
        group=group,
        most=most,
        episodes=episodes,
        seed=seed,
        device=device,
        progress=on_terminal(),
    )
    emit_written(
        {"command": "advise", **found.to_dict()},
        as_json=as_json,
        text=found.text(),
        page=page,
        write=lambda path: write_advice_page(found, path),
    )

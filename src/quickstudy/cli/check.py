"""``quickstudy check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.checks.page import check_page
from quickstudy.cli.output import emit, say, writable
from quickstudy.cli.protocol import AsJson, KShot, read_number
from quickstudy.runs.checking import check
from quickstudy.storage.files import write_atomically

__all__ = ["check_command"]

Target = Annotated[
    str,
    typer.Argument(
        help="A run folder, a named data set, a folder of class folders (or of train/, val/, "
        "test/ with such), module:attribute or file.py:attribute with a Learner or TaskSource of "
        "your own, or a JSON document of 'evaluate'."
    ),
]
AskedData = Annotated[
    str | None,
    typer.Option(help="What to ask a learner about: a named data set or a folder."),
]
Page = Annotated[Path | None, typer.Option(help="Write a page with the pictures.")]
NWay = Annotated[str, typer.Option("--n-way", help="Classes per task.")]
Episodes = Annotated[int, typer.Option(min=2, help="Episodes to look at.")]
Size = Annotated[
    int | None,
    typer.Option(min=1, help="Side in pixels of the images that your own learner takes."),
]
Channels = Annotated[int | None, typer.Option(help="Of these images: 1 (grey) or 3 (colour).")]


def check_command(
    target: Target,
    data: AskedData = None,
    html: Page = None,
    n_way: NWay = "5",
    k_shot: KShot = "1",
    episodes: Episodes = 1000,
    size: Size = None,
    channels: Channels = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks and broken protocol in a learner or data: what is wrong, the evidence, the
    remedy.

    Exit status 0 if there is no fault (there may be notes), 1 if there is one.

    Example: quickstudy check my/pictures --html check.html

    Example: quickstudy check mypackage.models:build --data omniglot
    """
    way, shot = read_number(n_way, "--n-way"), read_number(k_shot, "--k-shot")
    if html is not None:
        writable(html, "--html")
    report = check(
        target,
        data=data,
        n_way=way,
        k_shot=shot,
        episodes=episodes,
        size=size,
        channels=channels,
        say=say,
    )
    if html is not None:
        write_atomically(html, check_page(report).encode())
        say(f"page: {html}")
    document = {"command": "check", **report.to_dict(), "page": None if html is None else str(html)}
    emit(document, as_json=as_json, text=report.text())
    if not report.clean:
        raise typer.Exit(1)

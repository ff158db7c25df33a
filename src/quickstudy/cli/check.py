"""``quickstudy check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit_written, say, writable
from quickstudy.cli.protocol import AsJson, KShot, read_number
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import is_page

__all__ = ["check_command"]

Target = Annotated[
    str,
    typer.Argument(
        help="What to check: a run folder; a named data set; a folder of class folders, or of "
        "train/, val/, test/ with class folders in them; a Learner or TaskSource of your own as "
        "module:attribute or file.py:attribute; or a JSON document of 'evaluate' or 'compare'."
    ),
]
LearnerData = Annotated[
    str | None,
    typer.Option(help="Data to check a learner on: a named data set or a folder."),
]
Page = Annotated[Path | None, typer.Option(help="Also write a page with pictures to this file.")]
NWay = Annotated[str, typer.Option("--n-way", help="Classes per task.")]
Episodes = Annotated[int, typer.Option(min=2, help="Number of episodes to look at.")]
Size = Annotated[
    int | None,
    typer.Option(min=1, help="Side in pixels of the images that a learner of your own takes."),
]
Channels = Annotated[
    int | None, typer.Option(help="Channels of these images: 1 (grey) or 3 (colour).")
]


def check_command(
    target: Target,
    data: LearnerData = None,
    html: Page = None,
    n_way: NWay = "5",
    k_shot: KShot = "1",
    episodes: Episodes = 1000,
    size: Size = None,
    channels: Channels = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks and broken protocol in data or a learner: faults, evidence, remedies.

    The exit status is 0 if there is no fault (there may be notes), and 1 if
    there is one.

    Example: quickstudy check my/pictures --html check.html

    Example: quickstudy check mypackage.models:build --data omniglot
    """
    from quickstudy.checks.page import check_page
    from quickstudy.runs.checking import check

    way, shot = read_number(n_way, "--n-way"), read_number(k_shot, "--k-shot")
    if html is not None:
        writable(html, "--html", inputs=[target, *([data] if data else [])], ours=is_page)
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
    emit_written(
        {"command": "check", **report.to_dict()},
        as_json=as_json,
        text=report.text(),
        page=html,
        write=lambda path: write_atomically(path, check_page(report).encode()),
    )
    if not report.clean:
        raise typer.Exit(1)

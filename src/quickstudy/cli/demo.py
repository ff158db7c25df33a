"""``quickstudy demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import FAILED, emit, on_terminal, say, writable
from quickstudy.cli.protocol import AsJson, Device
from quickstudy.storage.outputs import is_page

__all__ = ["demo_command"]


def demo_command(
    out: Annotated[Path, typer.Option(help="File for the report.")] = Path("report.html"),
    steps: Annotated[
        int | None,
        typer.Option(help="Training steps; by default as many as take two minutes.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, training episodes and tests.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Meta-train for two minutes, score on classes never seen, and write a report.

    Example: quickstudy demo --out report.html

    If the data set Omniglot is here, the demo trains on handwriting. Otherwise
    it trains on rendered characters, which need no data and no network.
    """
    from quickstudy.demo import run_demo

    writable(out, "--out", ours=is_page)
    result = run_demo(
        out=out, seed=seed, steps=steps, device=device, progress=on_terminal(), say=say
    )
    emit(result.to_dict(), as_json=as_json, text=result.summary())
    if result.unwritten is not None:
        say(f"error: {result.unwritten}")
        raise typer.Exit(FAILED)

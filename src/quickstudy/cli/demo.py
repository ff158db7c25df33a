"""``quickstudy demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, say

__all__ = ["demo_command"]


def demo_command(
    out: Annotated[Path, typer.Option(help="Where the report is written.")] = Path("report.html"),
    steps: Annotated[
        int | None,
        typer.Option(help="Training steps; if not given, two minutes' worth.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, training episodes and tests.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Meta-train for two minutes, score on classes never seen, and write a report.

    Example: quickstudy demo --out report.html

    With Omniglot at hand it trains on handwriting, without data or network on rendered glyphs.
    """
    from quickstudy.demo import run_demo

    result = run_demo(out=out, seed=seed, steps=steps, device=device, say=say)
    emit(result.to_dict(), as_json=as_json, text=result.summary())

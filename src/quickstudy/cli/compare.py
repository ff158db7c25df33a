"""``quickstudy compare``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import FAILED, emit, on_terminal, say, writable_folder
from quickstudy.cli.protocol import AsJson, Seed, read_number
from quickstudy.core import ConfigError
from quickstudy.storage.outputs import is_comparison_folder

__all__ = ["compare_command"]

Runs = Annotated[list[Path], typer.Argument(help="Folders that 'quickstudy train' wrote.")]
DataSets = Annotated[
    list[str] | None,
    typer.Option(help="A named data set, or a folder of class folders; may be repeated."),
]
Domains = Annotated[
    bool,
    typer.Option(
        "--domains", help="Every domain whose data is here; 5-20 classes, 1-10 support examples."
    ),
]
NWay = Annotated[str | None, typer.Option("--n-way", help="Classes per task: 5, or a range: 5-20.")]
KShots = Annotated[
    list[str] | None,
    typer.Option(
        "--k-shot", help="Support examples per class: 1, or a range: 1-10; may be repeated."
    ),
]
NQuery = Annotated[int, typer.Option("--n-query", help="Queries per class.")]
Episodes = Annotated[int, typer.Option(help="Number of episodes in each list of tasks.")]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        help="pixels, neighbour, logistic, fine-tuned, baseline++, or none; may be repeated; all "
        "by default."
    ),
]
Features = Annotated[
    Path | None,
    typer.Option(help="Run whose features the baselines use; by default the first run."),
]
Trained = Annotated[
    bool,
    typer.Option("--trained/--no-trained", help="Also score the classes that were trained on."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for scores, JSON, Markdown and the page; a comparison there is continued."
    ),
]
Workers = Annotated[int | None, typer.Option(help="Number of processes; by default one per core.")]


def compare_command(
    runs: Runs,
    data: DataSets = None,
    domains: Domains = False,
    n_way: NWay = None,
    k_shot: KShots = None,
    n_query: NQuery = 10,
    episodes: Episodes = 600,
    seed: Seed = 0,
    baseline: Baselines = None,
    features: Features = None,
    trained: Trained = True,
    out: Out = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs and plain baselines on the same episodes: accuracy, paired differences, cost.

    Example: quickstudy compare runs/a runs/b --data omniglot --data quickdraw --out compared

    A data set that runs were trained on gives two lists of tasks: one of the
    classes that all of them were trained on, one of the classes that none has
    seen. With --out, a comparison that was stopped is continued.
    """
    from quickstudy.comparing.compare import compare_runs

    if out is not None:
        inputs = [*map(str, runs), *(data or []), *([str(features)] if features else [])]
        writable_folder(out, "--out", inputs=inputs, ours=is_comparison_folder)
    compared = compare_runs(
        runs,
        data or [],
        domains=domains,
        n_way=None if n_way is None else read_number(n_way, "--n-way"),
        k_shot=None if k_shot is None else [read_number(shot, "--k-shot") for shot in k_shot],
        n_query=n_query,
        episodes=episodes,
        seed=seed,
        baselines=_baselines(baseline, features),
        features=features,
        trained=trained,
        out=out,
        workers=workers,
        made_by=shlex.join(["quickstudy", *sys.argv[1:]]),
        progress=on_terminal(),
        say=say,
    )
    emit({"command": "compare", **compared.to_dict()}, as_json=as_json, text=compared.text())
    if compared.unwritten is not None:
        say(f"error: {compared.unwritten}")
        raise typer.Exit(FAILED)


def _baselines(named: list[str] | None, features: Path | None) -> list[str] | None:
    """Return the baselines that are wanted; ``None`` = all."""
    if named is None:
        return None
    if "none" in named and len(set(named)) > 1:
        raise ConfigError(
            f"--baseline none and --baseline {next(b for b in named if b != 'none')} contradict "
            "each other. Leave one out."
        )
    wanted = [name for name in named if name != "none"]
    if features is not None and not wanted:
        raise ConfigError("--features is for baselines, and --baseline none leaves them out.")
    return wanted

"""``quickstudy compare``."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tqdm import tqdm

from quickstudy import __version__
from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import Seed, read_number
from quickstudy.comparing.cells import CellStore
from quickstudy.comparing.contestants import BASELINES, contestants
from quickstudy.comparing.hardest import draw_hardest
from quickstudy.comparing.page import (
    Account,
    comparison_markdown,
    comparison_page,
    comparison_text,
)
from quickstudy.comparing.scoring import compare_runs
from quickstudy.comparing.tasklists import available_domains, task_lists
from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.core.words import count
from quickstudy.runs.folder import read_recipe
from quickstudy.storage.files import write_atomically

__all__ = ["compare_command"]

_DOCUMENT = "comparison.json"


def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="Folders that 'quickstudy train' wrote.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="A named data set or a folder of class folders; may be repeated."),
    ] = None,
    domains: Annotated[
        bool,
        typer.Option(
            "--domains", help="Every domain whose data is at hand; ways 5-20, shots 1-10."
        ),
    ] = False,
    n_way: Annotated[
        str | None, typer.Option("--n-way", help="Classes per task: 5, or 5-20.")
    ] = None,
    k_shot: Annotated[
        list[str] | None,
        typer.Option("--k-shot", help="Support per class: 1, or 1-10; may be repeated."),
    ] = None,
    n_query: Annotated[int, typer.Option("--n-query", help="Queries per class.")] = 10,
    episodes: Annotated[int, typer.Option(help="Episodes of each list.")] = 600,
    seed: Seed = 0,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Of {', '.join(BASELINES)}, or none; may be repeated; all if not given."
        ),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="The run whose features the baselines use; else the first.")
    ] = None,
    trained: Annotated[
        bool, typer.Option("--trained/--no-trained", help="Score the training classes too.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for scores, JSON, Markdown and the page; goes on if it is there."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; one per core if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Compare runs and plain baselines on the same episodes: accuracy, paired differences, cost.

    Example: quickstudy compare runs/a runs/b --data omniglot --data quickdraw --out compared

    A data set that runs were trained on is scored on the classes that all of them have trained on
    and on those that none has seen. With --out a comparison that was stopped goes on where it was.
    """
    start = time.perf_counter()
    names = [*(data or [])]
    if domains:
        names += [name for name in available_domains() if name not in names]
    if not names:
        raise ConfigError("name data with --data NAME, or take every domain with --domains.")
    ways = read_number(n_way or ("5-20" if domains else "5"), "--n-way")
    shots = k_shot or (["1-10"] if domains else ["1"])
    specs = [EpisodeSpec(ways, read_number(shot, "--k-shot"), n_query) for shot in shots]
    if len(set(specs)) < len(specs):
        raise ConfigError(f"--k-shot names a number twice: {', '.join(shots)}. Name each once.")
    wanted = _baselines(baseline, features)
    given = contestants(runs, baselines=wanted, features=features)
    lists, remarks = task_lists(
        [read_recipe(folder).data for folder in runs],
        names,
        specs,
        episodes=episodes,
        seed=seed,
        with_trained=trained,
    )
    total = len(given) * len(lists)
    for remark in remarks:
        say(f"note: {remark}")
    learners = count(len(given), "learner")
    say(f"{learners} on {count(len(lists), 'list')} of {count(episodes, 'task')}")
    if out is not None:
        _warn_of_another(out)
    with tempfile.TemporaryDirectory() as scratch:
        store = CellStore((out or Path(scratch)) / "cells")
        there = sum(store.get(one, tasks) is not None for one in given for tasks in lists)
        if there:
            say(f"{there} of {total} are there already")
        try:
            with tqdm(total=total, unit="cell", file=sys.stderr, dynamic_ncols=True) as bar:
                comparison = compare_runs(
                    given,
                    lists,
                    store=store,
                    workers=workers if workers is not None else os.cpu_count() or 1,
                    progress=bar.update,
                )
        except KeyboardInterrupt as stop:
            kept = (
                "name --out next time, and a stopped comparison can go on"
                if out is None
                else ("the scores that were finished are kept: the same command goes on")
            )
            raise KeyboardInterrupt(f"stopped; {kept}.") from stop
    comparison = replace(comparison, remarks=(*remarks, *comparison.remarks))
    seconds = time.perf_counter() - start
    document: dict[str, Any] = {"command": "compare", **comparison.to_dict(), "seconds": seconds}
    text = comparison_text(comparison)
    if out is not None:
        account = Account(_command(), _facts(), seconds, there)
        title = f"{learners} compared"
        hardest = draw_hardest(given, lists, comparison)
        page = comparison_page(comparison, account, title=title, hardest=hardest)
        markdown = comparison_markdown(comparison, account, title=title)
        write_atomically(out / "comparison.html", page.encode())
        write_atomically(out / "comparison.md", markdown.encode())
        document |= {"page": str(out / "comparison.html"), "scores": str(out / "cells")}
        scored = [
            result | {"scores": cell.report.scores.tolist()}
            for result, cell in zip(document["results"], comparison.cells, strict=True)
        ]
        lasting = {**document, "results": scored, "made_by": _command()}
        write_atomically(out / _DOCUMENT, (json.dumps(lasting, allow_nan=False) + "\n").encode())
        text += f"\n{out / 'comparison.html'}: open it in a browser"
    emit(document, as_json=as_json, text=f"{text}\n{seconds:.0f} seconds")


def _baselines(named: list[str] | None, features: Path | None) -> tuple[str, ...]:
    """Return the baselines that are wanted."""
    if named is None:
        return tuple(BASELINES)
    if "none" in named and len(set(named)) > 1:
        raise ConfigError(
            f"--baseline none and --baseline {next(b for b in named if b != 'none')} contradict "
            "each other. Leave one out."
        )
    wanted = tuple(name for name in named if name != "none")
    if features is not None and not wanted:
        raise ConfigError("--features is for baselines, and --baseline none leaves them out.")
    return wanted


def _warn_of_another(out: Path) -> None:
    """Say that the page of another comparison will be replaced; its scores stay."""
    try:
        before = json.loads((out / _DOCUMENT).read_text(encoding="utf-8"))["made_by"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if before != _command():
        say(f"note: the page in {out} is replaced; it was made by: {before}")


def _command() -> str:
    return shlex.join(["quickstudy", *sys.argv[1:]])


def _facts() -> list[str]:
    return [
        f"Quickstudy {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
    ]

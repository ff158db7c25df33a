"""``quickstudy evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from quickstudy.cli.output import emit, say
from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.evaluation import Report, compare, evaluate
from quickstudy.learners import NearestNeighbour
from quickstudy.recipes import Run, load_run
from quickstudy.tasks import Pool, PoolSource
from quickstudy.tasks.datasets import load_pool
from quickstudy.tasks.fit import Invert, fit_images, looks_dark_on_light
from quickstudy.tasks.folders import pool_from_folder
from quickstudy.training import choose_device

__all__ = ["evaluate_command"]


def evaluate_command(
    run: Annotated[Path, typer.Argument(help="Folder that 'quickstudy train' wrote.")],
    data: Annotated[str, typer.Option(help="A named data set, or a folder of class folders.")],
    n_way: Annotated[str, typer.Option("--n-way", help="Classes per task: 5, or 5-20.")] = "5",
    k_shot: Annotated[str, typer.Option("--k-shot", help="Support per class: 1, or 1-10.")] = "1",
    n_query: Annotated[int, typer.Option("--n-query", help="Queries per class.")] = 15,
    episodes: Annotated[int, typer.Option(help="Number of episodes.")] = 600,
    seed: Annotated[int, typer.Option(help="Names the list of episodes.")] = 0,
    split: Annotated[str, typer.Option(help="Part of a named data set.")] = "test",
    rotations: Annotated[
        bool, typer.Option("--rotations", help="Turned classes are classes of their own.")
    ] = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="Keep drawers or tracks apart between the sides.")
    ] = False,
    invert: Annotated[
        str, typer.Option(help="Dark ink on light paper becomes bright on black: auto, yes, no.")
    ] = "auto",
    floor: Annotated[
        bool, typer.Option("--floor", help="Pixel nearest neighbour on the same episodes too.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Score a run on tasks of classes it has never seen, with a 95 % interval.

    Example: quickstudy evaluate runs/x --data omniglot --n-way 20 --k-shot 1 --episodes 600 --json
    """
    if invert not in ("auto", "yes", "no"):
        raise ConfigError(f"--invert must be auto, yes or no; got {invert!r}.")
    spec = EpisodeSpec(_number(n_way, "--n-way"), _number(k_shot, "--k-shot"), n_query)
    loaded = load_run(run)
    pool = _pool(loaded, data, split, rotations, invert)  # type: ignore[arg-type]
    source = PoolSource(pool, groups)
    name = loaded.recipe.name
    with tqdm(total=episodes, unit="episode", file=sys.stderr, delay=2, dynamic_ncols=True) as bar:
        report = evaluate(
            loaded.learner,
            source,
            spec,
            episodes=episodes,
            seed=seed,
            name=name,
            device=choose_device(device),
            progress=bar.update,
        )
    document: dict[str, Any] = {"command": "evaluate", "run": str(run), **report.to_dict()}
    lines = [
        f"{run} on {pool.name} ({pool.split}, {pool.n_classes} classes), {spec}:",
        f"  {report}",
    ]
    if floor:
        lines += _add_floor(document, report, source, spec)
    emit(document, as_json=as_json, text="\n".join(lines))


def _number(text: str, option: str) -> int | tuple[int, int]:
    """Read ``5`` or ``5-20``."""
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash else int(low)
    except ValueError as error:
        raise ConfigError(
            f"{option} is a whole number or a range like 5-20; got {text!r}."
        ) from error


def _pool(run: Run, data: str, split: str, rotations: bool, invert: Invert) -> Pool:
    """Return the images to judge on, fitted to the run's encoder."""
    encoder, trained = run.recipe.encoder, run.recipe.data
    size, channels = encoder.image_size, encoder.in_channels
    path = Path(data)
    if path.is_dir() or "/" in data or data.startswith("."):
        pool = pool_from_folder(path, size=size, channels=channels)
        ink = trained.name in ("omniglot", "glyphs") and channels == 1
        chosen: Invert = invert if ink or invert != "auto" else "no"
        if chosen == "auto" and looks_dark_on_light(pool):
            say(
                "the pictures look like dark ink on light paper: inverted (--invert no keeps them)."
            )
    else:
        split_file = trained.split_file if data == trained.name else None
        pool = load_pool(data, split=split, split_file=split_file, size=size)
        chosen = "no" if invert == "auto" else invert
    pool = fit_images(pool, channels=channels, size=size, invert=chosen)
    return pool.with_rotations() if rotations else pool


def _add_floor(
    document: dict[str, Any], report: Report, source: PoolSource, spec: EpisodeSpec
) -> list[str]:
    """Score pixel nearest neighbour on the same episodes; returns lines for people."""
    below = evaluate(
        NearestNeighbour(),
        source,
        spec,
        episodes=report.protocol.episodes,
        seed=report.protocol.seed,
        name="pixel nearest neighbour",
    )
    paired = compare(report, below)
    document["floor"] = below.to_dict()
    document["paired"] = {"mean": paired.mean, "ci95": paired.ci95}
    return [
        f"  pixel nearest neighbour on the same episodes: {below}",
        f"  difference: {100 * paired.mean:+.2f} ± {100 * paired.ci95:.2f} points (paired)",
    ]

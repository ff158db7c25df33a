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
    split: Annotated[
        str | None, typer.Option(help="Part of a named data set; test if not given.")
    ] = None,
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
    """Score a run on tasks, with a 95 % interval: of classes it has never seen, unless --split
    says otherwise.

    Example: quickstudy evaluate runs/x --data omniglot --n-way 20 --k-shot 1 --episodes 600 --json
    """
    if invert not in ("auto", "yes", "no"):
        raise ConfigError(f"--invert must be auto, yes or no; got {invert!r}.")
    spec = EpisodeSpec(_number(n_way, "--n-way"), _number(k_shot, "--k-shot"), n_query)
    if not data:
        raise ConfigError("--data is empty; name a data set or a folder of class folders.")
    loaded = load_run(run)
    pool, facts = _pool(loaded, data, split, rotations, invert)  # type: ignore[arg-type]
    if facts["trained_on"]:
        say(
            f"note: {pool.name} ({pool.split}) holds the classes that this run was trained or "
            "validated on; the score says nothing about classes it has never seen."
        )
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
    document["protocol"] |= {**facts, "group_aware": groups}
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


def _pool(
    run: Run, data: str, split: str | None, rotations: bool, invert: Invert
) -> tuple[Pool, dict[str, Any]]:
    """Return the images to judge on, fitted to the run's encoder, and how they were made."""
    encoder, trained = run.recipe.encoder, run.recipe.data
    size, channels = encoder.image_size, encoder.in_channels
    path = Path(data)
    split_file: str | None = None
    if path.is_file():
        raise ConfigError(f"{data} is a file; name a folder of class folders, or a data set.")
    if path.is_dir() or "/" in data or data.startswith("."):
        if split is not None:
            raise ConfigError(f"--split is for named data sets; {data} is a folder.")
        pool = pool_from_folder(path, size=size, channels=channels)
        ink = trained.name in ("omniglot", "glyphs") and channels == 1
        chosen: Invert = "no" if invert == "auto" else invert
        if invert == "auto" and ink and looks_dark_on_light(pool):
            chosen = "yes"
            say(
                "the pictures look like dark ink on light paper: inverted (--invert no keeps them)."
            )
    else:
        split_file = trained.split_file if data == trained.name else None
        pool = load_pool(data, split=split or "test", split_file=split_file, size=size)
        chosen = "no" if invert == "auto" else invert
    fitted = fit_images(pool, channels=channels, size=size, invert=chosen)
    if rotations:
        fitted = fitted.with_rotations()
    facts = {
        "classes": fitted.n_classes,
        "split_file": split_file,
        "rotations": rotations,
        "inverted": chosen == "yes",
        "trained_on": pool.name == trained.name
        and pool.split in (trained.train, trained.validation, "all"),
    }
    return fitted, facts


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
    document["paired"] = paired.to_dict()
    return [
        f"  pixel nearest neighbour on the same episodes: {below}",
        f"  difference: {paired}",
    ]

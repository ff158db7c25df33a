"""``quickstudy evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import (
    Data,
    Episodes,
    Groups,
    KShot,
    NQuery,
    Rotations,
    Seed,
    is_folder,
    read_number,
)
from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.core.devices import choose_device
from quickstudy.evaluation import Paired, Report, compare, evaluate
from quickstudy.learners import Learner, NearestNeighbour
from quickstudy.learners.gradient import GradientLearner
from quickstudy.runs.exposure import chosen_on, trained_on
from quickstudy.runs.folder import Run, load_run
from quickstudy.tasks import Pool, PoolSource, SinusoidSource, TaskSource
from quickstudy.tasks.catalogue import INK_SETS
from quickstudy.tasks.datasets import DataPart, load_pool
from quickstudy.tasks.fit import Invert, fit_images, looks_dark_on_light
from quickstudy.tasks.folders import pool_from_folder
from quickstudy.tasks.published import ListedSource, read_episodes

__all__ = ["add_transductive", "evaluate_command"]


def evaluate_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="Folder that 'quickstudy train' wrote.")],
    data: Data,
    n_way: Annotated[
        str | None, typer.Option("--n-way", help="Classes per task: 5, or 5-20; 1 in regression.")
    ] = None,
    k_shot: KShot = "1",
    n_query: NQuery = 15,
    episodes: Episodes = 600,
    tasks: Annotated[
        Path | None,
        typer.Option(help="The episodes of a file that 'episodes write' wrote, and no others."),
    ] = None,
    seed: Seed = 0,
    split: Annotated[
        str | None, typer.Option(help="Part of a named data set; test if not given.")
    ] = None,
    rotations: Rotations = False,
    groups: Groups = False,
    invert: Annotated[
        str, typer.Option(help="Dark ink on light paper becomes bright on black: auto, yes, no.")
    ] = "auto",
    floor: Annotated[
        bool, typer.Option("--floor", help="Pixel nearest neighbour on the same episodes too.")
    ] = False,
    inner_steps: Annotated[
        int | None, typer.Option("--inner-steps", min=0, help="Gradient learners: steps at test.")
    ] = None,
    transductive: Annotated[
        bool,
        typer.Option(
            "--transductive",
            help="Gradient learners: with the statistics of all queries too, and what it gains.",
        ),
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
    if not data:
        raise ConfigError("--data is empty; name a data set or a folder of class folders.")
    loaded = load_run(run)
    learner = _learner(loaded, inner_steps, transductive)
    ways = n_way or ("1" if data == "sinusoid" else "5")
    if tasks is not None and (
        said := _told(context, "n_way", "k_shot", "n_query", "episodes", "seed")
    ):
        raise ConfigError(
            f"--tasks names a list of episodes, and {', '.join(said)} would ask for others. Leave "
            "one of them out."
        )
    if tasks is not None and "sinusoid" in (data, loaded.recipe.data.name):
        raise ConfigError("--tasks is for data sets of examples, and sine waves have none.")
    spec = EpisodeSpec(read_number(ways, "--n-way"), read_number(k_shot, "--k-shot"), n_query)
    source: TaskSource
    if data == "sinusoid" or loaded.recipe.data.name == "sinusoid":
        source, facts, classes = *_sinusoid(loaded, data, split), ""
    else:
        listed = None if tasks is None else read_episodes(tasks)
        own = loaded.recipe.data.part(data)
        split_file = None if own is None else own.split_file
        if listed is not None:
            split_file = listed.about.get("split_file")
            split = split or (None if is_folder(data) else listed.split)
            rotations = bool(listed.about.get("rotations"))
        pool, facts = _pool(loaded, data, split, split_file, rotations, invert)  # type: ignore[arg-type]
        source, classes = PoolSource(pool, groups), f", {pool.n_classes} classes"
        facts |= {"group_aware": groups}
        if listed is not None:
            source, spec, seed, episodes = (
                ListedSource(pool, listed),
                listed.spec,
                listed.seed,
                len(listed),
            )
            facts |= {"group_aware": listed.group_aware, "tasks_sha256": listed.sha256}
    if facts["trained_on"]:
        say(
            f"note: {source.name} ({source.split}) holds the classes that this run was trained or "
            "validated on; the score says nothing about classes it has never seen."
        )
    if facts.get("chosen_on"):
        say(
            f"note: this run was chosen by its score on {source.name}; the domain is not new to it."
        )
    name = loaded.recipe.name
    with tqdm(total=episodes, unit="episode", file=sys.stderr, delay=2, dynamic_ncols=True) as bar:
        report = evaluate(
            learner,
            source,
            spec,
            episodes=episodes,
            seed=seed,
            name=name,
            device=choose_device(device),
            progress=bar.update,
        )
    document: dict[str, Any] = {"command": "evaluate", "run": str(run), **report.to_dict()}
    document["protocol"] |= facts
    document["scores"] = report.scores.tolist()  # one per episode: the interval can be checked
    lines = [f"{run} on {source.name} ({source.split}{classes}), {spec}:", f"  {report}"]
    if isinstance(learner, GradientLearner):
        document["protocol"]["inner_steps"] = learner.eval().steps
        if learner.normed and (transductive or loaded.recipe.transductive):
            with_queries = learner.judged(query_statistics="query")
            other, gain = add_transductive(document, report, with_queries, source, spec)
            lines += [
                f"  with the statistics of all queries: {other}",
                f"  gain of that: {gain}; it is gone where queries come one at a time",
            ]
    if floor:
        lines += _add_floor(document, report, source, spec)
    emit(document, as_json=as_json, text="\n".join(lines))


def _told(context: typer.Context, *names: str) -> list[str]:
    """Return the options among these that stand on the command line."""
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    ]


def _learner(run: Run, inner_steps: int | None, transductive: bool) -> Learner:
    """Return the learner of a run as it is to be judged: inductively, whatever it trained with."""
    learner = run.learner
    if isinstance(learner, GradientLearner):
        if transductive and not learner.normed:
            say(
                "note: --transductive changes nothing here: this network has no batch norm, so no "
                "query is normalised with another."
            )
        return learner.judged(query_statistics="support", eval_steps=inner_steps)
    if inner_steps is not None or transductive:
        option = "--transductive" if inner_steps is None else "--inner-steps"
        raise ConfigError(
            f"{option} is for gradient learners; {run.recipe.name} is a "
            f"{type(learner).__name__}, which has no inner loop. Leave it out."
        )
    return learner


def _sinusoid(run: Run, data: str, split: str | None) -> tuple[TaskSource, dict[str, Any]]:
    """Return sine waves, which go with runs that were trained on them alone."""
    trained = run.recipe.data
    if data != "sinusoid" or trained.name != "sinusoid":
        raise ConfigError(
            f"{run.recipe.name} was trained on {trained.names} and cannot be judged on {data}: one "
            "is regression on a number, the other is not."
        )
    part = split or "test"
    return SinusoidSource(part), {"trained_on": part in (trained.train, trained.validation)}


def add_transductive(
    document: dict[str, Any],
    report: Report,
    learner: Learner,
    source: TaskSource,
    spec: EpisodeSpec,
) -> tuple[Report, Paired]:
    """Score the same episodes transductively, as the papers do, and write it into a document.

    Args:
        document: gets ``transductive`` and ``transductive_gain``.
        report: of the inductive score.
        learner: the same one, judged with the statistics of all queries.
        source: of the report.
        spec: of the report.

    Returns:
        The report, and what it gains over the inductive one.
    """
    with_queries = evaluate(
        learner,
        source,
        spec,
        episodes=report.protocol.episodes,
        seed=report.protocol.seed,
        name=report.learner,
    )
    gain = compare(with_queries, report, across=("transductive",))
    document["transductive"] = with_queries.to_dict()
    document["transductive_gain"] = gain.to_dict()
    return with_queries, gain


def _pool(
    run: Run,
    data: str,
    split: str | None,
    split_file: str | None,
    rotations: bool,
    invert: Invert,
) -> tuple[Pool, dict[str, Any]]:
    """Return the images to judge on, fitted to the run's encoder, and how they were made."""
    encoder, trained = run.recipe.encoder, run.recipe.data
    size, channels = encoder.image_size, encoder.in_channels
    path = Path(data)
    if path.is_file():
        raise ConfigError(f"{data} is a file; name a folder of class folders, or a data set.")
    if is_folder(data):
        if split is not None:
            raise ConfigError(f"--split is for named data sets; {data} is a folder.")
        pool = pool_from_folder(path, size=size, channels=channels)
        inks = all(part.name in INK_SETS for part in trained.parts)
        ink = inks and channels == 1
        chosen: Invert = "no" if invert == "auto" else invert
        if invert == "auto" and ink and looks_dark_on_light(pool):
            chosen = "yes"
            say(
                "the pictures look like dark ink on light paper: inverted (--invert no keeps them)."
            )
    else:
        pool = load_pool(data, split=split or "test", split_file=split_file, size=size)
        chosen = "no" if invert == "auto" else invert
    fitted = fit_images(pool, channels=channels, size=size, invert=chosen)
    if rotations:
        fitted = fitted.with_rotations()
    judged = None if is_folder(data) else DataPart(data, pool.split, split_file)
    facts = {
        "classes": fitted.n_classes,
        "split_file": split_file,
        "rotations": rotations,
        "inverted": chosen == "yes",
        "trained_on": judged is not None and trained_on(run.recipe, judged),
        "chosen_on": judged is not None and chosen_on(run.recipe, judged),
    }
    return fitted, facts


def _add_floor(
    document: dict[str, Any], report: Report, source: TaskSource, spec: EpisodeSpec
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

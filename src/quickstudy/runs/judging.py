"""Judging a run: its score on episodes, with the protocol that ``quickstudy evaluate`` prints."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.core.arguments import checked
from quickstudy.core.devices import choose_device
from quickstudy.core.limits import check_seed
from quickstudy.core.words import quiet
from quickstudy.evaluation import (
    Paired,
    Report,
    StreamReport,
    compare,
    evaluate,
    evaluate_streams,
)
from quickstudy.learners.base import Learner
from quickstudy.learners.floor import NearestNeighbour
from quickstudy.learners.streams import learned_on_streams
from quickstudy.recipes.data import generated_data
from quickstudy.runs.exposure import chosen_on, trained_on
from quickstudy.runs.folder import Run, load_run
from quickstudy.runs.own import own_part
from quickstudy.tasks import Pool, PoolSource, TaskSource
from quickstudy.tasks.catalogue import INK_SETS
from quickstudy.tasks.datasets import DataPart, load_pool
from quickstudy.tasks.fit import Invert, fit_inputs, looks_dark_on_light
from quickstudy.tasks.own import is_own
from quickstudy.tasks.published import EpisodeList, ListedSource, read_episodes

__all__ = ["Judgement", "judge", "score_floor", "score_transductively"]

Number = int | tuple[int, int]
# of a judgement that asks for no other numbers; 600 is usual in papers
_EPISODES, _QUERIES_PER_CLASS = 600, 15
_INSTANCES = 10  # of each class in a stream, as in Santoro et al. 2016


class _Tasks(NamedTuple):
    """The tasks to judge on."""

    source: TaskSource
    spec: EpisodeSpec
    episodes: int
    seed: int
    facts: dict[str, Any]
    """Entries of the protocol that a report does not hold itself."""
    classes: int | None
    """Number of classes that tasks are drawn from; ``None`` in regression."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The score of a run, with what a reader has to know about it.

    Args:
        run: the run that was judged.
        tasks: the tasks it was judged on, in words.
        report: the score, with each query judged on its own.
        facts: entries of the protocol that the report does not hold itself, such as whether the
            run was trained on these classes.
        notes: sentences that belong beside the number.
        transductive: the score with batch norm over all queries, and its gain over ``report``.
        floor: the score of pixel nearest neighbour on the same episodes, and by how much ``report``
            exceeds it.
        streams: accuracy by instance, in streams that tell each label one step late.

    Example::

        judged = judge("runs/glyphs", "digits", n_way=5, k_shot=1)
        print(judged.text())
        judged.report.mean, judged.facts["trained_on"], judged.notes
        document = judged.to_dict()
    """

    run: Run
    tasks: str
    report: Report
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    transductive: tuple[Report, Paired] | None = None
    floor: tuple[Report, Paired] | None = None
    streams: StreamReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, with the score of each episode; scores are fractions."""
        document: dict[str, Any] = {"run": str(self.run.folder), **self.report.to_dict()}
        document["protocol"] |= self.facts
        document["scores"] = self.report.scores.tolist()  # so that the interval can be checked
        if (found := self.report.likelihood) is not None:
            document["nll_scores"] = found.nll.tolist()
            document["coverage90_scores"] = found.coverage.tolist()
        if self.transductive is not None:
            other, gain = self.transductive
            document["transductive"] = other.to_dict()
            document["transductive_gain"] = gain.to_dict()
        if self.floor is not None:
            below, paired = self.floor
            document["floor"] = below.to_dict()
            document["paired"] = paired.to_dict()
        if self.streams is not None:
            document["streams"] = self.streams.to_dict()
        return document

    def text(self) -> str:
        """Return the score with its interval and what it is over, a line each for comparisons."""
        lines = [f"{self.run.folder} on {self.tasks}:", f"  {self.report}"]
        if self.transductive is not None:
            other, gain = self.transductive
            lines += [
                f"  with the statistics of all queries: {other}",
                f"  gain of that: {gain}; it is gone where queries come one at a time",
            ]
        if self.floor is not None:
            below, paired = self.floor
            lines += [
                f"  pixel nearest neighbour on the same episodes: {below}",
                f"  difference: {paired}",
            ]
        if self.streams is not None:
            lines += [f"  {line}" for line in self.streams.text().splitlines()]
        return "\n".join(lines)


@checked
def judge(
    run: Run | str | Path,
    data: str | Path,
    *,
    n_way: Number | None = None,
    k_shot: Number | None = None,
    n_query: int | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    tasks: str | Path | None = None,
    split: str | None = None,
    rotations: bool = False,
    groups: bool = False,
    invert: Invert = "auto",
    floor: bool = False,
    streams: bool | None = None,
    inner_steps: int | None = None,
    transductive: bool = False,
    device: str = "auto",
    progress: bool = False,
    say: Callable[[str], None] = quiet,
) -> Judgement:
    """Score a run on tasks, with a 95 % interval.

    The classes are ones it has never seen, unless ``split`` names others; a note says so then.

    Args:
        run: a run, or its folder.
        data: a named data set, or the path of a folder, table or file of arrays of one's own, see
            :func:`quickstudy.tasks.own.read_own`. Of data that the run was trained on the classes
            are scored that it kept for the test.
        n_way: classes in a task, or a range; 5 if not given, 1 in regression.
        k_shot: support examples of a class, or a range; 1 if not given.
        n_query: queries of a class; 15 if not given.
        episodes: number of episodes; 600 if not given.
        seed: names the list of episodes; 0 if not given.
        tasks: a file of ``quickstudy episodes write``; its episodes are used and no others.
        split: part of the data; ``"test"`` if not given, or all of it if it has no parts.
        rotations: each class turned by 90, 180 and 270 degrees counts as a further class.
        groups: no drawer or track has examples in both the support and the query of a task.
        invert: ``"yes"`` swaps dark and bright, ``"auto"`` does it, and notes it, where a run that
            was trained on bright ink is given grey pictures with a plain light ground.
        floor: also score pixel nearest neighbour on the same episodes.
        streams: also score streams of these classes, each label told one step late, and give the
            accuracy by instance; ``None`` = if the run was trained on streams.
        inner_steps: of a gradient learner; ``None`` = as in the recipe.
        transductive: also score with batch norm over all queries, and report the gain.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        progress: show a bar on standard error if it takes longer than two seconds.
        say: is called with each note as soon as it is known.

    Raises:
        ConfigError: if settings contradict each other or the run.
        CheckpointError: if the run cannot be read.
        DataError: if the data cannot be read.

    Example::

        judged = judge("runs/glyphs", "digits", n_way=5, k_shot=1, floor=True)
        print(judged.text())
        judged.report.mean, judged.report.ci95
        judged.to_dict()  # the document of ``quickstudy evaluate --json``
    """
    data = os.fspath(data)
    if invert not in ("auto", "yes", "no"):
        raise ConfigError(f"invert must be 'auto', 'yes' or 'no'; got {invert!r}.")
    if split == "":
        raise ConfigError("split= is empty; name a part of the data, or leave it out.")
    if not data:
        raise ConfigError("data= is empty; name a data set, or a folder or file of your own.")
    episodes, seed = _whole("episodes", episodes), _whole("seed", seed)
    check_seed(seed or 0)
    if episodes is not None and episodes < 1:
        raise ConfigError(f"episodes= must be at least 1; got {episodes}.")
    where = choose_device(device)
    given = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query}
    given |= {"episodes": episodes, "seed": seed}
    loaded = run if isinstance(run, Run) else load_run(run)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        say(text)

    learner = _learner(loaded, inner_steps, transductive, note)
    listed = _listed(tasks, loaded, data, given)
    asked = _Asked(data, split, rotations, groups, invert)
    found = _tasks(loaded, asked, given, listed, note)
    _note_exposure(found, note)
    if streams is None:
        streams = learned_on_streams(learner) and isinstance(found.source, PoolSource)
    in_streams = None
    with tqdm(
        total=found.episodes * (1 + streams),
        unit="episode",
        file=sys.stderr,
        delay=2,
        dynamic_ncols=True,
        disable=not progress,
    ) as bar:
        report = evaluate(
            learner,
            found.source,
            found.spec,
            episodes=found.episodes,
            seed=found.seed,
            name=loaded.recipe.name,
            device=where,
            progress=bar.update,
        )
        if streams:
            name = loaded.recipe.name
            in_streams = _score_streams(name, learner, found, where, bar.update)
    if report.likelihood is None and loaded.recipe.data.regression:
        note(
            f"note: {loaded.recipe.name} gives a mean only, and its support examples are too few "
            "to estimate a deviation, so there is no likelihood: it takes 3 of them or more."
        )
    steps = learner.inner_steps_at_test()
    inner = {} if steps is None else {"inner_steps": steps}
    twin = learner.transductive_twin() if transductive or loaded.recipe.transductive else None
    also = None if twin is None else score_transductively(report, twin, found.source, found.spec)
    below = score_floor(report, found.source, found.spec) if floor else None
    classes = "" if found.classes is None else f", {found.classes} classes"
    on = f"{found.source.name} ({found.source.split}{classes}), {found.spec}"
    facts = found.facts | inner
    return Judgement(loaded, on, report, facts, tuple(notes), also, below, in_streams)


def _score_streams(
    name: str,
    learner: Learner,
    tasks: _Tasks,
    where: torch.device,
    progress: Callable[[int], None],
) -> StreamReport:
    """Score streams of the classes of the tasks: as many of them, and as many classes in each."""
    source = tasks.source
    if tasks.classes is None or not isinstance(source, PoolSource):
        raise ConfigError(
            "streams=True needs classes of a data set; sine waves and published lists of episodes "
            "have no streams. Leave it out."
        )
    # one example more of each class is drawn than a stream shows
    most = int(source.pool.counts.min()) - 1
    return evaluate_streams(
        learner,
        PoolSource(source.pool),
        n_way=tasks.spec.max_way,
        instances=min(_INSTANCES, most),
        streams=tasks.episodes,
        seed=tasks.seed,
        name=name,
        device=where,
        progress=progress,
    )


def _whole(name: str, value: Any) -> int | None:
    """Return a whole number of any type as Python's."""
    if value is None:
        return None
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigError(f"{name} must be a whole number; got {value!r}.") from error


def score_transductively(
    report: Report, twin: Learner, source: TaskSource, spec: EpisodeSpec
) -> tuple[Report, Paired]:
    """Score the episodes of a report transductively, as the papers on MAML do.

    Args:
        report: the inductive score.
        twin: the same learner, whose batch norm uses the statistics of all queries.
        source: the source that the report's episodes were drawn from.
        spec: size of these episodes.

    Returns:
        The transductive report, and its gain over the inductive one.
    """
    other = _same_episodes(report, twin, source, spec, name=report.learner)
    return other, compare(other, report, across=("transductive",))


def score_floor(report: Report, source: TaskSource, spec: EpisodeSpec) -> tuple[Report, Paired]:
    """Score pixel nearest neighbour on the episodes of a report.

    Args:
        report: the score of a learner.
        source: the source that the report's episodes were drawn from.
        spec: size of these episodes.

    Returns:
        The report of pixel nearest neighbour, and by how much the first report exceeds it.
    """
    below = _same_episodes(report, NearestNeighbour(), source, spec, name="pixel nearest neighbour")
    return below, compare(report, below)


def _same_episodes(
    report: Report, learner: Learner, source: TaskSource, spec: EpisodeSpec, *, name: str
) -> Report:
    """Score a learner on the episodes of a report: the same number drawn by the same seed."""
    p = report.protocol
    return evaluate(learner, source, spec, episodes=p.episodes, seed=p.seed, name=name)


class _Asked(NamedTuple):
    """The caller's choice of data."""

    data: str
    split: str | None
    rotations: bool
    groups: bool
    invert: Invert


def _learner(
    run: Run, inner_steps: int | None, transductive: bool, note: Callable[[str], None]
) -> Learner:
    """Return the learner of a run as it is judged: inductive, even if training was not."""
    learner = run.learner
    if learner.inner_steps_at_test() is None and (inner_steps is not None or transductive):
        option = "transductive=True" if inner_steps is None else "inner_steps="
        raise ConfigError(
            f"{option} is for gradient learners; {run.recipe.name} is a "
            f"{type(learner).__name__}, which has no inner loop. Leave it out."
        )
    if transductive and learner.transductive_twin() is None:
        note(
            "note: transductive=True changes nothing here: this network has no batch norm, so no "
            "query is normalised with another."
        )
    learner = learner.inductive()
    return learner if inner_steps is None else learner.with_inner_steps(inner_steps)


def _listed(
    tasks: str | Path | None, run: Run, data: str, given: dict[str, Any]
) -> EpisodeList | None:
    """Return the published list of episodes, if one is asked for."""
    if tasks is None:
        return None
    if also := [name for name, value in given.items() if value is not None]:
        raise ConfigError(
            f"tasks names a list of episodes, and {', '.join(also)} would ask for others. Leave "
            "one of them out."
        )
    if run.recipe.data.regression or generated_data(data) is not None:
        raise ConfigError("tasks= is for data sets of examples, and a formula has none.")
    return read_episodes(tasks)


def _tasks(
    run: Run,
    asked: _Asked,
    given: dict[str, Any],
    listed: EpisodeList | None,
    note: Callable[[str], None],
) -> _Tasks:
    """Return the tasks to judge on."""
    recipe, generated = run.recipe, generated_data(asked.data)
    values = {name: value for name, value in given.items() if value is not None}
    episodes, seed = values.pop("episodes", _EPISODES), values.pop("seed", 0)
    defaults = {"n_way": 5 if generated is None else 1, "k_shot": 1, "n_query": _QUERIES_PER_CLASS}
    spec = EpisodeSpec(**(defaults | values))
    if generated is not None or recipe.data.regression:
        if generated is None or generated.regression != recipe.data.regression:
            raise ConfigError(
                f"{recipe.name} was trained on {recipe.data.names} and cannot be judged on "
                f"{asked.data}: one is regression on a number, the other is not."
            )
        part = asked.split or "test"
        seen = {"trained_on": part in (recipe.data.train, recipe.data.validation)}
        return _Tasks(generated.source(part), spec, episodes, seed, seen, None)
    own = recipe.data.part(asked.data)
    split_file = None if own is None else own.split_file
    if listed is not None:
        split_file = listed.about.get("split_file")
        split = asked.split or (None if is_own(asked.data) else listed.split)
        rotations = bool(listed.about.get("rotations"))
        asked = asked._replace(split=split, rotations=rotations)
    pool, facts = _pool(run, asked, split_file, note)
    if listed is None:
        source = PoolSource(pool, asked.groups)
        facts["group_aware"] = asked.groups
        return _Tasks(source, spec, episodes, seed, facts, pool.n_classes)
    facts |= {"group_aware": listed.group_aware, "tasks_sha256": listed.sha256}
    named = ListedSource(pool, listed)
    return _Tasks(named, listed.spec, len(listed), listed.seed, facts, pool.n_classes)


def _pool(
    run: Run, asked: _Asked, split_file: str | None, note: Callable[[str], None]
) -> tuple[Pool, dict[str, Any]]:
    """Return the images to judge on, fitted to the run's encoder, and facts for the protocol."""
    encoder, data = run.recipe.encoder, asked.data
    size, channels = encoder.image_size, encoder.in_channels
    chosen: Invert = "no" if asked.invert == "auto" else asked.invert
    own = own_part(run.recipe, data, asked.split, folder=run.folder) if is_own(data) else None
    if own is not None:
        for left_out in own.notes:
            note(f"note: {left_out}")
        pool = own.pool
        ink = (
            encoder.in_features is None
            and channels == 1
            and all(part.name in INK_SETS for part in run.recipe.data.parts)
        )
        if asked.invert == "auto" and ink and looks_dark_on_light(pool):
            chosen = "yes"
            note(
                "note: most pictures have a plain light ground, as ink on paper has, and the run "
                "was trained on bright ink, so they are inverted. If these are no drawings, take "
                "invert=no."
            )
    else:
        pool = load_pool(data, split=asked.split or "test", split_file=split_file, size=size)
    fitted = fit_inputs(
        pool, channels=channels, size=size, features=encoder.in_features, invert=chosen
    )
    if asked.rotations:
        fitted = fitted.with_rotations()
    judged = None if own is not None else DataPart(data, pool.split, split_file)
    seen = own is not None and own.trained_on
    facts = {
        "classes": fitted.n_classes,
        "split_file": split_file,
        "rotations": asked.rotations,
        "inverted": chosen == "yes",
        "trained_on": seen or (judged is not None and trained_on(run.recipe, judged)),
        "chosen_on": judged is not None and chosen_on(run.recipe, judged),
    }
    return fitted, facts


def _note_exposure(tasks: _Tasks, note: Callable[[str], None]) -> None:
    """Note if the run was trained, validated or chosen on the classes that it is judged on."""
    source = tasks.source
    if tasks.facts["trained_on"]:
        note(
            f"note: {source.name} ({source.split}) holds the classes that this run was trained or "
            "validated on; the score says nothing about classes it has never seen."
        )
    if tasks.facts.get("chosen_on"):
        note(
            f"note: this run was chosen by its score on {source.name}; the domain is not new to it."
        )

"""``advise``: which approach fits a labelled set, and what accuracy to expect of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quickstudy.advice.approaches import Candidate, CandidateFamily, candidate_families
from quickstudy.advice.choice import Results, choose, run_episodes, run_until_clear
from quickstudy.advice.episodes import (
    EpisodeResults,
    Sample,
    confused_pairs,
    eligible_classes,
    take_sample,
)
from quickstudy.advice.expectation import Expectation, expect, label_gain
from quickstudy.advice.records import Advice, ClassSizes, ConfusedPair, DataFacts
from quickstudy.core import ConfigError, DataError, TaskError
from quickstudy.core.arguments import checked
from quickstudy.core.devices import choose_device
from quickstudy.core.limits import check_seed
from quickstudy.core.values import is_missing
from quickstudy.embedders.base import Item
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.inputs import read_texts
from quickstudy.embedders.pictures import read_images
from quickstudy.embedders.tables import TableEmbedder
from quickstudy.evaluation import Mean
from quickstudy.tasks.labelled import (
    LabelledFiles,
    continuous,
    grouped,
    read_examples,
    training_rows,
    without_damaged,
)

__all__ = ["SHOTS", "advise"]

SHOTS = (1, 5, 10)
"""Labels per class at which approaches are compared."""
_CURVE_SHOTS = (1, 2, 3, 5, 10, 20, 50, 100)  # for the gain of one more label
_MOST_WAYS = 20
_MOST_EPISODES = 4  # times the episodes asked for, where the choice is not clear before
_SAMPLE_SIZE = {"image": 2000, "text": 2000, "table": 5000}
_SAMPLE_PER_CLASS = {"image": 300, "text": 300, "table": 1000}
_MOST_SUPPORT = 800  # examples of a support, where larger tasks or shots are measured too
_EPISODES_OF_ALL_CLASSES = 8
_PAIRS_SHOWN = 6
_CLEARLY_BETTER = 0.01  # accuracy above guessing, beyond the interval


# ---------------------------------------------------------------- from the data to the advice


@checked
def advise(
    source: str | Path | LabelledFiles,
    *,
    label: str | None = None,
    group: str | None = None,
    most: int | None = None,
    episodes: int = 20,
    seed: int = 0,
    device: str = "auto",
    cache: EmbeddingCache | None = None,
    progress: bool = False,
) -> Advice:
    """Compare approaches on quick episodes drawn from a user's own examples.

    All approaches answer the same episodes. Of data in parts only the training part is read, see
    :func:`~quickstudy.tasks.labelled.read_examples`. Copies of an example count once; no content
    and no group stands in both the support and the query of an episode.

    Args:
        source: a folder of class folders, a table, or what
            :func:`~quickstudy.tasks.labelled.read_examples` returned.
        label: column of the labels.
        group: column that says what belongs together (frames of one thing, texts of one person).
        most: examples that are embedded, at most; 2,000 (of a table of numbers 5,000).
        episodes: for each number of labels; up to four times as many where the choice needs them.
        seed: of all random draws.
        device: where to embed.
        cache: of embeddings; the shared one by default.
        progress: show on stderr how far it is.

    Returns:
        The advice; the rule of the choice is that of :func:`~quickstudy.advice.choice.choose`.

    Raises:
        DataError: if examples or labels cannot be used.
        TaskError: if there are too few classes or examples for any episode.
        ConfigError: if a setting or column is not usable.
    """
    start = time.perf_counter()
    _check(most, episodes)
    check_seed(seed)
    drawn = seed % 2**64  # NumPy takes no negative seed
    choose_device(device)
    if group is not None and group == label:
        raise ConfigError(f"group= and label= name the same column, {label!r}. Name another group.")
    data = _read(source, label, group)
    sample = data.sample(most, drawn)
    shots = _measurable_shots(sample, data.label)
    embed = partial(candidate_families, seed=drawn, device=device, cache=cache, progress=progress)
    try:
        families, skipped = embed(data.kind, [data.items[row] for row in sample.rows])
    except DataError:
        if (sound := without_damaged(data.read)) is None:
            raise
        again = _read(sound, None, None)
        data = replace(again, name=data.name, notes=[*data.notes, *again.notes])
        sample = data.sample(most, drawn)
        shots = _measurable_shots(sample, data.label)
        families, skipped = embed(data.kind, [data.items[row] for row in sample.rows])
    plan = _Episodes(sample, min(_MOST_WAYS, len(sample.classes)), episodes, drawn, progress)
    results = plan.compare(families, shots)
    choice = choose(results, [c for family in families for c in family.candidates])
    chosen = choice.chosen
    family = next(family for family in families if chosen in family.candidates)
    curve = plan.curve(family, chosen, results)
    facts = _facts(data, sample)
    return Advice(
        source=data.name,
        facts=facts,
        approaches=tuple(choice.table),
        chosen=next(row for row in choice.table if row.name == chosen.name),
        reason=choice.reason,
        expected=tuple(plan.expect(results[k][chosen.name], k) for k in shots),
        whole=tuple(_expect_of_all_classes(plan, family, chosen, shots)),
        gain=label_gain(
            {k: r.scores for k, r in curve.items()}, labels=facts.per_class.median, seed=drawn
        ),
        pairs=_pairs(curve, sample, data),
        skipped=skipped,
        notes=(
            *data.notes,
            *_remarks(sample, shots, facts),
            *_no_better(results, chosen, plan.n_way),
        ),
        command=_command(data.name, chosen, label, group),
        seed=seed,
        seconds=time.perf_counter() - start,
    )


def _check(most: int | None, episodes: int) -> None:
    if episodes < 5:
        raise ConfigError(
            f"episodes= must be at least 5, or no interval means anything; got {episodes}."
        )
    if most is not None and most < 20:
        raise ConfigError(f"most= must be at least 20 examples; got {most}.")


@dataclass(frozen=True, slots=True)
class _UserData:
    """The user's examples, as they are measured.

    Args:
        name: the folder or table.
        kind: ``"image"``, ``"text"`` or ``"table"``.
        items: the examples as embedders read them ``[N]``.
        labels: of each ``[N]``.
        names: of each, for reports ``[N]``.
        groups: what belongs together ``[N]``, or ``None``.
        notes: what was left out.
        read: the examples as they were read.
    """

    name: str
    kind: str
    items: Sequence[Item]
    labels: Sequence[str]
    names: Sequence[str]
    groups: Sequence[object] | None
    notes: Sequence[str]
    read: LabelledFiles

    @property
    def label(self) -> str | None:
        """The column of the labels; ``None`` = there is none, or it is not known."""
        return None if self.read.roles is None else self.read.roles.label

    def sample(self, most: int | None, seed: int) -> Sample:
        """Return the examples that episodes are drawn from."""
        return take_sample(
            [item.key for item in self.items],
            self.labels,
            groups=self.groups,
            most=_SAMPLE_SIZE[self.kind] if most is None else most,
            per_class=_SAMPLE_PER_CLASS[self.kind],
            seed=seed,
        )


def _read(source: str | Path | LabelledFiles, label: str | None, group: str | None) -> _UserData:
    if isinstance(source, LabelledFiles):
        name, read = "examples", training_rows(source)
    else:
        name, read = str(source), read_examples(source, label=label, group=group)
    labels = read.y or []
    if missing := [row for row, value in enumerate(labels) if is_missing(value)]:
        raise DataError(
            f"{read.names[missing[0]]}: there is no label. Fill it in, or leave it out."
        )
    read, groups = grouped(read, group)
    notes = [read.note] if read.note else []
    if read.roles is not None:
        notes.append(f"Columns: {read.roles.text()}.")
    if group is not None and read.kind == "table":
        notes.append(f"The column {group} is no input, here and in the command below.")
    if read.kind == "table":
        items = TableEmbedder().read(read.x)
    else:
        items = read_texts(read.x) if read.kind == "text" else read_images(read.x)
    return _UserData(
        name, read.kind, items, [str(value) for value in labels], read.names, groups, notes, read
    )


def _measurable(sample: Sample, k_shot: int) -> bool:
    """Return whether at least two classes, and half of all, have enough examples."""
    return len(eligible_classes(sample, k_shot)) >= max(2, len(sample.classes) / 2)


def _measurable_shots(sample: Sample, label: str | None) -> tuple[int, ...]:
    """Return the shots at which candidates can be compared.

    Args:
        sample: what episodes are drawn from.
        label: the column of the labels, for errors; ``None`` = there is none.

    Raises:
        TaskError: if there is none; it says what is missing.
    """
    shots = tuple(k for k in SHOTS if _measurable(sample, k))
    if not shots:
        small = int(np.median(sample.counts))
        if sample.group is not None and small >= 3:
            raise TaskError(
                "too few groups: a group never stands on both sides of a task, and more than half "
                "of the classes have too few examples outside their largest group. Label examples "
                "of other groups, or leave group= out."
            )
        if continuous(sample.classes):
            column = "" if label is None else f" in {label!r}"
            raise TaskError(
                f"the labels{column} are {len(sample.classes):,} different numbers, most of them "
                "once: these are measurements, not classes. Name another column with label=, or "
                "make classes of them (low, middle, high)."
            )
        raise TaskError(
            f"too few examples: the median class has {small} different ones, and even 1 "
            "label per class needs 3 in at least half of the classes (1 to learn from, 2 to ask "
            "about). Label more examples."
        )
    return shots


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True, slots=True)
class _Episodes:
    """What all episodes of one advice have in common.

    Args:
        sample: what they are drawn from.
        n_way: classes of an episode.
        episodes: for each shot, at first.
        seed: names the list of episodes.
        progress: show a bar on stderr.
    """

    sample: Sample
    n_way: int
    episodes: int
    seed: int
    progress: bool

    def compare(
        self, families: Sequence[CandidateFamily], shots: Sequence[int]
    ) -> dict[int, dict[str, EpisodeResults]]:
        """Return the results of all candidates, on as many episodes as the choice needs."""
        return run_until_clear(
            self.sample,
            families,
            shots=shots,
            n_way=self.n_way,
            episodes=self.episodes,
            most=_MOST_EPISODES * self.episodes,
            seed=self.seed,
            progress=self.progress,
        )

    def run_one(
        self, family: CandidateFamily, candidate: Candidate, shots: Sequence[int]
    ) -> dict[int, EpisodeResults]:
        """Return the results of one candidate by shot."""
        found = run_episodes(
            self.sample,
            [family],
            shots=shots,
            n_way=self.n_way,
            episodes=self.episodes,
            seed=self.seed,
            only=[candidate.name],
            progress=self.progress,
        )
        return {k: by_name[candidate.name] for k, by_name in found.items()}

    def curve(
        self, family: CandidateFamily, candidate: Candidate, known: Results
    ) -> dict[int, EpisodeResults]:
        """Return the results of one candidate at all shots that are affordable."""
        # the same classes at every shot, or the curve would bend where classes drop out
        eligible = len(eligible_classes(self.sample, min(known)))
        more = [
            k
            for k in _CURVE_SHOTS
            if k not in known
            and k * self.n_way <= _MOST_SUPPORT
            and _measurable(self.sample, k)
            and len(eligible_classes(self.sample, k)) == eligible
        ]
        found = {k: by_name[candidate.name] for k, by_name in known.items()}
        found |= self.run_one(family, candidate, more)
        return {k: found[k] for k in sorted(found)}

    def expect(self, results: EpisodeResults, k_shot: int) -> Expectation:
        """Return the accuracy to expect of the candidate that has these results at one shot."""
        classes = len(eligible_classes(self.sample, k_shot))
        return expect(results, self.sample, k_shot=k_shot, n_way=self.n_way, classes=classes)


def _expect_of_all_classes(
    plan: _Episodes, family: CandidateFamily, chosen: Candidate, shots: Sequence[int]
) -> list[Expectation]:
    """Return the accuracy to expect in the task of all classes, by shot.

    Empty if the episodes have all classes anyway, or where the task is too large to be measured.
    """
    classes = len(plan.sample.classes)
    shots = [
        k
        for k in shots
        if k * classes <= _MOST_SUPPORT and len(eligible_classes(plan.sample, k)) == classes
    ]
    if classes <= plan.n_way or not shots:
        return []
    large = replace(plan, n_way=classes, episodes=min(plan.episodes, _EPISODES_OF_ALL_CLASSES))
    # a head is chosen anew for each shot: the best one depends on it
    return [large.expect(large.run_one(family.frozen(), chosen, [k])[k], k) for k in shots]


# ---------------------------------------------------------------- facts, notes and the command


def _facts(data: _UserData, sample: Sample) -> DataFacts:
    names, counts = np.unique(data.labels, return_counts=True)
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(data.items):
        rows.setdefault(item.key, []).append(row)
    distinct = {(item.key, label) for item, label in zip(data.items, data.labels, strict=True)}
    contradictory = [same for same in rows.values() if len({data.labels[r] for r in same}) > 1]
    prefixes = {str(name).split("/")[0] for name in names}
    nested = all("/" in str(name) for name in names)
    return DataFacts(
        kind=data.kind,
        tasks=len(prefixes) if nested else 1,
        classes=len(names),
        examples=len(data.labels),
        per_class=ClassSizes(int(counts.min()), int(np.median(counts)), int(counts.max())),
        copies=len(data.labels) - len(distinct),
        contradictions=tuple(
            (tuple(data.names[r] for r in same), tuple(data.labels[r] for r in same))
            for same in contradictory
        ),
        used=len(sample.rows),
        used_classes=len(sample.classes),
    )


def _remarks(sample: Sample, shots: Sequence[int], facts: DataFacts) -> list[str]:
    """Return what was not measured, and why."""
    notes = []
    for k in SHOTS:
        able = len(eligible_classes(sample, k))
        if k not in shots:
            notes.append(
                f"{k} labels per class were not measured: only {able} of {len(sample.classes)} "
                f"classes have {k + 2} different examples ({k} to learn from, 2 to ask about)."
            )
        elif able < len(sample.classes):
            notes.append(
                f"With {k} labels per class, {able} of {len(sample.classes)} classes have enough "
                "examples and were measured."
            )
    if facts.used_classes < facts.classes:
        notes.append(
            f"{facts.used_classes} of {facts.classes} classes were drawn, so that each has enough "
            "examples; most= takes more."
        )
    return notes


def _no_better(results: Results, chosen: Candidate, n_way: int) -> list[str]:
    """Return a warning if the recommended candidate is at no shot clearly better than guessing."""
    scores = [Mean.of(by_name[chosen.name].scores, over="episodes") for by_name in results.values()]
    if any(accuracy.low > 1 / n_way + _CLEARLY_BETTER for accuracy in scores):
        return []
    return [
        f"No approach is clearly better than guessing ({100 / n_way:.0f} % of {n_way} classes): "
        "the inputs tell little or nothing about these labels, or there are too few of them."
    ]


def _pairs(
    results: Mapping[int, EpisodeResults], sample: Sample, data: _UserData
) -> tuple[ConfusedPair, ...]:
    """Return the classes that are most often confused, each with its hardest example."""
    asked = sum((r.asked for r in results.values()), np.zeros(1))
    right = sum((r.right for r in results.values()), np.zeros(1))
    # examples that were never a query count as easier than any other
    share = np.divide(right, asked, out=np.full(len(sample.y), 2.0), where=asked > 0)
    found = []
    for a, b, rate in confused_pairs(results)[:_PAIRS_SHOWN]:
        i, j = (int(sample.rows[_hardest(share, sample, c)]) for c in (a, b))
        found.append(
            ConfusedPair(
                sample.classes[a],
                sample.classes[b],
                rate,
                names=(data.names[i], data.names[j]),
                items=(data.items[i], data.items[j]),
            )
        )
    return tuple(found)


def _hardest(share: npt.NDArray[np.float64], sample: Sample, c: int) -> int:
    """Return the place in the sample of the example of a class that is least often right."""
    members = np.flatnonzero(sample.y == c)
    return int(members[np.argmin(share[members])])


def _command(source: str, chosen: Candidate, label: str | None, group: str | None) -> str:
    if chosen.encoder is None:
        inputs = f"  # X: {chosen.inputs}" if chosen.inputs else ""
        return f"in Python, scikit-learn: {chosen.code}.fit(X, y){inputs}"
    out = Path(source).stem or "examples"
    words = ["quickstudy", "fit", source, "--encoder", chosen.encoder, "--head", str(chosen.head)]
    words += ["--label", label] if label else []
    words += ["--group", group] if group else []
    return shlex.join([*words, "--out", f"{out}.task"])

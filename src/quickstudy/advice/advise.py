"""``advise``: which approach fits a labelled set, what to expect of it, what more labels buy."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.advice.approaches import Approach, Contender, contenders
from quickstudy.advice.choice import choose, run_trials, run_until_clear
from quickstudy.advice.episodes import (
    Outcome,
    Sample,
    confused_pairs,
    eligible,
    take_sample,
)
from quickstudy.advice.expectation import Expectation, expect, label_gain
from quickstudy.advice.records import Advice, Facts, Pair
from quickstudy.core import ConfigError, DataError, TaskError
from quickstudy.core.devices import choose_device
from quickstudy.core.values import is_missing
from quickstudy.embedders.base import Item
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.inputs import read_images, read_texts
from quickstudy.embedders.tables import TableEmbedder
from quickstudy.evaluation.statistics import mean_interval
from quickstudy.tasks.labelled import (
    LabelledFiles,
    continuous,
    grouped,
    read_examples,
    training_rows,
)

__all__ = ["SHOTS", "advise"]

SHOTS = (1, 5, 10)
"""Labels per class at which approaches are compared."""
_CURVE = (1, 2, 3, 5, 10, 20, 50, 100)
_WAYS = 20
_LONGER = 4  # times the episodes, where the choice is not clear before
_MOST = {"image": 2000, "text": 2000, "table": 5000}
_PER_CLASS = {"image": 300, "text": 300, "table": 1000}
# a larger task is measured with all its classes as long as its support has so many examples
_WHOLE_SUPPORT, _WHOLE_EPISODES = 800, 8
_PAIRS = 6
_BETTER = 0.01  # than guessing, beyond the interval


# ---------------------------------------------------------------- the way of the data


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
    :func:`~quickstudy.tasks.labelled.read_examples`.
    Copies of an example count once; no content and no group stands on both sides of an episode.

    Args:
        source: a folder of class folders, a table, or what
            :func:`~quickstudy.tasks.labelled.read_examples` returned.
        label: column of the labels.
        group: column that says what belongs together (frames of one thing, texts of one person).
        most: examples that are embedded, at most; 2,000 (of a table of numbers 5,000).
        episodes: per number of labels; up to four times as many where the choice needs them.
        seed: of all draws.
        device: where to embed.
        cache: of embeddings; the shared one by default.
        progress: tell on stderr how far it is.

    Returns:
        The advice; the rule of the choice is that of
        :func:`~quickstudy.advice.choice.choose`.

    Raises:
        DataError: if examples or labels cannot be used.
        TaskError: if there are too few classes or examples for any episode.
        ConfigError: if a setting or column is not usable.
    """
    start = time.perf_counter()
    _check(most, episodes)
    choose_device(device)
    if isinstance(source, LabelledFiles):
        name, read = "examples", training_rows(source)
    else:
        name, read = str(source), read_examples(source, label=label)
    _check_labels(read)
    read, groups = grouped(read, group)
    notes = [read.note] if read.note else []
    if group is not None and read.kind == "table":
        notes.append(f"The column {group} is no input, here and in the command below.")
    items = _items(read)
    labels = [str(value) for value in read.y or []]
    sample = take_sample(
        [item.key for item in items],
        labels,
        groups=groups,
        most=_MOST[read.kind] if most is None else most,
        per_class=_PER_CLASS[read.kind],
        seed=seed,
    )
    shots = _possible(sample)
    used = [items[row] for row in sample.rows]
    tried, skipped = contenders(
        read.kind, used, seed=seed, device=device, cache=cache, progress=progress
    )
    plan = _Plan(sample, min(_WAYS, len(sample.classes)), episodes, seed, progress)
    outcomes = plan.compare(tried, shots)
    approaches = [a for contender in tried for a in contender.approaches]
    chosen, table, reason = choose(outcomes, approaches)
    home = next(c for c in tried if chosen.name in [a.name for a in c.approaches])
    mine = plan.curve(home, chosen.name, outcomes)
    whole = _whole(plan, home, chosen, shots)
    n_way = plan.n_way
    expected = [
        expect(
            outcomes[k][chosen.name],
            sample,
            k_shot=k,
            n_way=n_way,
            classes=len(eligible(sample, k)),
        )
        for k in shots
    ]
    facts = _facts(read, items, labels, sample)
    notes += _remarks(sample, shots, facts)
    notes += _no_better(outcomes, chosen, n_way)
    gain = label_gain({k: o.scores for k, o in mine.items()}, labels=facts.per_class[1], seed=seed)
    return Advice(
        name,
        facts,
        tuple(table),
        next(m for m in table if m.name == chosen.name),
        reason,
        tuple(expected),
        tuple(whole),
        gain,
        _pairs(mine, sample, read.names, items),
        skipped,
        tuple(notes),
        _command(name, chosen, label, group),
        seed,
        time.perf_counter() - start,
    )


def _check(most: int | None, episodes: int) -> None:
    if episodes < 5:
        raise ConfigError(
            f"episodes must be at least 5, or no interval means anything; got {episodes}."
        )
    if most is not None and most < 20:
        raise ConfigError(f"most must be at least 20 examples; got {most}.")


def _check_labels(read: LabelledFiles) -> None:
    y = read.y or []
    if none := [i for i, value in enumerate(y) if is_missing(value)]:
        raise DataError(f"{read.names[none[0]]}: there is no label. Fill it in, or leave it out.")


def _items(read: LabelledFiles) -> list[Item]:
    if read.kind == "table":
        return TableEmbedder().read(read.x)
    return read_texts(read.x) if read.kind == "text" else read_images(read.x)


def _pays(sample: Sample, k_shot: int) -> bool:
    """Return whether at least two classes, and half of all, have enough examples."""
    return len(eligible(sample, k_shot)) >= max(2, len(sample.classes) / 2)


def _possible(sample: Sample) -> tuple[int, ...]:
    shots = tuple(k for k in SHOTS if _pays(sample, k))
    if not shots:
        small = int(np.median(sample.counts))
        if sample.group is not None and small >= 3:
            raise TaskError(
                "too few groups: a group never stands on both sides of a task, and more than half "
                "of the classes have too few examples outside their largest group. Label examples "
                "of other groups, or leave --group out."
            )
        if continuous(sample.classes):
            raise TaskError(
                f"the labels are {len(sample.classes):,} different numbers, most of them once: "
                "these are measurements, not classes. Name another column with --label, or make "
                "classes of them (low, middle, high)."
            )
        raise TaskError(
            f"too few examples: the median class has {small} different ones, and even 1 "
            "label per class needs 3 in at least half of the classes (1 to learn from, 2 to ask "
            "about). Label more examples."
        )
    return shots


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all episodes of one advice share."""

    sample: Sample
    n_way: int
    episodes: int
    seed: int
    progress: bool

    def compare(
        self, tried: Sequence[Contender], shots: Sequence[int]
    ) -> dict[int, dict[str, Outcome]]:
        """Return outcomes by shot and approach, of as many episodes as the choice needs."""
        return run_until_clear(
            self.sample,
            tried,
            shots=shots,
            n_way=self.n_way,
            episodes=self.episodes,
            most=_LONGER * self.episodes,
            seed=self.seed,
            progress=self.progress,
        )

    def run(
        self,
        tried: Sequence[Contender],
        shots: Sequence[int],
        *,
        only: Sequence[str] | None = None,
    ) -> dict[int, dict[str, Outcome]]:
        """Return outcomes by shot and approach."""
        return run_trials(
            self.sample,
            tried,
            shots=shots,
            n_way=self.n_way,
            episodes=self.episodes,
            seed=self.seed,
            only=only,
            progress=self.progress,
        )

    def curve(
        self, home: Contender, name: str, known: Mapping[int, Mapping[str, Outcome]]
    ) -> dict[int, Outcome]:
        """Return the outcomes of one approach at all shots that are affordable."""
        more = [k for k in _CURVE if k not in known and k * self.n_way <= _WHOLE_SUPPORT]
        more = [k for k in more if _pays(self.sample, k)]
        # the same classes at every shot, or the curve would bend where classes drop out
        full = len(eligible(self.sample, min(known)))
        more = [k for k in more if len(eligible(self.sample, k)) == full]
        found = {**known, **self.run([home], more, only=[name])}
        return {k: found[k][name] for k in sorted(found)}


def _whole(
    plan: _Plan, home: Contender, chosen: Approach, shots: Sequence[int]
) -> list[Expectation]:
    """Return what to expect in the task of all classes, where it is larger and affordable."""
    sample, classes = plan.sample, len(plan.sample.classes)
    shots = [
        k for k in shots if k * classes <= _WHOLE_SUPPORT and len(eligible(sample, k)) == classes
    ]
    if classes <= plan.n_way or not shots:
        return []
    large = replace(plan, n_way=classes, episodes=min(plan.episodes, _WHOLE_EPISODES))
    expected = []
    for k in shots:
        found = large.run([home.frozen()], [k], only=[chosen.name])
        outcome = found[k][chosen.name]
        expected.append(expect(outcome, sample, k_shot=k, n_way=classes, classes=classes))
    return expected


# ---------------------------------------------------------------- what else there is to say


def _facts(
    read: LabelledFiles, items: Sequence[Item], labels: Sequence[str], sample: Sample
) -> Facts:
    names, counts = np.unique(labels, return_counts=True)
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(item.key, []).append(row)
    distinct = {(item.key, name) for item, name in zip(items, labels, strict=True)}
    torn = [same for same in rows.values() if len({labels[r] for r in same}) > 1]
    prefixes = {str(name).split("/")[0] for name in names}
    nested = all("/" in str(name) for name in names)
    return Facts(
        read.kind,
        len(prefixes) if nested else 1,
        len(names),
        len(labels),
        (int(counts.min()), int(np.median(counts)), int(counts.max())),
        len(labels) - len(distinct),
        tuple(
            (tuple(read.names[r] for r in same), tuple(labels[r] for r in same)) for same in torn
        ),
        len(sample.rows),
        len(sample.classes),
    )


def _remarks(sample: Sample, shots: Sequence[int], facts: Facts) -> list[str]:
    notes = []
    for k in SHOTS:
        able = len(eligible(sample, k))
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
            "examples; --most takes more."
        )
    return notes


def _no_better(
    outcomes: Mapping[int, Mapping[str, Outcome]], chosen: Approach, n_way: int
) -> list[str]:
    """Say if what is taken is not clearly better than guessing, at any number of labels."""
    scores = [np.array(by_name[chosen.name].scores) for by_name in outcomes.values()]
    if any(float(s.mean()) - mean_interval(s) > 1 / n_way + _BETTER for s in scores):
        return []
    return [
        f"No approach is clearly better than guessing ({100 / n_way:.0f} % of {n_way} classes): "
        "the inputs tell little or nothing about these labels, or there are too few of them."
    ]


def _pairs(
    outcomes: Mapping[int, Outcome], sample: Sample, names: Sequence[str], items: Sequence[Item]
) -> tuple[Pair, ...]:
    """Return the most confused classes, each with its hardest example."""
    asked = sum((o.asked for o in outcomes.values()), np.zeros(1))
    right = sum((o.right for o in outcomes.values()), np.zeros(1))
    share = np.divide(right, asked, out=np.full(len(sample.y), 2.0), where=asked > 0)
    found = []
    for a, b, rate in confused_pairs(outcomes)[:_PAIRS]:
        i, j = (int(sample.rows[_hardest(share, sample, c)]) for c in (a, b))
        pair = Pair(
            sample.classes[a], sample.classes[b], rate, (names[i], names[j]), (items[i], items[j])
        )
        found.append(pair)
    return tuple(found)


def _hardest(share: Any, sample: Sample, c: int) -> int:
    members = np.flatnonzero(sample.y == c)
    return int(members[np.argmin(share[members])])


def _command(source: str, chosen: Approach, label: str | None, group: str | None) -> str:
    if chosen.encoder is None:
        inputs = f"  # X: {chosen.on}" if chosen.on else ""
        return f"in Python, scikit-learn: {chosen.how}.fit(X, y){inputs}"
    out = Path(source).stem or "examples"
    words = ["quickstudy", "fit", source, "--encoder", chosen.encoder, "--head", str(chosen.head)]
    words += ["--label", label] if label else []
    words += ["--group", group] if group else []
    return shlex.join([*words, "--out", f"{out}.task"])

"""The records that advice consists of, and its JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from quickstudy.advice.expectation import Expectation, LabelGain
from quickstudy.embedders.base import Item

__all__ = ["Advice", "ClassSizes", "ConfusedPair", "DataFacts", "Measured"]


class ClassSizes(NamedTuple):
    """The number of examples of the smallest, the median and the largest class."""

    smallest: int
    median: int
    largest: int


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What the file or folder contains.

    Args:
        kind: ``"image"``, ``"text"`` or ``"table"``.
        tasks: number of tasks: classes with the same words before the first ``/`` are one task; 1
            if a class has no ``/``.
        classes: number of classes.
        examples: number of examples, copies included.
        per_class: examples of a class.
        copies: examples whose content is there already under the same label.
        contradictions: for each content with different labels, the names of its examples and their
            labels.
        used: examples in the sample that was measured.
        used_classes: classes in this sample.
    """

    kind: str
    tasks: int
    classes: int
    examples: int
    per_class: ClassSizes
    copies: int
    contradictions: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    used: int
    used_classes: int


@dataclass(frozen=True, slots=True)
class Measured:
    """The accuracy of one approach on the quick episodes. All accuracies are fractions.

    Args:
        name: how reports call it.
        encoder: an encoder of ours, or ``None`` for a method of scikit-learn.
        head: a head of ours, or ``None``.
        shots: mean accuracy and half-width of its 95 % interval over episodes, by shot.
        mean: mean accuracy over shots.
        behind: how far it is behind the best: mean and half-width of the paired 95 % interval, on
            the episodes that both answered.
        episodes: episodes that it answered for each shot.
    """

    name: str
    encoder: str | None
    head: str | None
    shots: Mapping[int, tuple[float, float]]
    mean: float
    behind: tuple[float, float]
    episodes: int


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Two classes that are confused with each other.

    Args:
        first: one of them.
        second: the other.
        rate: share of their queries that are answered with the other class, over all shots.
        names: name of the hardest example of each: the one answered wrong most often.
        items: these examples.
    """

    first: str
    second: str
    rate: float
    names: tuple[str, str]
    items: tuple[Item, Item]


Pair = ConfusedPair  # the old name, which advice/page.py still imports


@dataclass(frozen=True, slots=True)
class Advice:
    """What :func:`~quickstudy.advice.advise.advise` found.

    Args:
        source: the folder or table.
        facts: what it contains.
        approaches: all that were measured, the best first.
        chosen: the recommended one.
        reason: why it is recommended.
        expected: its accuracy to expect, for each shot, in tasks of at most 20 classes.
        whole: the same in the task of all classes, where these are more.
        gain: accuracy gained by one more label per class, or ``None`` where too few shots were
            measured.
        pairs: the classes that are most often confused.
        skipped: for each encoder that is not installed, how to install it.
        notes: what else a user should know.
        command: what to run next.
        seed: of all random draws.
        seconds: the time it took.
    """

    source: str
    facts: DataFacts
    approaches: tuple[Measured, ...]
    chosen: Measured
    reason: str
    expected: tuple[Expectation, ...]
    whole: tuple[Expectation, ...]
    gain: LabelGain | None
    pairs: tuple[ConfusedPair, ...]
    skipped: Mapping[str, str]
    notes: tuple[str, ...]
    command: str
    seed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of ``advise --json``; accuracies are fractions."""
        gain = None if self.gain is None else asdict(self.gain)
        if self.gain is not None and gain is not None:
            gain["extrapolated"] = self.gain.extrapolated
        return {
            "source": self.source,
            "facts": asdict(self.facts),
            "approaches": [_measured(m) for m in self.approaches],
            "chosen": _measured(self.chosen),
            "reason": self.reason,
            "expected": [asdict(e) for e in self.expected],
            "whole": [asdict(e) for e in self.whole],
            "one_more_label": gain,
            "confused": [
                {"classes": [p.first, p.second], "rate": p.rate, "examples": list(p.names)}
                for p in self.pairs
            ],
            "skipped": dict(self.skipped),
            "notes": list(self.notes),
            "next": self.command,
            "seed": self.seed,
            "seconds": round(self.seconds, 2),
        }


def _measured(m: Measured) -> dict[str, Any]:
    gap, half_width = m.behind
    return {
        "name": m.name,
        "encoder": m.encoder,
        "head": m.head,
        "accuracy": {str(k): {"mean": mean, "ci95": half} for k, (mean, half) in m.shots.items()},
        "mean": m.mean,
        "behind_best": {"mean": gap, "ci95": half_width},
        "episodes": m.episodes,
    }

"""What advice consists of: plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from quickstudy.advice.expectation import Expectation, LabelGain
from quickstudy.embedders.base import Item

__all__ = ["Advice", "Facts", "Measured", "Pair"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What lies in the file or folder.

    Args:
        kind: ``"image"``, ``"text"`` or ``"table"``.
        tasks: groups of classes, by what stands before the first ``/`` of every class; 1 if there
            are none.
        classes: how many.
        examples: how many, copies included.
        per_class: smallest, median and largest class.
        copies: examples that were there already, under the same label.
        contradictions: names of examples of the same content under different labels, and these.
        used: examples that were measured with.
        used_classes: classes that they belong to.
    """

    kind: str
    tasks: int
    classes: int
    examples: int
    per_class: tuple[int, int, int]
    copies: int
    contradictions: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    used: int
    used_classes: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One approach on the quick episodes, all fractions.

    Args:
        name: for people.
        encoder: of ours, or ``None``.
        head: of ours, or ``None``.
        shots: mean accuracy and half-width of its 95 % interval over episodes, by shot.
        mean: over shots.
        behind: how far it is behind the best: mean and half-width of the paired 95 % interval, on
            the episodes that both answered.
        episodes: that it answered, for each number of labels.
    """

    name: str
    encoder: str | None
    head: str | None
    shots: Mapping[int, tuple[float, float]]
    mean: float
    behind: tuple[float, float]
    episodes: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two classes that are taken for each other.

    Args:
        first: one of them.
        second: the other.
        rate: share of their queries that are answered with the other one, over all shots.
        names: of each one's hardest example.
        items: these examples.
    """

    first: str
    second: str
    rate: float
    names: tuple[str, str]
    items: tuple[Item, Item]


@dataclass(frozen=True, slots=True)
class Advice:
    """What :func:`~quickstudy.advice.advise.advise` found.

    Args:
        source: the folder or table.
        facts: what lies there.
        approaches: all that were measured, the best first.
        chosen: the one to take.
        reason: why.
        expected: of the chosen one, by shot, in tasks of ``n_way`` classes.
        whole: the same in the task of all classes, where there are more than ``n_way``.
        gain: what one more label per class buys, or ``None`` where too few shots were measured.
        pairs: the classes that are most often confused.
        skipped: encoders that are not installed, and how to install them.
        notes: what else a user should know.
        command: what to run next.
        seed: of all draws.
        seconds: that it took.
    """

    source: str
    facts: Facts
    approaches: tuple[Measured, ...]
    chosen: Measured
    reason: str
    expected: tuple[Expectation, ...]
    whole: tuple[Expectation, ...]
    gain: LabelGain | None
    pairs: tuple[Pair, ...]
    skipped: Mapping[str, str]
    notes: tuple[str, ...]
    command: str
    seed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON: fractions, and keys that are texts."""
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
    shots = {str(k): {"mean": mean, "ci95": half} for k, (mean, half) in m.shots.items()}
    behind = {"mean": m.behind[0], "ci95": m.behind[1]}
    return {
        "name": m.name,
        "encoder": m.encoder,
        "head": m.head,
        "accuracy": shots,
        "mean": m.mean,
        "behind_best": behind,
        "episodes": m.episodes,
    }

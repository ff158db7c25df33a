"""The records that advice consists of, as a JSON document and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from quickstudy.advice.expectation import Expectation, LabelGain, gain_text
from quickstudy.embedders.base import Item
from quickstudy.evaluation import Mean

__all__ = ["Advice", "ClassSizes", "ConfusedPair", "DataFacts", "Measured"]

_SHOWN = 3  # contradictions and pairs in the text; the page has more


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
        shots: accuracy over episodes, by shot.
        mean: mean accuracy over shots.
        behind: how far it is behind the best, paired, on the episodes that both answered.
        episodes: episodes that it answered for each shot.
    """

    name: str
    encoder: str | None
    head: str | None
    shots: Mapping[int, Mean]
    mean: float
    behind: Mean
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

    def text(self) -> str:
        """Return the advice in words: what there is, what to take and why, what to expect."""
        chosen = self.chosen
        lines = [*self._facts(), "", *self._approaches()]
        lines += ["", f"take: {chosen.name}", f"why: {self.reason}"]
        lines += ["", _expected("in tasks of", self.expected)] if self.expected else []
        lines += [_expected("in the task of all", self.whole)] if self.whole else []
        lines.append(gain_text(self.gain))
        if self.pairs:
            worst = [f"{p.first} / {p.second} ({100 * p.rate:.0f} %)" for p in self.pairs[:_SHOWN]]
            lines.append(f"most often taken for each other: {', '.join(worst)}")
        lines += list(self.notes)
        lines += ["", f"next: {self.command}", f"({self.seconds:.0f} s)"]
        return "\n".join(lines)

    def _facts(self) -> list[str]:
        facts = self.facts
        low, middle, high = facts.per_class
        return [
            f"{self.source}: {facts.examples:,} {facts.kind} examples of {facts.classes} classes "
            f"in {facts.tasks} task{'s' * (facts.tasks > 1)}; per class {low} to {high}, "
            f"median {middle}",
            f"copies: {facts.copies}; the same content under different labels: "
            f"{len(facts.contradictions)}",
            *(
                f"  {', '.join(names)}: labelled {', '.join(labels)}"
                for names, labels in facts.contradictions[:_SHOWN]
            ),
            f"measured with {facts.used:,} examples of {facts.used_classes} classes, "
            f"seed {self.seed}",
        ]

    def _approaches(self) -> list[str]:
        """Return the table of all approaches, and those that are missing in it."""
        chosen = self.chosen
        over = f"95 % CI over {chosen.episodes} episodes"
        lines = [f"accuracy, % ({over}), by labels per class: {', '.join(map(str, chosen.shots))}"]
        width = max(len(m.name) for m in self.approaches)
        for m in self.approaches:
            cells = "  ".join(mean.cell(digits=1, aligned=True) for mean in m.shots.values())
            fewer = f"  ({m.episodes} episodes)" if m.episodes < chosen.episodes else ""
            lines.append(f"{'>' if m is chosen else ' '} {m.name:<{width}}  {cells}{fewer}")
        return lines + [f"  {name}: not measured. {why}" for name, why in self.skipped.items()]


def _expected(what: str, found: tuple[Expectation, ...]) -> str:
    cells = [f"{e.k_shot} label{'s' * (e.k_shot > 1)}: {e}" for e in found]
    return (
        f"expect {what} {found[0].n_way} classes (90 % interval for one fresh draw of labels, on "
        f"new examples; {found[0].episodes} episodes): " + "; ".join(cells)
    )


def _measured(m: Measured) -> dict[str, Any]:
    return {
        "name": m.name,
        "encoder": m.encoder,
        "head": m.head,
        "accuracy": {str(k): mean.to_dict() for k, mean in m.shots.items()},
        "mean": m.mean,
        "behind_best": m.behind.to_dict(),
        "episodes": m.episodes,
    }

"""What a task holds and how far it can be trusted, as numbers and names: for its page and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from quickstudy.estimators.answers import Suspect
from quickstudy.estimators.explaining import worth_checking
from quickstudy.estimators.labels import Label
from quickstudy.estimators.report import report_on
from quickstudy.estimators.support import Support
from quickstudy.estimators.version import TaskVersion

__all__ = [
    "Confusion",
    "Mistaken",
    "count_confusion",
    "example_name",
    "odds_in_words",
    "task_contents",
]

_MOST_ODDS = 1000.0  # a few examples cannot tell a thousand to one from a million to one


@dataclass(frozen=True, slots=True)
class Mistaken:
    """Examples of one class that were answered with another one, each held out.

    Args:
        label: the class of the examples.
        answer: the class they were taken for.
        count: how many they are.
        examples: how many examples of the class were held out in turn.
    """

    label: Label
    answer: Label
    count: int
    examples: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """How the examples are answered by what was learned from the others.

    Args:
        counts: examples of class ``row`` answered with class ``column``, int ``[C, C]``.
        classes: the labels, in this order.
    """

    counts: np.ndarray[Any, np.dtype[np.int64]]
    classes: tuple[Label, ...]

    @property
    def judged(self) -> int:
        """The number of examples that were held out in turn."""
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        """The number of these that were answered with their label."""
        return int(self.counts.trace())

    def pairs(self) -> list[Mistaken]:
        """Return the pairs of classes of which one is taken for the other, most examples first."""
        totals = self.counts.sum(1)
        wrong = np.argwhere(self.counts * ~np.eye(len(self.classes), dtype=bool))
        found = [
            Mistaken(self.classes[r], self.classes[c], int(self.counts[r, c]), int(totals[r]))
            for r, c in wrong
        ]
        return sorted(found, key=lambda pair: (-pair.count, -pair.count / pair.examples))


def count_confusion(support: Support, ranked: Sequence[Suspect]) -> Confusion:
    """Return which classes are mistaken for which.

    Args:
        support: the labelled examples.
        ranked: of :meth:`TaskVersion.suspects` with ``all=True``: each example with the strongest
            other class, judged by what was learned without the example.
    """
    column = {label: i for i, label in enumerate(support.classes)}
    counts = np.zeros((support.n_way, support.n_way), dtype=np.int64)
    for one in ranked:
        answer = column[one.suggestion] if one.evidence > 0 else support.y[one.row]
        counts[support.y[one.row], answer] += 1
    return Confusion(counts, support.classes)


def odds_in_words(evidence: float) -> str:
    """Return log-odds as people say them: ``"19 to 1"``.

    Args:
        evidence: natural logarithm of the odds, above 0.
    """
    odds = math.exp(min(evidence, 50.0))
    if odds > _MOST_ODDS:
        return f"more than {_MOST_ODDS:,.0f} to 1"
    return f"{odds:.0f} to 1" if odds >= 1.95 else "about even"


def example_name(support: Support, row: int) -> str:
    """Return the file or row that an example came from, or its number."""
    return support.items[row].source or f"example {row}"


def task_contents(version: TaskVersion) -> dict[str, Any]:
    """Return what a task holds, as JSON-ready values: the document of ``quickstudy show``.

    Args:
        version: the task.
    """
    support, ranked = version.support, version.suspects(all=True)
    confusion = count_confusion(support, ranked)
    judged, right = confusion.counts.sum(1), confusion.counts.diagonal()
    return {
        "encoder": version.embedder.name,
        "head": version.head_name,
        "expected_accuracy": asdict(version.estimate_accuracy()),
        "report": asdict(report_on(version.task)),
        "classes": [
            {"label": label, "examples": int(n), "held_out": int(judged[c]), "right": int(right[c])}
            for c, (label, n) in enumerate(zip(support.classes, support.counts, strict=True))
        ],
        "examples": [
            {"row": row, "name": example_name(support, row), "label": support.label(row)}
            for row in range(len(support.items))
        ],
        "suspects": [
            {
                "row": one.row,
                "source": example_name(support, one.row),
                "label": one.label,
                "suggestion": one.suggestion,
                "evidence": one.evidence,
                "odds": odds_in_words(one.evidence),
            }
            for one in worth_checking(ranked, version.task)
        ],
        "conflicts": [
            {
                "rows": list(one.rows),
                "sources": [example_name(support, row) for row in one.rows],
                "labels": list(one.labels),
            }
            for one in support.conflicts()
        ],
        "confusion": {
            "held_out": confusion.judged,
            "right": confusion.right,
            "pairs": [asdict(pair) for pair in confusion.pairs()],
        },
    }

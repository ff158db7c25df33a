"""How well answers agree with the right labels: accuracy, a table by class, what was mistaken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.core.words import shortened
from quickstudy.estimators.labels import Label, MatchedLabels, match_labels

__all__ = ["Agreement", "ClassAgreement", "agreement"]

_MOST_CONFUSIONS_SHOWN = 5
_MOST_CLASSES_SHOWN = 30
_MOST_CHARACTERS = 30  # of a label in the table


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """How one class was answered.

    Args:
        label: the class.
        n: inputs of this class.
        right: how many of them were answered with it.
        answered: inputs that were answered with it, of whatever class.
    """

    label: Label
    n: int
    right: int
    answered: int

    @property
    def recall(self) -> float | None:
        """The share of the inputs of this class that were answered with it."""
        return self.right / self.n if self.n else None

    @property
    def precision(self) -> float | None:
        """The share of the answers with this class that were right."""
        return self.right / self.answered if self.answered else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "label": self.label,
            "n": self.n,
            "right": self.right,
            "answered": self.answered,
            "recall": self.recall,
            "precision": self.precision,
        }


@dataclass(frozen=True, slots=True)
class Agreement:
    """Answers beside the right labels.

    Args:
        n: inputs that have both an answer and a label.
        right: how many of these answers are right. An input whose label is no class of the task
            counts, and is never right.
        classes: the classes among labels or answers, in the task's order.
        confusions: how often an input of the first label was answered with the second, most
            frequent first.
        strange: inputs whose label is no class of the task.
        matched: what each label was taken for.

    Example::

        from quickstudy.estimators.agreement import agreement
        found = agreement(["a", "b", "b"], ["a", "b", "a"], ["a", "b"])
        print(found.accuracy, found.text())
    """

    n: int
    right: int
    classes: tuple[ClassAgreement, ...]
    confusions: Mapping[tuple[Label, Label], int]
    strange: int
    matched: MatchedLabels

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; ``None`` if no input has both an answer and a label."""
        return self.right / self.n if self.n else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "accuracy": self.accuracy,
            "per_class": [one.to_dict() for one in self.classes],
            "confusions": [
                {"label": label, "answer": answer, "n": n}
                for (label, answer), n in self.confusions.items()
            ],
            "labels_that_are_no_class": self.strange,
        }

    def text(self) -> str:
        """Return the report for people: a table by class, mistakes in words, what labels mean."""
        # with very many classes those that went worst
        shown = sorted(self.classes, key=lambda one: 1.0 if one.recall is None else one.recall)
        few = set(map(id, shown[:_MOST_CLASSES_SHOWN]))
        rows = [one for one in self.classes if id(one) in few]
        names = [shortened(str(one.label), _MOST_CHARACTERS) for one in rows]
        width = max([5, *map(len, names)])
        lines = [f"{'class':<{width}}  inputs  right  recall  precision"]
        for name, one in zip(names, rows, strict=True):
            recall, precision = _percent(one.recall), _percent(one.precision)
            lines.append(
                f"{name:<{width}}  {one.n:>6}  {one.right:>5}  {recall:>6}  {precision:>9}"
            )
        if more := len(self.classes) - len(rows):
            lines.append(f"... and {more:,} more")
        of = {one.label: one.n for one in self.classes}
        for (label, answer), n in list(self.confusions.items())[:_MOST_CONFUSIONS_SHOWN]:
            was = "was" if n == 1 else "were"
            a, b = (shortened(str(name), _MOST_CHARACTERS) for name in (label, answer))
            lines.append(f"{n} of {of[label]} {a!r} {was} taken for {b!r}")
        if self.strange:
            have = "input has" if self.strange == 1 else "inputs have"
            lines.append(
                f"{self.strange:,} {have} a label that is no class of the task: no answer is right"
            )
        return "\n".join([*lines, *filter(None, [self.matched.text()])])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def agreement(
    answers: Sequence[Label | None],
    labels: Sequence[Any],
    classes: Sequence[Label],
    unknown: Label | None = None,
) -> Agreement:
    """Compare answers with the right labels.

    Labels in another spelling of the same value count as the same, see
    :func:`quickstudy.estimators.labels.match_labels`.

    Args:
        answers: of the task ``[N]``; ``None`` = no answer.
        labels: as the user gave them ``[N]``; those that are missing are left out.
        classes: of the task ``[C]``.
        unknown: the word for inputs of no class, which may be a right label too.
    """
    names = [*classes, *([] if unknown is None else [unknown])]
    matched = match_labels(labels, names)
    column = {(type(name), name): c for c, name in enumerate(names)}
    missing = set(matched.missing)
    pairs: list[tuple[int, int]] = []
    for row, (answer, wanted) in enumerate(zip(answers, matched.columns.tolist(), strict=True)):
        if answer is not None and row not in missing:
            pairs.append((wanted, column[type(answer), answer]))
    n, answered = Counter(w for w, _ in pairs), Counter(a for _, a in pairs)
    right = Counter(w for w, a in pairs if w == a)
    mistaken = Counter((w, a) for w, a in pairs if w not in (a, -1))
    return Agreement(
        len(pairs),
        right.total(),
        tuple(
            ClassAgreement(names[c], n[c], right[c], answered[c])
            for c in range(len(names))
            if n[c] or answered[c]
        ),
        {(names[w], names[a]): times for (w, a), times in mistaken.most_common()},
        n[-1],
        matched,
    )

"""Records that the classifier returns: answers, edits, explanations and doubts about labels."""

from __future__ import annotations

from dataclasses import dataclass

from quickstudy.estimators.labels import Label

__all__ = ["Answer", "Conflict", "Edit", "Explanation", "Neighbour", "Suspect"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the classifier says about one input.

    Args:
        label: the nearest class; or ``unknown``, if that is set and the input fits no class.
        nearest: the nearest class, also if the label is ``unknown``.
        probability: of the nearest class, given that the input belongs to one of the classes.
        known: whether the input is near enough to belong to a class at all.
        labels: those that cannot be ruled out; ``None`` if no coverage was given.

    Example::

        clf = FewShotClassifier("table").fit([[1.0, 2.0], [8.0, 9.0]], ["small", "large"])
        answer = clf.answer([[7.0, 9.0]], coverage=0.9)[0]
        print(answer.label, answer.probability, answer.known, answer.labels)
    """

    label: Label
    nearest: Label
    probability: float
    known: bool
    labels: tuple[Label, ...] | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """What a change of the task did.

    Args:
        what: for example ``"added class 'okapi' with 5 examples"``.
        n_classes: number of classes after the change.
        n_examples: number of examples after the change.
        others_unchanged: whether the scores of the other classes are the same as before, bit for
            bit.
        seconds: how long it took, embedding included.

    Example::

        clf = FewShotClassifier("table").fit([[1.0, 2.0], [8.0, 9.0]], ["small", "large"])
        edit = clf.add_class("medium", [[4.0, 5.0]])
        print(edit, edit.n_classes, edit.others_unchanged)
    """

    what: str
    n_classes: int
    n_examples: int
    others_unchanged: bool
    seconds: float

    def __str__(self) -> str:
        others = (
            "the other classes' scores are unchanged"
            if self.others_unchanged
            else "the other classes' scores may have moved: this head fits all classes together"
        )
        return (
            f"{self.what} in {self.seconds:.2f} s: {self.n_classes} classes, {self.n_examples} "
            f"examples; {others}"
        )


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A support example near a query.

    Args:
        row: in the support.
        label: of the example.
        distance: to the query, between unit vectors: from 0 to 2.
        source: path or name of the example, if it has one.
    """

    row: int
    label: Label
    distance: float
    source: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a query gets its label.

    Args:
        label: the class with the highest score.
        probability: of this class.
        runner_up: the class with the second highest score; ``None`` if there is one class only.
        margin: score of the label minus that of the runner-up; 0 = undecided.
        known: whether the query is near enough to belong to a class at all.
        supports: the nearest support examples, nearest first.

    Example::

        clf = FewShotClassifier("table").fit([[1.0, 2.0], [8.0, 9.0]], ["small", "large"])
        why = clf.explain([[7.0, 9.0]], n=1)[0]
        print(why, why.margin, why.supports[0].label)
    """

    label: Label
    probability: float
    runner_up: Label | None
    margin: float
    known: bool
    supports: tuple[Neighbour, ...]

    def __str__(self) -> str:
        against = "" if self.runner_up is None else f", {self.margin:.3g} ahead of {self.runner_up}"
        near = ", ".join(f"{s.label} at {s.distance:.3g}" for s in self.supports)
        unsure = "" if self.known else "; far from every example, perhaps none of these classes"
        return f"{self.label} ({100 * self.probability:.0f} %{against}{unsure}); nearest: {near}"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A support example whose label looks wrong, judged by the other examples.

    Args:
        row: in the support.
        label: of the example.
        suggestion: the class that a head fitted to the other examples predicts.
        evidence: log-odds of the suggestion against the label; above 0 the others contradict it.
        source: path or name of the example, if it has one.

    Example::

        X, y = [[0.0], [0.2], [0.1], [9.0], [9.1], [9.2]], ["low"] * 3 + ["high", "high", "low"]
        suspect = FewShotClassifier("table").fit(X, y).suspects(all=True)[0]
        print(suspect, suspect.row, suspect.suggestion)
    """

    row: int
    label: Label
    suggestion: Label
    evidence: float
    source: str | None

    def __str__(self) -> str:
        name = self.source or f"example {self.row}"
        return f"{name}: labelled {self.label}, looks like {self.suggestion} ({self.evidence:+.1f})"


@dataclass(frozen=True, slots=True)
class Conflict:
    """The same example under more than one label.

    Args:
        rows: of the example in the support, ``n``.
        labels: its label in each of these rows, ``n``.
        sources: its path or name in each of these rows, if it has one, ``n``.
    """

    rows: tuple[int, ...]
    labels: tuple[Label, ...]
    sources: tuple[str | None, ...]

"""What the classifier answers besides labels: plain records that print as a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from quickstudy.estimators.labels import Label

__all__ = ["Answer", "Conflict", "Edit", "Explanation", "Neighbour", "Suspect"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the classifier says about one input.

    Args:
        label: the nearest class, or ``unknown`` where that is set and the input fits none.
        nearest: the nearest class, also where the answer is ``unknown``.
        probability: of the nearest class, given that the input belongs to one of them.
        known: whether the input is near enough to the task to belong to a class at all.
        labels: those that cannot be ruled out at the coverage that was asked for, or ``None``.
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
        n_classes: classes after it.
        n_examples: examples after it.
        others_unchanged: whether the scores of the classes that were not edited are bit-identical
            to those before.
        seconds: that it took, embedding included.
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
    """A support example near a query: its row in the support, label, distance and source."""

    row: int
    label: Label
    distance: float
    source: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a query was answered as it was.

    Args:
        label: the answer.
        probability: of it.
        runner_up: the second class, if there is one.
        margin: score of the answer minus that of the runner-up; 0 = undecided.
        known: whether the query is near enough to the task to belong to it at all.
        supports: the nearest support examples, nearest first.
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
        label: that it has.
        suggestion: the class the others would give it.
        evidence: log-odds of the suggestion against the label; above 0 the others disagree.
        source: path or name of the example.
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
    """The same example under more than one label: rows in the support, and their labels."""

    rows: tuple[int, ...]
    labels: tuple[Label, ...]
    sources: tuple[str | None, ...]

"""In words: whether a prior knows such tasks, and what each number of an estimator rests on."""

from __future__ import annotations

from dataclasses import dataclass

from quickstudy.fitting.task import FittedTask

__all__ = ["Report", "report_on"]

# accuracy above guessing from which more examples may tell that something was learned
_PROMISING = 0.15
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Report:
    """What an estimator knows of a task, for people to read.

    Args:
        familiar: the data that the prior knows and the task is most like; ``None`` = none.
        prior: whether such tasks are known, in words.
        basis: what probabilities, prediction sets and the expected accuracy rest on.
        strangers: what is refused as unknown, and how much of the unknown is.
        accuracy: what to expect of new examples.
        nothing_learned: whether answers cannot be told from guessing.

    Example::

        report = FewShotClassifier("array").fit(torch.randn(20, 8), [0, 1] * 10).report()
        print(report)
        report.familiar, report.nothing_learned
    """

    familiar: str | None
    prior: str
    basis: str
    strangers: str
    accuracy: str
    nothing_learned: bool

    def lines(self) -> list[str]:
        """Return its sentences."""
        return [self.prior, self.basis, self.accuracy, self.strangers]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def report_on(task: FittedTask, false_rejects: float = 0.05) -> Report:
    """Return the report on a task.

    Args:
        task: what was learned of it.
        false_rejects: share of the inputs of its classes that may be refused as unknown.
    """
    return Report(
        task.familiar,
        _prior(task),
        _basis(task),
        _strangers(task, false_rejects),
        _accuracy(task),
        task.nothing_learned,
    )


def _prior(task: FittedTask) -> str:
    if task.prior.columns:
        return "Prior: none for tables. Everything here comes from this table."
    if not task.prior.learned:
        return "Prior: none for this encoder. Everything here comes from the task's own examples."
    if task.familiar is not None:
        return f"Prior: it knows such tasks. These examples lie where those of {task.familiar} lie."
    names = [source.name for source in task.prior.known][:_MOST_NAMED]
    known = f" (it knows {', '.join(names)})" if names else ""
    here = "what is said here holds in all that it knows, and is therefore vague"
    if task.enough_held_out:
        here = "it hardly counts here, as the task judges itself"
    return f"Prior: it does not know such tasks{known}; {here}."


def _basis(task: FittedTask) -> str:
    n = int(task.evidence.judged.sum())
    what = "Probabilities and prediction sets"
    if task.enough_held_out:
        together = "" if task.groups is None else " together with its group"
        return f"{what} rest on {n} of the task's own examples, each held out in turn{together}."
    if not task.prior.learned:
        needed = "different examples" if task.groups is None else "groups"
        return (
            f"{what} rest on nothing: too little can be held out. Every class is in every set; "
            f"give at least two {needed} per class."
        )
    return f"{what} rest on other tasks alone: too little can be held out here."


def _accuracy(task: FittedTask) -> str:
    if task.state_classes < 2:
        return "Accuracy: there is one class only."
    said = task.expected_accuracy()
    guessing = f"guessing gets {max(100 * task.guessing, 0.1):.2g} % right"
    if task.nothing_learned and said.mean < task.guessing + _PROMISING:
        return f"Accuracy: nothing was learned, as far as can be told; {guessing}, this {said}."
    if task.nothing_learned:
        return (
            f"Accuracy: it cannot be told from guessing yet; give more examples. It is {said}, and "
            f"{guessing}."
        )
    return f"Accuracy on new examples: {said}."


def _strangers(task: FittedTask, false_rejects: float) -> str:
    accept = min(max(1 - false_rejects, 1e-6), 1 - 1e-6)
    share_lost = f"{100 * false_rejects:g} % false rejects"
    if task.novelty_threshold(accept) == float("inf"):
        return f"Strangers: none can be refused at {share_lost}; more examples are needed."
    basis = "other tasks"
    if task.near.several:
        basis = f"the distances of {len(task.near.own)} own examples from the others"
    caught = task.strangers_caught(accept)
    share = "how many further classes of this kind it catches is not known"
    if caught is not None:
        share = (
            f"of further classes of this kind about {100 * caught:.0f} % would be refused "
            "(its own classes were left out in turn)"
        )
    return f"Strangers: the limit for {share_lost} comes from {basis}; {share}."

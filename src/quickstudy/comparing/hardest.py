"""Pictures of the hardest tasks of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from quickstudy.comparing.contestants import Contestant, learner_of, source_for
from quickstudy.comparing.result import Comparison
from quickstudy.comparing.tasklists import TaskList
from quickstudy.evaluation.drawing import draw_episode
from quickstudy.evaluation.functions import draw_function
from quickstudy.tasks import PoolSource

__all__ = ["draw_hardest"]


def draw_hardest(
    given: Sequence[Contestant],
    lists: Sequence[TaskList],
    comparison: Comparison,
    *,
    n: int = 2,
    most_ways: int = 10,
) -> list[str]:
    """Return the hardest tasks of each list as HTML figures, answered by the list's best learner.

    Args:
        given: the contestants.
        lists: the lists of tasks.
        comparison: the scores.
        n: number of tasks of each list.
        most_ways: lists whose tasks may have more classes than this are left out.
    """
    drawn = []
    by_name = {one.name: one for one in given}
    for tasks in lists:
        ways = tasks.spec.n_way
        if (ways if isinstance(ways, int) else ways[1]) > most_ways:
            continue
        best, _ = comparison.best(tasks.name)
        source = source_for(by_name[best], tasks)
        learner = learner_of(by_name[best])
        for number, mean in comparison.hardest(tasks.name, n=n):
            caption = (
                f"{tasks.name}, episode {number}: "
                f"{comparison.metric.number(mean, digits=0)} on average over the learners; answers "
                f"of {best}."
            )
            about = {"task_id": number, "seed": tasks.seed}
            if isinstance(source, PoolSource):
                drawn.append(draw_episode(learner, source, tasks.spec, **about, caption=caption))
            elif not comparison.metric.fraction:
                drawn.append(draw_function(learner, source, tasks.spec, **about, caption=caption))
    return drawn

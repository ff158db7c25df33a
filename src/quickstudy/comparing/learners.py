"""Comparing learners in memory, one's own among them, on sources of tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from quickstudy.comparing.compare import Compared
from quickstudy.comparing.result import Cell, Comparison, Role
from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.core.arguments import checked
from quickstudy.core.words import quiet
from quickstudy.evaluation import evaluate, measure_cost
from quickstudy.learners.base import Learner
from quickstudy.tasks import TaskSource

__all__ = ["compare_learners"]


@checked
def compare_learners(
    learners: Mapping[str, Learner],
    sources: Mapping[str, TaskSource],
    spec: EpisodeSpec,
    *,
    episodes: int = 600,
    seed: int = 0,
    role: Role = "novel domain",
    costs: bool = True,
    say: Callable[[str], None] = quiet,
) -> Compared:
    """Compare learners of any kind, also your own, on the same episodes of each source.

    Args:
        learners: trained learners by the names that tables show. They answer as they are: a
            transductive one sees all queries of a task, and is compared with such ones alone.
        sources: tasks by the names that tables show; all of classes, or all of regression.
        spec: way, shot and queries.
        episodes: number of episodes of each source.
        seed: names the episodes.
        role: what the sources are to the learners, see
            :data:`~quickstudy.comparing.result.Role`.
        costs: whether time and memory are measured, on the first source.
        say: is called with a sentence about each score.

    Returns:
        The comparison with its tables; nothing is written.

    Raises:
        ConfigError: if there is no learner or no source.
        ProtocolError: if metrics or the use of other queries differ.
        TaskError: if a source cannot give such episodes.

    Example::

        from quickstudy.comparing import compare_learners
        net = MLP((1,), (40,))
        learners: dict[str, Learner] = {"maml": MAML(net, n_way=1, inner=InnerLoop(lr=0.01))}
        learners["maml, 5 steps"] = learners["maml"].with_inner_steps(5)
        waves = {"waves": SinusoidSource("test")}
        compared = compare_learners(learners, waves, EpisodeSpec(1, 10, 10), episodes=20)
        print(compared.text())
        compared.comparison.best("waves")  # the smallest error, and what is not told from it
    """
    if not learners or not sources:
        raise ConfigError(
            "name at least one learner and one source of tasks: {name: learner}, {name: source}."
        )
    start = time.perf_counter()
    cells = []
    for tasks, source in sources.items():
        for name, learner in learners.items():
            report = evaluate(learner, source, spec, episodes=episodes, seed=seed, name=name)
            say(f"{name} on {tasks}: {report.metric.text(report.score)}")
            cells.append(Cell(name, tasks, role, report))
    measured = {}
    if costs:
        episode = next(iter(sources.values())).episodes(spec, [0], seed=seed)
        measured = {name: measure_cost(learner, episode) for name, learner in learners.items()}
    families = {name: learner.family for name, learner in learners.items()}
    return Compared(Comparison(cells, families, measured), time.perf_counter() - start, None)

"""What a task says of itself, against the truth of synthetic classes that no prior has seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussian_classes import DIM, task_of, world

from quickstudy.core import generator
from quickstudy.fitting.draws import AuxiliaryClasses, AuxiliaryEpisodes
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import FittedTask, fit_task


@dataclass(frozen=True)
class Found:
    """What was said of one task, and what was true of it."""

    task: FittedTask
    accuracy: float
    confidence: float
    covered: float
    set_size: float
    empty: float
    rejected: float
    caught: float

    @property
    def missed_by(self) -> float:
        return abs(self.task.expected_accuracy().mean - self.accuracy)

    @property
    def held(self) -> bool:
        said = self.task.expected_accuracy()
        return said.low <= self.accuracy <= said.high


def found(
    prior: TaskPrior, tasks: AuxiliaryEpisodes, *, shots: int, count: int, head: str = "prototype"
) -> list[Found]:
    """Fit tasks of five classes and compare what they say with 100 queries and 50 strangers."""
    all_found = []
    for t in range(count):
        one = task_of(tasks, t, shots)
        task = fit_task(prior, one.z, one.y, n_way=5, head=head)
        p = task.proba(one.query)
        sets = task.sets(one.query, coverage=0.9)
        all_found.append(
            Found(
                task,
                float((p.argmax(1) == one.answer).double().mean()),
                float(p.amax(1).mean()),
                float(sets[torch.arange(len(p)), one.answer].double().mean()),
                float(sets.sum(1).double().mean()),
                float((sets.sum(1) == 0).double().mean()),
                1 - float(task.accepts(one.query).double().mean()),
                1 - float(task.accepts(one.strangers).double().mean()),
            )
        )
    return all_found


def mean(all_found: list[Found], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in all_found]))


@pytest.fixture(params=["prior", "plain"])
def either(request: pytest.FixtureRequest, prior: TaskPrior) -> TaskPrior:
    """Return the prior of these classes, or one that knows nothing."""
    return prior if request.param == "prior" else TaskPrior.plain(DIM)


# ------------------------------------------------------------------------ five examples each


@pytest.mark.parametrize(("head", "count"), [("prototype", 200), ("auto", 40)])
def test_from_five_examples_on_a_task_knows_itself(
    either: TaskPrior, tasks: AuxiliaryEpisodes, head: str, count: int
) -> None:
    seen = found(either, tasks, shots=5, count=count, head=head)
    slack = 0.0 if count == 200 else 0.01
    assert 0.87 - slack <= mean(seen, "covered") <= 0.95 + slack
    assert 0.02 - slack <= mean(seen, "rejected") <= 0.09 + slack
    assert mean(seen, "confidence") == pytest.approx(mean(seen, "accuracy"), abs=0.04)
    expected = np.mean([one.task.expected_accuracy().mean for one in seen])
    assert expected == pytest.approx(mean(seen, "accuracy"), abs=0.03)
    assert mean(seen, "missed_by") < 0.1  # of 25 held-out examples, chance alone misses by 0.08
    assert 0.85 <= mean(seen, "held") <= 0.98


def test_tasks_that_are_harder_expect_less(either: TaskPrior) -> None:
    """The expectation follows the task, not the mean of all tasks."""
    said, true, nothing = [], [], []
    for apart in (0.5, 1.0, 2.0, 4.0):
        seen = found(either, of_world(apart, count=30), shots=5, count=30)
        said.append(float(np.mean([one.task.expected_accuracy().mean for one in seen])))
        true.append(mean(seen, "accuracy"))
        nothing.append(float(np.mean([one.task.nothing_learned for one in seen])))
    assert true == sorted(true)
    assert true[-1] > true[0] + 0.4
    assert said == pytest.approx(true, abs=0.06)
    assert nothing[0] > 0.2
    assert nothing[-2:] == [0, 0]


def of_world(apart: float, *, count: int) -> AuxiliaryEpisodes:
    """Return tasks of other classes, as far apart as is asked for."""
    z, y = world(40, 40, seed=5, apart=apart)
    drawn = AuxiliaryClasses(z, y).episodes(5, 5, tasks=count, seed=1, n_query=20, n_strangers=50)
    assert drawn is not None
    return drawn


def test_what_is_said_of_strangers_is_what_is_caught(either: TaskPrior) -> None:
    """Of classes that lie apart, and of classes that do not."""
    told, caught = [], []
    for apart in (1.0, 3.0):
        seen = found(either, of_world(apart, count=60), shots=5, count=60)
        told.append(float(np.mean([one.task.strangers_caught() for one in seen])))
        caught.append(mean(seen, "caught"))
    assert told == pytest.approx(caught, abs=0.1)
    assert caught[1] > caught[0] + 0.3


def test_strangers_of_another_kind_are_caught(either: TaskPrior, tasks: AuxiliaryEpisodes) -> None:
    far, _ = world(4, 25, seed=9, at=-2.0)
    caught = [
        1 - float(one.task.accepts(far).double().mean())
        for one in found(either, tasks, shots=5, count=40)
    ]
    assert np.mean(caught) > 0.9


def test_sets_and_thresholds_grow_with_the_share(
    either: TaskPrior, tasks: AuxiliaryEpisodes
) -> None:
    for shots in (1, 5):
        one = task_of(tasks, 0, shots)
        task = fit_task(either, one.z, one.y, n_way=5)
        sets = [task.sets(one.query, coverage=c) for c in (0.3, 0.6, 0.8, 0.9, 0.99)]
        assert all(bool((small <= large).all()) for small, large in pairwise(sets))
        limits = [task.novelty_threshold(c) for c in (0.3, 0.6, 0.9, 0.99)]
        assert limits == sorted(limits)
        if either.learned or shots > 1:
            assert int(sets[0].sum()) < int(sets[-1].sum())
            assert limits[0] < limits[-1]


# ---------------------------------------------------------------------------- one example each


def test_with_one_example_each_other_tasks_speak(
    prior: TaskPrior, tasks: AuxiliaryEpisodes
) -> None:
    seen = found(prior, tasks, shots=1, count=200)
    assert mean(seen, "empty") == 0
    assert 0.87 <= mean(seen, "covered") <= 0.98
    assert mean(seen, "set_size") < 4.5
    assert mean(seen, "rejected") <= 0.09
    assert mean(seen, "confidence") == pytest.approx(mean(seen, "accuracy"), abs=0.05)
    assert mean(seen, "missed_by") < 0.1
    assert mean(seen, "held") >= 0.85
    assert not any(one.task.nothing_learned for one in seen)
    assert all(one.task.strangers_caught() is None for one in seen)


def test_of_a_task_like_none_it_says_less(prior: TaskPrior, tasks: AuxiliaryEpisodes) -> None:
    """Two sources, of which the easy one is like the task: from elsewhere sets are wider."""
    for t in range(10):
        one = task_of(tasks, t, 1)
        near = fit_task(prior, one.z, one.y, n_way=5)
        far = fit_task(prior, one.z - 4, one.y, n_way=5, head=near.head_name)
        assert far.familiar is None
        elsewhere = replace(near, familiar=None)
        a, b = (task.expected_accuracy() for task in (near, elsewhere))
        if near.familiar is not None:
            assert b.low <= a.low <= a.high <= b.high
            assert "like none" in b.method


def test_without_other_tasks_one_example_each_promises_nothing(tasks: AuxiliaryEpisodes) -> None:
    seen = found(TaskPrior.plain(DIM), tasks, shots=1, count=3)
    assert mean(seen, "set_size") == 5
    assert mean(seen, "rejected") == mean(seen, "caught") == 0
    for one in seen:
        said = one.task.expected_accuracy()
        assert (said.mean, said.low, said.high) == (0.2, 0.0, 1.0)


# ---------------------------------------------------------------------- nothing to be learned


@pytest.mark.parametrize("shots", [2, 5])
def test_labels_without_meaning_promise_nothing(
    either: TaskPrior, tasks: AuxiliaryEpisodes, shots: int
) -> None:
    holds, nothing = [], []
    for t in range(100):
        one = task_of(tasks, t, shots)
        shuffled = one.y[torch.randperm(len(one.y), generator=generator(t))]
        task = fit_task(either, one.z, shuffled, n_way=5, head="prototype")
        said = task.expected_accuracy()
        holds.append(said.low <= 0.2 <= said.high)
        nothing.append(task.nothing_learned)
        assert said.mean < 0.75
    assert np.mean(holds) >= 0.85
    assert np.mean(nothing) >= 0.85


def test_nothing_is_learned_where_the_interval_reaches_down_to_guessing() -> None:
    z, y = world(2, 20, seed=3, apart=8.0)
    apart = fit_task(TaskPrior.plain(DIM), z, y, n_way=2, head="prototype")
    assert not apart.nothing_learned
    same = fit_task(TaskPrior.plain(DIM), z, torch.arange(40) % 2, n_way=2, head="prototype")
    assert same.nothing_learned
    assert same.expected_accuracy().low <= 0.5
    alone = fit_task(TaskPrior.plain(DIM), z, torch.zeros(40).long(), n_way=1, head="prototype")
    assert not alone.nothing_learned


def test_copies_promise_nothing(either: TaskPrior, tasks: AuxiliaryEpisodes) -> None:
    """Ten copies of one example of each class say what the five examples say, and no more."""
    one = task_of(tasks, 0, 1)
    once, often = (
        fit_task(either, one.z.repeat(n, 1), one.y.repeat(n), n_way=5, head="prototype")
        for n in (1, 10)
    )
    said, again = once.expected_accuracy(), often.expected_accuracy()
    assert (again.mean, again.low, again.high) == (said.mean, said.low, said.high)
    assert torch.equal(often.sets(one.query), once.sets(one.query))
    assert often.novelty_threshold() == pytest.approx(once.novelty_threshold(), rel=1e-6)
    torch.testing.assert_close(
        often.novelty(one.query), once.novelty(one.query), rtol=1e-4, atol=1e-5
    )
    assert often.strangers_caught() is None
    assert bool(often.suspects()[1].isinf().all())


# ------------------------------------------------------------------------------ strange, wrong


def test_strangers_are_told_better_than_by_chance(
    either: TaskPrior, tasks: AuxiliaryEpisodes
) -> None:
    better = []
    for t in range(40):
        one = task_of(tasks, t)
        task = fit_task(either, one.z, one.y, n_way=5, head="prototype")
        known, others = task.novelty(one.query), task.novelty(one.strangers)
        better.append(float((others[:, None] > known[None]).double().mean()))
    assert np.mean(better) > 0.52


def test_a_flipped_label_is_suspected_and_few_right_ones_are_listed() -> None:
    z, y = world(30, 30, seed=6, apart=3.0)
    drawn = AuxiliaryClasses(z, y).episodes(5, 5, tasks=40, seed=1)
    assert drawn is not None
    support = drawn.episode.support
    hits, listed_wrong, listed_right = [], [], []
    for t in range(40):
        labels = support.y[t].clone()
        labels[7] = 4
        task = fit_task(TaskPrior.plain(DIM), support.x[t], labels, n_way=5)
        order, score, best = task.suspects()
        assert bool((score.diff() <= 0).all())
        place = order.tolist().index(7)
        hits.append(place < 2)
        assert int(best[place]) != 4
        listed = order[score >= task.suspect_odds].tolist()
        listed_wrong.append(7 in listed)
        listed_right.append(len(set(listed) - {7}))
    assert np.mean(hits) > 0.9
    # half of the listed labels are wrong, or more
    assert sum(listed_wrong) >= sum(listed_right)


def test_auto_is_no_worse_than_the_best_fixed_head(
    prior: TaskPrior, tasks: AuxiliaryEpisodes
) -> None:
    names = ("auto", "prototype", "ridge", "logistic")
    scores = {
        name: 100 * mean(found(prior, tasks, shots=5, count=60, head=name), "accuracy")
        for name in names
    }
    assert scores["auto"] >= max(scores[name] for name in names[1:]) - 1

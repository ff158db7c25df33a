"""What several sources of auxiliary tasks say of a task that resembles one of them, or none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gaussian_classes import DIM
from scipy import stats
from torch import Tensor

from quickstudy.core import generator
from quickstudy.fitting.calibration import Answers, Ratios, fit_head_prior, fit_open_set
from quickstudy.fitting.evidence import log_loss
from quickstudy.fitting.familiar import KnownSource, familiar_source
from quickstudy.fitting.learn import learn_prior
from quickstudy.fitting.one_shot import ByWays, OneShot
from quickstudy.fitting.prior import LEVELS, TaskPrior
from quickstudy.fitting.space import Metric, MetricSettings
from quickstudy.fitting.task import fit_task

WAYS = 4

# ------------------------------------------------------------------------- which source


def at_cosine(*cosines: float) -> Tensor:
    return torch.tensor([[c, math.sqrt(1 - c * c), 0.0] for c in cosines])


def source(name: str, axis: int, mean: float = 0.5, deviation: float = 0.1) -> KnownSource:
    table = ByWays((2, 8), (mean, mean + 0.2)), ByWays((2,), (deviation,))
    return KnownSource(name, torch.eye(3)[axis], *table)


@pytest.mark.parametrize(
    ("cosines", "found"),
    [
        ((0.31, 0.31), "a"),  # 1.9 deviations below what is usual with two classes
        ((0.29, 0.29), None),
        ((0.1, 0.55), "a"),  # the mean counts
        ((0.51, 0.51, 0.51, 0.51), "a"),  # with four classes 0.6 is usual
        ((0.39, 0.39, 0.39, 0.39), None),
    ],
)
def test_a_task_resembles_a_source_from_two_deviations_below_on(cosines, found) -> None:
    z = 7 * at_cosine(*cosines)  # lengths do not count
    assert familiar_source([source("a", 0)], z, torch.arange(len(cosines))) == found
    assert familiar_source([], z, torch.arange(len(cosines))) is None


def test_every_class_weighs_the_same() -> None:
    """Nine examples of one class point away from the source, one of the other towards it."""
    y = torch.tensor([0] * 9 + [1])
    z = at_cosine(*[0.1] * 9, 0.55)
    assert familiar_source([source("a", 0)], z, y) == "a"


def test_the_source_that_is_most_alike_is_named() -> None:
    z = torch.tensor([[0.6, 0.8, 0.0], [0.8, 0.6, 0.0]])
    known = [source("a", 0), source("b", 1, mean=0.3), source("c", 2)]
    assert familiar_source(known, z, torch.arange(2)) == "b"  # four deviations against two
    assert familiar_source(known[::2], z, torch.arange(2)) == "a"
    assert familiar_source(known[2:], z, torch.arange(2)) is None


def classes_at(offset: Tensor, n: int, seed: int, rows: int = 25) -> tuple[np.ndarray, np.ndarray]:
    g = generator(seed)
    means = offset + torch.randn(n, DIM, generator=g)
    y = torch.arange(n).repeat_interleave(rows)
    return (means[y] + torch.randn(len(y), DIM, generator=g)).numpy(), y.numpy()


OFFSETS = {"a": 5 * torch.eye(DIM)[0], "b": 5 * torch.eye(DIM)[1], "c": 5 * torch.eye(DIM)[2]}


@pytest.fixture(scope="module")
def learned() -> TaskPrior:
    """Return what was learned from two sources of twenty classes."""
    parts = [classes_at(OFFSETS[name], 20, seed) for seed, name in enumerate("ab")]
    return learn_prior(
        np.concatenate([z for z, _ in parts]),
        np.concatenate([y for _, y in parts]),
        sources=np.repeat(["a", "b"], 500),
        heads=("prototype",),
        ways=(2, 5),
        shots=(1, 5),
        tasks=20,
    )


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize(("name", "own"), [("a", "a"), ("b", "b"), ("c", None)])
def test_new_classes_of_a_source_are_known_again_and_others_are_not(
    learned: TaskPrior, name: str, own: str | None, shots: int
) -> None:
    found = []
    for seed in range(100):
        z, y = classes_at(OFFSETS[name], 5, 100 + seed, rows=shots)
        found.append(familiar_source(learned.known, torch.from_numpy(z), torch.from_numpy(y)))
    # one source's own classes vary: a prior that saw twenty knows most of its tasks again
    assert found.count(own) >= 75
    assert {*found} <= {own, None}


def test_what_is_said_of_a_familiar_task_names_its_source(learned: TaskPrior) -> None:
    for name, words in (("a", "most like a"), ("c", "like none that are known")):
        z, y = classes_at(OFFSETS[name], 5, 7, rows=1)
        task = fit_task(learned, torch.from_numpy(z), torch.from_numpy(y), n_way=5)
        assert words in task.expected_accuracy().method


def test_sources_of_few_classes_are_not_recognised() -> None:
    z, y = classes_at(OFFSETS["a"], 30, 0)
    few = np.where(y < 9, "small", "large")
    prior = learn_prior(z, y, sources=few, heads=("prototype",), ways=(2,), shots=(1,), tasks=8)
    assert [one.name for one in prior.known] == ["large"]
    assert set(prior.heads["prototype"].near) == {"small", "large"}


# ------------------------------------------------------------------------- what they say


def answers(name: str, apart: float, shots: int = 1, ways: int = WAYS, seed: int = 0) -> Answers:
    """Logits of 60 tasks, the right one higher, at a temperature of 1/2."""
    g = generator(seed)
    y = torch.arange(60).repeat(60, 1) % ways
    logits = torch.randn(60, 60, ways, generator=g).double()
    logits = logits + apart * F.one_hot(y, ways)
    right = (logits.argmax(2) == y).double().mean(1)
    # the log odds of Gaussian scores with means d and 0 are d times their difference
    logits = apart * logits / 2
    return Answers(name, ways, shots, logits, y, right, torch.full((60,), 0.5).double())


def scores_of(cell: Answers, log_temperature: float) -> Tensor:
    temperature = torch.full((len(cell.y),), math.exp(log_temperature)).double()
    return log_loss(cell.logits, cell.y, temperature).flatten()


EASY, HARD = answers("easy", 2.5), answers("hard", 0.7, seed=1)


def wider(level: float) -> float:
    """Return the share that a threshold holds where it was learned: half as many lie beyond."""
    return (1 + level) / 2


def held_by(prior: OneShot, cell: Answers, level: float) -> float:
    scores = scores_of(cell, prior.log_temperature(WAYS))
    return float((scores <= prior.sets[level](WAYS)).double().mean())


def test_what_is_said_of_an_unfamiliar_task_holds_in_every_source() -> None:
    far = fit_head_prior([EASY, HARD], {(5, 1): {}}).far
    for level in LEVELS:
        low, high = sorted(
            float(np.quantile(scores_of(c, far.log_temperature(WAYS)).numpy(), wider(level)))
            for c in (EASY, HARD)
        )
        # a third source is as much worse than the worse of two as that is than the better
        assert far.sets[level](WAYS) == pytest.approx(high + (high - low))
        assert min(held_by(far, cell, level) for cell in (EASY, HARD)) >= wider(level)
    both = (float(EASY.accuracy.mean()) + float(HARD.accuracy.mean())) / 2
    assert far.accuracy(WAYS) == pytest.approx(both)
    # 60 queries that are guessed, with bad luck; and more, as chances differ between tasks
    assert 0.05 < far.low(WAYS) <= stats.binom(60, 0.25).ppf(0.05) / 60
    assert far.high(WAYS) == 1.0


def test_of_a_familiar_task_its_source_has_half_of_the_weight() -> None:
    third = answers("third", 1.5, seed=2)
    prior = fit_head_prior([EASY, HARD, third], {(5, 1): {}})
    easy = prior.near["easy"]
    weights = {"easy": 0.5, "hard": 0.25, "third": 0.25}
    cells = {c.source: c for c in (EASY, HARD, third)}
    mean = sum(w * float(cells[n].accuracy.mean()) for n, w in weights.items())
    assert easy.accuracy(WAYS) == pytest.approx(mean)
    for level in (0.5, 0.9):
        held = sum(w * held_by(easy, cells[n], level) for n, w in weights.items())
        assert held == pytest.approx(wider(level), abs=1e-3)
    low, high = easy.low(WAYS), easy.high(WAYS)
    inside = {n: (c.accuracy >= low) & (c.accuracy <= high) for n, c in cells.items()}
    assert sum(w * float(inside[n].double().mean()) for n, w in weights.items()) >= 0.9
    assert low <= easy.accuracy(WAYS) <= high
    assert easy.sets[0.9](WAYS) < prior.far.sets[0.9](WAYS)
    assert easy.low(WAYS) > prior.far.low(WAYS)


def test_a_source_speaks_of_the_sizes_that_it_has_shown() -> None:
    prior = fit_head_prior([EASY, HARD, answers("hard", 0.7, ways=16, seed=5)], {(5, 1): {}})
    assert prior.at_one_shot("easy", WAYS) is prior.near["easy"]
    assert prior.at_one_shot("easy", 16) is prior.far
    assert prior.at_one_shot("hard", 16) is prior.near["hard"]
    for nothing in (None, "never seen"):
        assert prior.at_one_shot(nothing, WAYS) is prior.far
    distances = [Ratios(n, w, 1, torch.rand(5, 9)) for n, w in (("a", 4), ("b", 4), ("b", 16))]
    open_set = fit_open_set(distances)
    assert open_set.at_one_shot("a", 4) is open_set.near["a"]
    assert open_set.at_one_shot("a", 16) is open_set.far
    assert open_set.at_one_shot("b", 16) is open_set.near["b"]
    assert open_set.at_one_shot(None, 4) is open_set.far


def test_a_single_source_has_all_of_the_weight() -> None:
    prior = fit_head_prior([EASY], {(5, 1): {}})
    assert prior.near["easy"].accuracy == prior.far.accuracy
    for level in LEVELS:
        near, far = (one.sets[level](WAYS) for one in (prior.near["easy"], prior.far))
        assert near == pytest.approx(far, abs=0.02)


def test_the_temperature_is_the_one_of_the_answers() -> None:
    """Halved log odds want a temperature of one half, whatever their unit."""
    for unit in (1.0, 50.0):
        cell = replace(EASY, logits=EASY.logits * unit)
        found = fit_head_prior([cell], {(5, 1): {}}).far.log_temperature(WAYS)
        assert math.exp(found) == pytest.approx(0.5 * unit, rel=0.1)


def test_sizes_are_told_apart() -> None:
    more = answers("easy", 2.5, ways=8, seed=3)
    five = answers("easy", 2.5, shots=5, seed=4)
    prior = fit_head_prior([EASY, more, five, HARD], {(5, 1): {"c": 1.0}})
    assert prior.settings == {(5, 1): {"c": 1.0}}
    assert set(prior.expected) == {(4, 1), (8, 1), (4, 5)}
    both = (float(EASY.accuracy.mean()) + float(HARD.accuracy.mean())) / 2
    assert prior.expected[4, 1] == pytest.approx(both)
    assert prior.expected[8, 1] == pytest.approx(float(more.accuracy.mean()))
    # the hard source has never shown eight classes, and speaks by four: not only the easy one does
    both = (float(more.accuracy.mean()) + float(HARD.accuracy.mean())) / 2
    assert prior.far.accuracy(8) == pytest.approx(both)
    assert prior.near["hard"].accuracy.ways == (4,)  # of eight classes it knows nothing
    # with more shots each task has its own temperature; quantiles of those scores are kept
    scores = scores_of(five, math.log(0.5))
    expected = np.quantile(scores.numpy(), (np.arange(20) + 0.5) / 20)
    assert len(prior.held_out) == 20
    np.testing.assert_allclose(prior.held_out, expected, atol=0.05, rtol=0.1)
    assert fit_head_prior([EASY], {(5, 1): {}}).held_out == ()


def test_distances_of_strangers_hold_in_every_source_too() -> None:
    g = generator(0)
    one, two = (1 + s * torch.randn(50, 40, generator=g).double() for s in (0.1, 0.3))
    cells = [Ratios("one", 4, 1, one), Ratios("two", 4, 1, two), Ratios("one", 4, 5, one + 1)]
    prior = fit_open_set(cells)
    for level in LEVELS:
        low, high = sorted(float(np.quantile(part.numpy(), wider(level))) for part in (one, two))
        assert prior.far[level](4) == pytest.approx(high + (high - low))
        threshold = prior.near["one"][level](4)
        held = [float((part <= threshold).double().mean()) for part in (one, two)]
        assert sum(held) / 2 == pytest.approx(wider(level), abs=2e-3)
    expected = np.quantile((one + 1).numpy(), (np.arange(20) + 0.5) / 20)
    np.testing.assert_allclose(prior.held_out, expected, atol=0.02)


# ---------------------------------------------------------------- where the metric is left out


def test_a_metric_of_other_kinds_is_left_out_from_eight_examples_on(learned: TaskPrior) -> None:
    whitened = replace(
        learned, metric=Metric.fit(*WORLD, MetricSettings(shrinkage=0.2, rank=3)), known=()
    )
    for shots in (1, 3, 7, 8, 12):
        g = generator(shots)
        y = torch.arange(WAYS).repeat_interleave(shots)
        z = 4 * torch.randn(WAYS, DIM, generator=g)[y] + torch.randn(len(y), DIM, generator=g)
        task = fit_task(whitened, z, y, n_way=WAYS)
        assert (task.prior.metric.directions is None) == (shots >= 8)
        query = torch.randn(5, DIM, generator=g)
        if shots >= 8:
            plain = fit_task(TaskPrior.plain(DIM), z, y, n_way=WAYS)
            assert task.head_name == plain.head_name
            torch.testing.assert_close(task.scores(query), plain.scores(query))
        # what the prior knows beside the metric stays
        assert task.prior.learned
        assert task.prior.open_set is whitened.open_set
        # a head that promises not to move other classes stays in one space
        same = fit_task(whitened, z, y, n_way=WAYS, head="class-mean")
        assert same.prior.metric is whitened.metric
    resembling = replace(
        whitened, known=(KnownSource("a", F.normalize(z.mean(0), dim=0), LOW, LOW),)
    )
    assert fit_task(resembling, z, y, n_way=WAYS).familiar == "a"
    assert fit_task(resembling, z, y, n_way=WAYS).prior.metric is whitened.metric
    without = replace(whitened, metric=Metric.plain(DIM))
    assert without.for_task(None, 20) is without


LOW = ByWays((2,), (-1.0,))
WORLD = (
    torch.randn(60, DIM, generator=generator(0)) * torch.linspace(0.2, 4, DIM),
    torch.arange(60) % 6,
)

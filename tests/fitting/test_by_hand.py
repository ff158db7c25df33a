"""Thresholds, intervals and calibration against numbers computed by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussian_classes import world

from quickstudy.core import ConfigError, Examples, TaskError
from quickstudy.estimators import TaskPrior, fit_task
from quickstudy.fitting.combining import (
    accuracy_interval,
    held_out_accuracy,
    held_out_quantile,
    weighted_quantile,
)
from quickstudy.fitting.evidence import gather_evidence, log_loss, own_temperature
from quickstudy.fitting.heads import affordable, nearest_size, preferred_unless_beaten
from quickstudy.fitting.one_shot import ByWays, OneShot, levels_from, threshold_at
from quickstudy.fitting.prior import HeadPrior, OpenSetPrior
from quickstudy.learners.heads import PrototypeHead, held_out_logits


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def always(value):
    """Return a table that says the same of any number of classes."""
    return ByWays((2,), (value,))


# ------------------------------------------------------------------------------ quantiles


@pytest.mark.parametrize(
    ("level", "expected"),
    # of 9 scores the ceil(10 level)-th smallest
    [(0.05, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.8, 8), (0.81, 9), (0.9, 9), (0.91, math.inf)],
)
def test_a_conformal_quantile_is_the_rank_of_the_definition(level, expected):
    scores = doubles(7, 3, 9, 1, 5, 2, 8, 6, 4)
    assert held_out_quantile(scores, level) == expected
    assert held_out_quantile(scores[:0], level) == math.inf


@pytest.mark.parametrize("n", [9, 10, 25, 100])
def test_held_out_quantiles_cover_exchangeable_scores(n):
    scores = torch.rand(20_000, n + 1, generator=torch.Generator().manual_seed(n)).double()
    covered = [row[-1] <= held_out_quantile(row[:-1], 0.9) for row in scores]
    rank = min(math.ceil((n + 1) * 0.9), n + 1)
    assert float(np.mean(covered)) == pytest.approx(rank / (n + 1), abs=0.01)


@pytest.mark.parametrize(
    ("level", "expected"),
    # weights 1/2, 1, 1, 1, 1/2 of 0, 1, 2, 3, 4: their middles are at 1/16, 1/4, 1/2, 3/4, 15/16
    [(0.01, 0.0), (1 / 16, 0.0), (0.25, 1.0), (0.5, 2.0), (0.625, 2.5), (0.9, 3.8), (0.99, 4.0)],
)
def test_a_weighted_quantile_lies_between_the_middles_of_shares(level, expected):
    found = weighted_quantile(doubles(3, 1, 2), (0.0, 4.0), 1.0, level)
    assert found == pytest.approx(expected)


def test_the_weight_of_others_decides_between_them_and_a_task():
    own, others = doubles(*[1.0] * 10), (5.0,) * 20
    weights = (0.01, 0.5, 2.0, 10.0, 1e4)
    found = [weighted_quantile(own, others, weight, 0.9) for weight in weights]
    assert found == sorted(found)
    assert found[0] == 1.0
    assert found[-2:] == [5.0, 5.0]
    # without any of its own, a task has the quantile of the others
    assert weighted_quantile(own[:0], (1.0, 2.0, 3.0), 0.5, 0.5) == 2.0


# ------------------------------------------------------------------------------ accuracy


@pytest.mark.parametrize(
    ("right", "n", "confidence", "shots", "share", "gain"),
    [
        (3, 4, 0.6, 2, (3 + 4 * 0.6) / 8, 0.25),  # confidence weighs as much as four answers
        (12, 16, 0.9, 5, (12 + 8 * 0.9) / 24, 0.1),  # and never more than eight
        (30, 100, 0.5, 1, (30 + 8 * 0.5) / 108, 0.5),
        (25, 25, 1.0, 5, 0.9975, 0.1),  # all right is not certainty
        (50, 50, 1.0, 5, 1 - 0.005 / 3, 0.1),
        (0, 10, 0.0, 5, 0.001, 0.1),
    ],
)
def test_the_accuracy_of_held_out_answers_by_hand(right, n, confidence, shots, share, gain):
    answers = torch.arange(n) < right
    found = held_out_accuracy(answers, torch.full((n,), confidence), shots)
    odds = share / (1 - share) * math.exp(gain)
    assert found == pytest.approx(odds / (1 + odds))


@pytest.mark.parametrize(
    ("mean", "n", "shots", "ways"),
    [(0.6, 25, 5, 5), (0.9, 20, 10, 2), (0.98, 100, 5, 20), (0.3, 10, 2, 5), (0.5, 200, 20, 10)],
)
def test_an_interval_holds_nine_of_ten_accuracies(mean, n, shots, ways):
    """Accuracies as they are drawn: an unknown chance, then 15 queries per class."""
    certain = 0.7 * n * (1 - 1 / shots) + 2
    rng = np.random.default_rng(0)
    chance = rng.beta(mean * certain, (1 - mean) * certain, 50_000)
    accuracy = rng.binomial(15 * ways, chance) / (15 * ways)
    low, high = accuracy_interval(mean, n, shots, ways)
    held = float(((accuracy >= low) & (accuracy <= high)).mean())
    # whole queries: at either end a little more than wanted
    assert 0.895 <= held <= 0.975
    assert float((accuracy < low).mean()) <= 0.055
    assert float((accuracy > high).mean()) <= 0.055


def test_intervals_narrow_with_examples_and_hold_their_mean():
    widths = []
    for n in (2, 10, 50, 250, 5000):
        low, high = accuracy_interval(0.7, n, 10, 20)
        assert 0 <= low <= 0.7 <= high <= 1
        widths.append(high - low)
    assert all(after < before for before, after in pairwise(widths))
    assert widths[-1] > 0.05  # the luck of drawing 300 queries stays
    low, high = accuracy_interval(0.999, 40, 5, 2)
    assert low > 0.9
    assert high == 1.0  # no query may be wrong


# ------------------------------------------------------------------- tables of other tasks


def test_between_numbers_of_classes_a_table_is_linear_in_their_logarithm():
    table = ByWays((2, 8, 16), (0.0, 2.0, -1.0))
    assert table(4) == pytest.approx(1.0)
    assert table(8) == pytest.approx(2.0)
    assert table(8 * 2**0.5) == pytest.approx(0.5)
    assert table(1) == table(0) == table(2) == 0.0
    assert table(1000) == table(16) == -1.0
    assert ByWays.from_list(table.to_list()) == table


@pytest.mark.parametrize(
    ("ways", "values"),
    [
        ((), ()),
        ((2, 5), (1.0,)),
        ((5, 2), (1.0, 2.0)),
        ((5, 5), (1.0, 2.0)),
        ((0, 2), (1.0, 2.0)),
        ((2,), (math.nan,)),
        ((2,), (math.inf,)),
    ],
)
def test_what_is_no_table_is_refused(ways, values):
    with pytest.raises(ValueError, match=r"numbers of classes|finite"):
        ByWays(ways, values)


@pytest.mark.parametrize(
    "levels",
    [{"0.9": [[2, 1.0]]}, {"0.5": [[2, 1.0]], "1.0": [[2, 1.0]]}, {"0": [[2, 1]], "0.5": [[2, 1]]}],
)
def test_thresholds_need_two_levels_between_0_and_1(levels):
    with pytest.raises(ValueError, match="two levels"):
        levels_from(levels)


def test_thresholds_between_two_levels_are_linear_in_the_logit_and_never_cross():
    made = {q: always(v) for q, v in ((0.5, 1.0), (0.8, 3.0), (0.9, 2.0))}

    def between(level):
        return threshold_at(made, 5, level)

    assert between(0.5) == pytest.approx(1.0)
    assert between(0.8) == pytest.approx(3.0)
    assert between(0.9) == pytest.approx(3.0)  # not below that of 0.8
    # odds of 2 lie half-way between odds of 1 and 4, on the scale of logits
    assert between(2 / 3) == pytest.approx(2.0)
    # beyond the ends the last piece goes on: odds of 1/4 are one step below odds of 1
    assert between(0.2) == pytest.approx(-1.0)
    by_ways = {0.5: ByWays((2, 8), (1.0, 2.0)), 0.8: ByWays((2, 8), (3.0, 6.0))}
    assert threshold_at(by_ways, 4, 2 / 3) == pytest.approx((1.5 + 4.5) / 2)


# ------------------------------------------------------------------------- one example each


def one_shot(threshold):
    """Return tables of tasks whose sets hold the classes with -log p up to a threshold."""
    sets = {0.5: always(threshold / 2), 0.9: always(threshold)}
    return OneShot(always(0.0), always(3 / 4), always(1 / 2), always(6 / 7), sets)


def prior_of(threshold, **more):
    """Return a prior whose tasks have temperature 1."""
    head = HeadPrior({(2, 1): {"shrinkage": 0.0}}, {(2, 1): 0.75}, one_shot(threshold), **more)
    known = OpenSetPrior({0.5: always(0.5), 0.9: always(0.9)})
    return TaskPrior(TaskPrior.plain(2).metric, 0.0, {"prototype": head}, known)


def two_classes(threshold):
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    return fit_task(prior_of(threshold), z, torch.tensor([0, 1]), n_way=2, head="prototype")


@pytest.mark.parametrize("angle", [0.3, 1.0, 1.3])
def test_a_set_holds_the_classes_up_to_the_threshold_and_is_never_empty(angle):
    """Cosines c and -c: -log p are softplus(-2c) and softplus(2c)."""
    query = torch.tensor([[math.cos(angle), math.sin(angle)]])
    c = math.cos(angle)
    unlikely = math.log1p(math.exp(2 * c))
    likely = math.log1p(math.exp(-2 * c))
    for share, held in ((0.99, 1), (1.01, 2)):
        assert int(two_classes(share * unlikely).sets(query, coverage=0.9).sum()) == held
    for threshold in (0.0, 0.99 * likely, 1.01 * likely):
        inside = two_classes(threshold).sets(query, coverage=0.9)
        assert inside.tolist() == [[True, False]]


def test_what_other_tasks_say_of_accuracy_is_said():
    estimate = two_classes(1.0).expected_accuracy()
    assert (estimate.mean, estimate.low, estimate.high) == (3 / 4, 1 / 2, 6 / 7)
    assert estimate.coverage == 0.9
    assert not two_classes(1.0).nothing_learned


def test_strangers_are_refused_from_a_distance_that_other_tasks_tell():
    """The two examples are opposite: 2 apart, and so are their means; the unit is 4."""
    task = two_classes(1.0)
    assert task.near.unit == pytest.approx(4)
    query = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # 1 + 1 and 0 + 0 in that unit
    assert task.novelty(query).tolist() == pytest.approx([0.5, 0.0])
    assert task.novelty_threshold(0.9) == pytest.approx(0.9)
    assert task.accepts(query, accept=0.51).all()
    assert task.accepts(query, accept=0.49).tolist() == [False, True]
    assert task.strangers_caught() is None


def test_without_other_tasks_one_example_each_says_nothing():
    task = fit_task(TaskPrior.plain(2), torch.eye(2), torch.tensor([0, 1]), n_way=2)
    assert bool(task.sets(torch.eye(2), coverage=0.01).all())
    assert task.novelty_threshold(0.01) == math.inf
    estimate = task.expected_accuracy()
    assert (estimate.mean, estimate.low, estimate.high) == (0.5, 0.0, 1.0)
    assert "one example each" in estimate.method
    assert task.strangers_caught() is None


# ----------------------------------------------------------------------- held-out examples


def three_classes(n=7):
    g = torch.Generator().manual_seed(1)
    y = torch.arange(3).repeat(n)
    z = torch.eye(3)[y] + 0.4 * torch.randn(len(y), 3, generator=g)
    return z, y, torch.randn(50, 3, generator=g)


def test_what_is_held_out_is_answered_as_by_a_task_without_it():
    """The expected accuracy and the set threshold, from five refits written down here."""
    z, y, _ = three_classes()
    plain = TaskPrior.plain(3)
    task = fit_task(plain, z, y, n_way=3, head="prototype")
    part = torch.arange(21) // 3 % 5  # of seven of a class, the sixth goes with the first
    logits = torch.zeros(21, 3)
    for fold in range(5):
        out = part == fold
        rest = fit_task(plain, z[~out], y[~out], n_way=3, head="prototype")
        logits[out] = rest.scores(z[out])
    p = (logits.double() / task.temperature).softmax(1)
    confidence, answer = p.max(1)
    share = (float((answer == y).sum()) + 8 * float(confidence.mean())) / 29
    odds = share / (1 - share) * math.exp(0.5 / 7)
    estimate = task.expected_accuracy()
    assert estimate.mean == pytest.approx(odds / (1 + odds), rel=1e-4)
    interval = accuracy_interval(estimate.mean, 21, 7.0, 3)
    assert (estimate.low, estimate.high) == pytest.approx(interval)
    scores = -p[torch.arange(21), y].log()
    # of 21 scores the ceil(22 * 0.9) = 20th
    assert task._set_threshold(0.9) == pytest.approx(float(scores.sort().values[19]), rel=1e-4)


def test_thresholds_without_a_prior_are_quantiles_of_the_held_out_scores():
    z, y, queries = three_classes()
    task = fit_task(TaskPrior.plain(3), z, y, n_way=3, head="prototype")
    log_p = (task.evidence.held_out[0].double() / task.temperature).log_softmax(1)
    scores = -log_p[torch.arange(21), y].sort(descending=True).values
    threshold = float(scores[19])
    logits = task.logits(queries)
    inside = -logits.double().log_softmax(1) <= threshold
    assert torch.equal(task.sets_of(logits, coverage=0.9), inside)
    for change in (0.97, 1.03):
        assert not torch.equal(
            -logits.double().log_softmax(1) <= threshold * change,
            task.sets_of(logits, coverage=0.9),
        )
    # and of strangers those of its own distances
    ratios = (task.near.own / task.near.unit).sort().values
    assert task.novelty_threshold(0.9) == pytest.approx(float(ratios[19]))
    caught = float((task.near.apart / task.near.unit > ratios[19]).double().mean())
    assert task.strangers_caught(0.9) == pytest.approx(caught)
    # too few to tell: nothing is refused
    assert task.novelty_threshold(0.99) == math.inf


def test_with_a_prior_its_scores_weigh_half_an_example_and_its_distances_two():
    y = torch.arange(2).repeat(4)
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[y]
    z = z + 0.3 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    prior = prior_of(1.0, held_out=(0.5, 9.0))
    open_set = OpenSetPrior(prior.open_set.far, {}, (0.1, 7.0))
    prior = TaskPrior(prior.metric, 0.0, prior.heads, open_set)
    task = fit_task(prior, z, y, n_way=2, head="prototype")
    own = -(task.evidence.held_out[0].double() / task.temperature).log_softmax(1)
    scores = own[torch.arange(8), y]
    for level in (0.6, 0.9):
        expected = weighted_quantile(scores, (0.5, 9.0), 0.5, level)
        assert task._set_threshold(level) == pytest.approx(expected)
        ratios = task.near.own / task.near.unit
        expected = weighted_quantile(ratios, (0.1, 7.0), 2.0, level)
        assert task.novelty_threshold(level) == pytest.approx(expected)
    assert task.expected_accuracy().method == "leaving examples out"


def test_suspicion_is_the_log_odds_of_the_other_label():
    """Of calibrated probabilities from a head without the example."""
    z, y = world(4, 5, seed=3)
    task = fit_task(TaskPrior.plain(z.shape[1]), z, y, n_way=4, head="prototype")
    order, score, other = task.suspects()
    assert task.temperature != pytest.approx(1, rel=0.1)
    p = (task.evidence.held_out[0].double() / task.temperature).softmax(1)
    for i, said, label in zip(order.tolist(), score.tolist(), other.tolist(), strict=True):
        rest = [c for c in range(4) if c != int(y[i])]
        best = max(rest, key=lambda c: float(p[i, c]))
        assert label == best
        assert said == pytest.approx(math.log(p[i, best] / p[i, y[i]]), rel=1e-6)
    assert score.tolist() == sorted(score.tolist(), reverse=True)


def test_evidence_of_a_hand_made_task():
    # no two examples of a class are copies: those would be one
    x = torch.eye(4)[None, [0, 0, 1, 1, 2]].double() * torch.tensor([1, 2, 1, 2, 1])[:, None]
    y = torch.tensor([[0, 0, 1, 1, 2]])
    support = Examples.full(x, y)
    held_out = held_out_logits(PrototypeHead(), support, n_way=4)
    found = gather_evidence(support, held_out, n_way=4)
    assert float(found.shots) == pytest.approx(3 / (1 / 2 + 1 / 2 + 1))
    assert float(found.ways) == 3
    assert found.judged.tolist() == [[True, True, True, True, False]]
    assert bool(found.enough)
    loss = log_loss(held_out[:, :1], y[:, :1], torch.tensor([2.0]))
    # its class is (2, 0, 0) without it, the others are (0, 1.5, 0) and (0, 0, 1)
    logits = torch.tensor([-1.0, -3.25, -2.0]) / 2
    assert float(loss) == pytest.approx(-float(logits.log_softmax(0)[0]), rel=1e-6)


@pytest.mark.parametrize(
    ("counts", "enough"),
    [
        ((2, 2), True),
        ((2, 1), True),  # two of three
        ((2, 1, 1), True),  # half of the support
        ((2, 1, 1, 1), False),
        ((1, 1), False),
        ((6,), False),  # there is nothing to choose from
        ((301,) + (1,) * 400, True),  # 301 judged are enough of any number
        ((299,) + (1,) * 400, False),
    ],
)
def test_what_is_held_out_counts_from_half_of_the_support_on(counts, enough):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    x = torch.randn(len(y), 3, generator=torch.Generator().manual_seed(0))
    found = gather_evidence(
        Examples.full(x[None], y[None]), torch.zeros(1, len(y), len(counts)), n_way=len(counts)
    )
    assert bool(found.enough) is enough


# ------------------------------------------------------------------------------- heads


def test_a_head_wins_by_more_than_two_standard_errors():
    base = doubles(*[1] * 10 + [0] * 10)
    fewer = [base.clone() for _ in range(2)]
    fewer[0][:5] = 0  # mean difference -0.25, deviation 0.4443, error 0.0993: 2.5 errors
    fewer[1][:3] = 0  # -0.15, 0.3663, 0.0819: 1.8 errors
    assert preferred_unless_beaten({"a": base, "b": fewer[0]}, "a") == "b"
    assert preferred_unless_beaten({"a": base, "b": fewer[1]}, "a") == "a"
    better = fewer[0].clone()
    better[5:7] = 0
    assert preferred_unless_beaten({"a": base, "c": better, "b": fewer[0]}, "a") == "c"
    assert preferred_unless_beaten({"a": base, "b": fewer[0], "c": better}, "a") == "c"
    assert preferred_unless_beaten({"a": base[:1], "b": base[:1] - 1}, "a") == "a"
    assert preferred_unless_beaten({"a": base[:0], "b": base[:0]}, "a") == "a"


def test_sizes_are_compared_by_ratios():
    known = [(5, 1), (20, 1), (5, 10)]
    assert nearest_size(9, 1, known) == (5, 1)
    assert nearest_size(11, 1, known) == (20, 1)
    assert nearest_size(5, 3, known) == (5, 1)
    assert nearest_size(5, 4, known) == (5, 10)


@pytest.mark.parametrize(
    ("name", "size", "dim", "ways", "fits"),
    [
        ("prototype", 100_000, 512, 1000, True),
        # 12 S^3 and 2e11: S = 2554
        ("ridge", 2554, 8, 2, True),
        ("ridge", 2555, 8, 2, False),
        # 300 S W C + S^3: width 10 counts for logistic, S for kernels
        ("logistic", 5000, 10, 5, True),
        ("logistic", 5900, 10, 5, False),
        ("kernel", 5000, 10, 5, True),
        ("kernel", 5000, 10, 20, False),
    ],
)
def test_what_auto_considers_is_bounded_by_its_cost(name, size, dim, ways, fits):
    support = Examples.full(
        torch.zeros(1, 1, dim).expand(1, size, dim), torch.zeros(1, size).long()
    )
    assert affordable(name, support, ways) is fits


def test_a_temperature_stays_near_the_deviation_where_examples_are_few():
    """Two examples answered right ask for a temperature of 0: the penalty keeps it finite."""
    logits = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    y, judged = torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool)
    found = float(own_temperature(logits, y, judged))
    steps = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    cost = 2 * torch.log1p(torch.exp(-2 / steps.exp())) + 0.5 * steps.square()
    assert found == pytest.approx(float(steps[cost.argmin()].exp()), rel=0.07)


@pytest.mark.parametrize(
    ("bad", "error", "what"),
    [
        ({"y": torch.tensor([0.0, 1.0])}, TaskError, "whole numbers"),
        ({"n_way": 0}, ConfigError, "n_way"),
        ({"n_way": 2.5}, ConfigError, "n_way"),
        ({"head": 3}, ConfigError, "head"),
        ({"z": [[1.0, 2.0]]}, ConfigError, "z"),
    ],
)
def test_what_is_no_task_is_refused_by_name(bad, error, what):
    given = {"z": torch.eye(2), "y": torch.tensor([0, 1]), "n_way": 2, "head": "prototype"}
    with pytest.raises(error, match=what):
        fit_task(TaskPrior.plain(2), **{**given, **bad})


@pytest.mark.parametrize("bad", [0.0, 1.0, -1.0, 2.0, math.nan, "0.9", None, True])
def test_shares_outside_of_0_and_1_are_refused(bad):
    task = fit_task(TaskPrior.plain(2), torch.eye(2), torch.tensor([0, 1]), n_way=2)
    for call in (
        lambda: task.sets(torch.eye(2), coverage=bad),
        lambda: task.accepts(torch.eye(2), accept=bad),
        lambda: task.novelty_threshold(bad),
    ):
        with pytest.raises(ConfigError, match=r"coverage|accept"):
            call()


def test_one_example_each_without_a_prior_is_answered_at_the_usual_temperature_of_the_head() -> (
    None
):
    z = torch.eye(3, 8)
    logistic = fit_task(TaskPrior.plain(8), z, torch.arange(3), n_way=3, head="logistic")
    kernel = fit_task(TaskPrior.plain(8), z, torch.arange(3), n_way=3, head="kernel")
    assert (logistic.temperature, kernel.temperature) == (0.26, 0.1)
    # heads on columns return log probabilities
    columns = fit_task(TaskPrior.for_columns(8), z, torch.arange(3), n_way=3, head="lda")
    assert columns.temperature == 1.0

"""Thresholds, intervals and calibration against numbers computed by hand."""

import math

import pytest
import torch

from quickstudy.core import ConfigError, Examples, TaskError
from quickstudy.estimators import TaskPrior, fit_task
from quickstudy.fitting.calibration import _weighted_quantile
from quickstudy.fitting.evidence import own_temperature
from quickstudy.fitting.heads import affordable, nearest_size, preferred_unless_beaten
from quickstudy.fitting.novelty import distances, nearest_cosine
from quickstudy.fitting.prior import HeadPrior
from quickstudy.fitting.surfaces import Surface, pinball
from quickstudy.fitting.task import _threshold_between, held_out_quantile


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("level", "expected"),
    # of 9 scores the ceil(10 level)-th smallest
    [(0.05, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.8, 8), (0.81, 9), (0.9, 9), (0.91, math.inf)],
)
def test_a_conformal_quantile_is_the_rank_of_the_definition(level, expected):
    scores = doubles(7, 3, 9, 1, 5, 2, 8, 6, 4)
    assert held_out_quantile(scores, level) == expected
    assert held_out_quantile(scores[:0], level) == math.inf


@pytest.mark.parametrize(
    ("level", "expected"),
    # weights 1, 2, 3, 4 of the values 10, 20, 30, 40: shares up to 0.1, 0.3, 0.6 and 1
    [(0.05, 10), (0.1, 10), (0.11, 20), (0.3, 20), (0.31, 30), (0.59, 30), (0.61, 40), (0.99, 40)],
)
def test_a_weighted_quantile_is_the_first_that_reaches_the_share(level, expected):
    assert _weighted_quantile(doubles(40, 20, 10, 30), doubles(4, 2, 1, 3), level) == expected


def test_thresholds_between_two_levels_are_linear_in_the_logit_and_never_cross():
    made = {q: Surface.constant(v, 1) for q, v in ((0.5, 1.0), (0.8, 3.0), (0.9, 2.0))}
    at = torch.zeros(1, 1)

    def between(level):
        return _threshold_between(made, at, level)

    assert between(0.5) == pytest.approx(1.0)
    assert between(0.8) == pytest.approx(3.0)
    assert between(0.9) == pytest.approx(3.0)  # not below that of 0.8
    # odds of 2 lie half-way between odds of 1 and 4, on the scale of logits
    assert between(2 / 3) == pytest.approx(2.0)
    # beyond the ends the last piece goes on: odds of 1/4 are one step below odds of 1
    assert between(0.2) == pytest.approx(-1.0)


def two_classes(coverage_threshold):
    """A task whose sets hold the classes with -log p up to a threshold, at temperature 1."""
    constant = Surface.constant
    sets = {0.5: constant(coverage_threshold / 2, 6), 0.9: constant(coverage_threshold, 6)}
    head = HeadPrior(
        settings={(2, 1): {"shrinkage": 0.0}},
        temperature=(constant(0.0, 6), constant(0.0, 14)),
        accuracy=(constant(math.log(3), 6), constant(0.0, 14)),
        spread=((-math.log(3), math.log(2)), (0.0, 0.0)),
        sets=(sets, {0.9: constant(0.0, 14)}),
    )
    prior = TaskPrior(TaskPrior.plain(2).metric, 0.0, 100.0, {"prototype": head})
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    return fit_task(prior, z, torch.tensor([0, 1]), n_way=2, head="prototype")


@pytest.mark.parametrize("angle", [0.3, 1.0, 1.3])
def test_a_set_holds_the_classes_up_to_the_threshold_and_no_more(angle):
    """Cosines c and -c: -log p are softplus(-2c) and softplus(2c)."""
    query = torch.tensor([[math.cos(angle), math.sin(angle)]])
    c = math.cos(angle)
    unlikely = math.log1p(math.exp(2 * c))
    likely = math.log1p(math.exp(-2 * c))
    for share, held in ((0.99, 1), (1.01, 2)):
        assert int(two_classes(share * unlikely).sets(query, coverage=0.9).sum()) == held
    assert int(two_classes(0.99 * likely).sets(query, coverage=0.9).sum()) == 0
    inside = two_classes(1.01 * likely).sets(query, coverage=0.9)
    assert inside.tolist() == [[True, False]]


def test_the_expected_accuracy_of_a_size_by_hand():
    estimate = two_classes(1.0).expected_accuracy()
    # odds of 3, and three times less or twice more
    assert estimate.mean == pytest.approx(3 / 4)
    assert estimate.low == pytest.approx(1 / 2)
    assert estimate.high == pytest.approx(6 / 7)
    assert estimate.coverage == 0.9


def test_wilsons_interval_by_hand():
    """Eight of eight held-out examples right: centre and width of Wilson (1927), z = 1.645."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(2).repeat(4)
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[y] + 0.01 * torch.randn(8, 2, generator=g)
    task = fit_task(TaskPrior.plain(2), z, y, n_way=2, head="prototype")
    estimate = task.expected_accuracy()
    square = 1.645**2
    assert estimate.mean == 1.0
    assert estimate.high == pytest.approx(1.0)
    assert estimate.low == pytest.approx(1 - square / (8 + square))


def test_thresholds_without_a_prior_are_quantiles_of_the_held_out_scores():
    g = torch.Generator().manual_seed(1)
    y = torch.arange(3).repeat(7)
    z = torch.eye(3)[y] + 0.4 * torch.randn(21, 3, generator=g)
    task = fit_task(TaskPrior.plain(3), z, y, n_way=3, head="prototype")
    log_p = (task.evidence.held_out[0].double() / task.temperature).log_softmax(1)
    scores = -log_p[torch.arange(21), y].sort(descending=True).values
    # of 21 scores the ceil(22 * 0.9) = 20th
    threshold = float(scores[19])
    logits = task.logits(torch.randn(50, 3, generator=g))
    inside = -logits.double().log_softmax(1) <= threshold
    assert torch.equal(task.sets_of(logits, coverage=0.9), inside)
    for change in (0.97, 1.03):
        assert not torch.equal(
            -logits.double().log_softmax(1) <= threshold * change,
            task.sets_of(logits, coverage=0.9),
        )


def test_distances_from_the_support_by_hand():
    x = torch.eye(4, dtype=torch.float64)
    seen = Examples.full(x[None, [0, 0, 1, 2]], torch.tensor([[0, 0, 1, 2]]))
    query = doubles(3, 4, 0, 0)[None, None]  # cosines 0.6, 0.6, 0.8 and 0
    one, three, prototype, lead = distances(seen, query, n_way=3)[0, 0].tolist()
    assert one == pytest.approx(1 - 0.8)
    assert three == pytest.approx(1 - (0.8 + 0.6 + 0.6) / 3)
    assert prototype == pytest.approx(1 - 0.8)
    assert lead == pytest.approx(0.2)
    mask = torch.tensor([[True, True, False, True]])
    assert float(nearest_cosine(seen.x, mask, query)) == pytest.approx(1 - 0.6)
    alone = distances(Examples.full(x[None, :1], torch.zeros(1, 1).long()), query, n_way=1)
    assert alone[0, 0].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.0])


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


def test_the_pinball_loss_by_hand():
    assert float(pinball(doubles(2.0), 0.9, smooth=1e-3)) == pytest.approx(1.8)
    assert float(pinball(doubles(-2.0), 0.9, smooth=1e-3)) == pytest.approx(0.2)
    assert float(pinball(doubles(0.0), 0.9)) == pytest.approx(0.02 * math.log(2))


def test_a_temperature_stays_near_the_deviation_where_examples_are_few():
    """Two examples answered right ask for a temperature of 0: the penalty keeps it finite."""
    logits = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    y, judged = torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool)
    found = float(own_temperature(logits, y, judged))
    steps = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    cost = 2 * torch.log1p(torch.exp(-2 / steps.exp())) + steps.square()
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

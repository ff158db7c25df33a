"""A mean with its interval: what it is, and how it is written."""

from __future__ import annotations

import doctest
import math
import re
from pathlib import Path

import numpy as np
import pytest

import quickstudy
from quickstudy.evaluation import Mean, mean_interval, statistics

ALONE = Mean(0.5, float("nan"), 1, "episodes")


def test_the_example_in_the_docstring_is_true():
    failed, tried = doctest.testmod(statistics)
    assert (failed, tried) == (0, 3)


def test_a_mean_of_scores_by_hand():
    found = Mean.of([0.0, 1.0, 2.0], over="seeds")
    assert (found.mean, found.n, found.over) == (1.0, 3, "seeds")
    assert found.ci95 == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert (found.low, found.high) == (1.0 - found.ci95, 1.0 + found.ci95)
    assert math.isnan(Mean.of([0.5], over="seeds").ci95)


def test_intervals_that_hold_together_are_longer():
    scores = np.array([0.1, 0.4, 0.2, 0.9])
    # t at 1 - 0.025 / 5 with 3 degrees of freedom, against t at 0.975
    assert mean_interval(scores, comparisons=5) / mean_interval(scores) == pytest.approx(
        5.840909 / 3.182446, rel=1e-6
    )


def test_the_average_of_independent_means():
    both = Mean.average([Mean(0.2, 0.03, 9, "episodes"), Mean(0.4, 0.04, 9, "episodes")], over="x")
    assert both.mean == pytest.approx(0.3)
    assert both.ci95 == pytest.approx(0.025)  # half of the hypotenuse of 3 and 4
    assert (both.n, both.over) == (2, "x")
    one = Mean(0.2, 0.03, 9, "episodes")
    assert Mean.average([one], over="x").ci95 == one.ci95
    assert math.isnan(Mean.average([one, ALONE], over="x").ci95)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (lambda m: m.percent(), "1.23 ± 4.57 %"),
        (lambda m: m.percent(digits=0), "1 ± 5 %"),
        (lambda m: m.points(), "+1.23 ± 4.57 points"),
        (lambda m: (-m).points(digits=1), "-1.2 ± 4.6 points"),
        (lambda m: m.points(digits=1, signed=False), "1.2 ± 4.6 points"),
        (lambda m: m.cell(), "1.23 ± 4.57"),
        (str, "1.23 ± 4.57"),
        (lambda m: m.cell(signed=True), "+1.23 ± 4.57"),
        (lambda m: m.cell(digits=1, aligned=True), "  1.2 ±  4.6"),
        (lambda m: m.plain(), "0.0123 ± 0.0457"),
    ],
)
def test_how_it_is_written(written, expected):
    assert written(Mean(0.01234, 0.04567, 600, "episodes")) == expected


def test_without_an_interval_none_is_written():
    assert ALONE.percent() == "50.00 %"
    assert ALONE.points() == "+50.00 points"
    assert ALONE.plain() == "0.5000"
    assert ALONE.cell(digits=1, aligned=True) == " 50.0"
    assert ALONE.to_dict() == {"mean": 0.5, "ci95": None}
    assert list(Mean(0.5, 0.1, 3, "seeds").to_dict().items()) == [("mean", 0.5), ("ci95", 0.1)]


def test_nobody_else_writes_an_interval_by_hand():
    root = Path(quickstudy.__file__).parent
    by_hand = re.compile(r"\} ± |± \{")
    found = {
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        if by_hand.search(file.read_text(encoding="utf-8"))
    }
    # a document that is checked is cited to six places
    assert found - {"checks/intervals.py"} == {"evaluation/statistics.py"}

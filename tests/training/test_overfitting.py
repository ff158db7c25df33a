"""Meta-overfitting: it is seen where it is, and not where it is not."""

import json

import numpy as np
import pytest

from quickstudy.core import TaskError, normals
from quickstudy.training.overfitting import NOVEL, TRAINING, Curve, find_overfitting

STEPS = tuple(range(10, 101, 10))


def episodes(means, n, seed, *, noise=0.05, spread=0.1):
    """Scores [V, E] of the same episodes at each step: each has its own difficulty."""
    means = np.asarray(means)[:, None]
    own = spread * normals(seed, 0, np.arange(n))
    jitter = noise * normals(seed, 1, np.arange(len(means))[:, None], np.arange(n))
    return np.clip(means + own + jitter, 0, 1)


def curve(training, novel, *, n=200, seed=0, **others):
    lists = {TRAINING: training, NOVEL: novel, **others}
    scores = {name: episodes(m, n, seed + 7919 * i) for i, (name, m) in enumerate(lists.items())}
    return Curve(STEPS, scores)


def rising(low, high, speed=30.0):
    return [high - (high - low) * np.exp(-(s - STEPS[0]) / speed) for s in STEPS]


FALLING = [0.5, 0.6, 0.65, 0.64, 0.62, 0.6, 0.59, 0.58, 0.57, 0.56]


def test_a_fall_is_found_with_its_evidence():
    (found,) = find_overfitting(curve(rising(0.6, 0.9), FALLING))
    assert (found.novel, found.kind, found.since, found.last) == (NOVEL, "falls", 30, 100)
    assert found.change.low < -0.085 < found.change.high < 0
    assert found.gap.low > 0.085
    assert found.episodes == 200
    assert found.comparisons == 8
    text = str(found)
    for part in (
        "novel classes got worse",
        f"{100 * found.before:.2f} % at step 30",
        f"{100 * found.after:.2f} % in the last two validations, to step 100",
        f"{100 * found.change.low:+.2f} points to {100 * found.change.high:+.2f} points",
        "paired over 200 episodes",
    ):
        assert part in text
    assert "from before the fall" in found.advice(kept=30)
    assert "choose_by='novel classes' would keep step 30" in found.advice(kept=100)
    assert json.loads(json.dumps(found.to_dict()))["change"]["mean"] == found.change.mean


def test_a_domain_that_parts_alone_is_named_alone():
    both = curve(rising(0.6, 0.9), rising(0.5, 0.8), mnist=FALLING)
    assert [(f.novel, f.kind) for f in find_overfitting(both)] == [("mnist", "falls")]
    assert "choose_by=mnist" in find_overfitting(both)[0].advice(kept=90)


def test_classes_that_stand_still_while_training_rises_are_found():
    (found,) = find_overfitting(curve(rising(0.5, 0.95), [0.5] * 10))
    assert (found.kind, found.since) == ("stalls", 10)
    assert "did not rise" in str(found)
    assert "taught nothing that carries over" in found.advice(kept=100)
    # it rises by less than training classes do, but it rises
    assert find_overfitting(curve(rising(0.5, 0.95), rising(0.5, 0.65))) == ()


@pytest.mark.parametrize(
    ("training", "novel", "why"),
    [
        (rising(0.6, 0.9), rising(0.55, 0.85), "both rise"),
        ([0.8] * 10, [0.7] * 10, "nothing happens"),
        ([1 - f for f in FALLING][::-1], [1 - f for f in FALLING][::-1], "both alike"),
        (FALLING, FALLING, "both fall: that is divergence, not overfitting"),
        (rising(0.6, 0.9), [0.7 - 0.0004 * i for i in range(10)], "a fall of 0.4 points"),
    ],
)
def test_a_healthy_curve_is_left_alone(training, novel, why):
    found = [f for f in find_overfitting(curve(training, novel, n=4000)) if f.kind == "falls"]
    assert not found, why


def test_noise_is_called_a_parting_in_at_most_5_per_cent():
    runs = 400
    # no change at all; best of ten looks 1 to 2 points better than the last, by chance
    flat = sum(
        bool(find_overfitting(curve([0.9] * 10, [0.7] * 10, n=100, seed=s))) for s in range(runs)
    )
    # a healthy run that levels off, with two domains
    healthy = sum(
        bool(
            find_overfitting(
                curve(
                    rising(0.6, 0.9, 15),
                    rising(0.5, 0.8, 15),
                    n=100,
                    seed=s,
                    a=rising(0.4, 0.6, 15),
                    b=[0.5] * 3 + [0.55] * 7,
                )
            )
        )
        for s in range(10_000, 10_000 + runs)
    )
    # 5 % and two standard errors of the simulation
    assert flat <= 0.05 * runs + 2 * np.sqrt(0.05 * 0.95 * runs)
    assert healthy <= 0.05 * runs + 2 * np.sqrt(0.05 * 0.95 * runs)


@pytest.mark.parametrize("sway", [0.01, 0.02])
@pytest.mark.parametrize("novel", [[0.6] * 20, list(0.6 - 0.2 * np.exp(-np.arange(20) / 4))])
def test_weights_that_sway_are_called_a_parting_in_at_most_5_per_cent(sway, novel):
    """Episodes are not all that is random: a healthy run goes up and down between validations."""
    runs, steps = 200, tuple(range(20))
    training, found, naive = np.linspace(0.9, 0.93, 20), 0, 0
    for seed in range(runs):
        swayed = np.asarray(novel) + sway * normals(seed, 2, np.arange(20))
        lists = {TRAINING: episodes(training, 200, seed), NOVEL: episodes(swayed, 200, seed + 7919)}
        found += bool(find_overfitting(Curve(steps, lists)))
        fall = lists[NOVEL][-1] - lists[NOVEL][lists[NOVEL].mean(1).argmax()]
        naive += bool(fall.mean() + 3.1 * fall.std() / np.sqrt(200) < 0)
    assert found <= 0.05 * runs + 2 * np.sqrt(0.05 * 0.95 * runs)
    assert naive > 0.2 * runs  # what an interval over episodes alone would say, Bonferroni and all


def test_one_bad_validation_is_no_fall_and_two_are():
    dip = [*rising(0.5, 0.8, 15)[:-1], 0.74]
    assert find_overfitting(curve(rising(0.6, 0.9), dip)) == ()
    fallen = [0.5, 0.58, 0.64, 0.68, 0.7, 0.7, 0.68, 0.66, 0.62, 0.6]
    assert [f.kind for f in find_overfitting(curve(rising(0.6, 0.9), fallen))] == ["falls"]


def test_the_interval_minds_how_many_steps_were_looked_at(monkeypatch):
    monkeypatch.setattr("quickstudy.training.overfitting._LEAST_FALL", 0.0)
    rng = np.random.default_rng(0)
    training = np.linspace(0.5, 1, 20)[:, None] + 0.01 * rng.normal(size=(20, 50))
    novel = 0.5 + 0.1 * rng.normal(size=(200, 20, 50))
    steps = tuple(range(20))
    lists = [Curve(steps, {TRAINING: training, NOVEL: n}) for n in novel]
    falls = [f for c in lists for f in find_overfitting(c) if f.kind == "falls"]
    assert len(falls) <= 16  # 5 % of 200, and two standard errors
    naive = sum(
        (d := n[-1] - n[n.mean(1).argmax()]).mean() + 1.96 * d.std() / np.sqrt(50) < 0
        for n in novel
    )
    assert naive > 30  # what the best of 20 would be taken for


def test_errors_part_when_they_grow():
    c = curve(rising(0.6, 0.9), FALLING)
    errors = Curve(c.steps, {name: 2 - s for name, s in c.scores.items()}, "mse")
    (found,) = find_overfitting(errors)
    assert found.since == 30
    assert found.after > found.before
    assert "an error of" in str(found)
    assert "%" not in str(found).replace("95 %", "")


def test_what_cannot_be_judged_gives_nothing():
    c = curve(rising(0.6, 0.9), FALLING)
    assert find_overfitting(Curve(STEPS, {NOVEL: c.scores[NOVEL]})) == ()
    for few in (1, 2, 3):
        assert find_overfitting(Curve(STEPS[:few], {n: s[:few] for n, s in c.scores.items()})) == ()
    assert find_overfitting(Curve(STEPS, {n: s[:, :1] for n, s in c.scores.items()})) == ()
    with pytest.raises(TaskError, match=r"needs \[3, episodes\]"):
        Curve((1, 2, 3), c.scores)


def test_a_curve_is_read_from_lines_and_only_what_can_be_paired():
    lines = [
        {"step": s, "metric": "accuracy", "scores": {TRAINING: [0.5, 0.6], NOVEL: [0.1] * n}}
        for s, n in ((5, 2), (10, 3), (20, 3))
    ]
    read = Curve.from_lines(lines)
    assert read is not None
    assert read.steps == (10, 20)
    assert read.scores[NOVEL].shape == (2, 3)
    assert read.to_dict()["lists"][TRAINING]["mean"] == [0.55, 0.55]
    assert Curve.from_lines([]) is None

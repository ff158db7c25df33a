"""What an estimator reports of itself, in words: the prior, what numbers rest on, strangers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.cli import main
from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.report import report_on
from quickstudy.fitting.learn import learn_prior
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import fit_task

D = 16


def source(name, centre, *, spread=0.6, classes=14, rows=20, seed=0):
    """Return embeddings of a source: classes around a middle of their own."""
    rng = np.random.default_rng(seed)
    middle = np.zeros(D)
    middle[centre] = 3.0
    means = middle + rng.normal(size=(classes, D))
    z = means.repeat(rows, 0) + spread * rng.normal(size=(classes * rows, D))
    return z.astype("float32"), np.arange(classes).repeat(rows), np.full(len(z), name)


@pytest.fixture(scope="module")
def prior() -> TaskPrior:
    parts = [source("cats", 0, seed=1), source("cars", 1, seed=2)]
    z, y, s = (np.concatenate(side) for side in zip(*parts, strict=True))
    return learn_prior(z, y, sources=s, heads=("prototype",), ways=(2, 5), shots=(1, 2), tasks=10)


def drawn(centre, shots, seed, classes=4):
    z, y, _ = source("new", centre, seed=seed)
    rows = np.concatenate([np.flatnonzero(y == c)[:shots] for c in range(classes)])
    return torch.from_numpy(z[rows]), torch.from_numpy(y[rows])


def test_a_task_like_one_source_is_said_to_be(prior):
    familiar = [
        fit_task(prior, *drawn(1, 1, seed), n_way=4, head="prototype").familiar
        for seed in range(10, 30)
    ]
    assert familiar.count("cars") >= 15
    assert "cats" not in familiar
    report = report_on(fit_task(prior, *drawn(1, 1, 10), n_way=4, head="prototype"))
    assert "it knows such tasks" in report.prior
    assert "cars" in report.prior
    assert "rest on other tasks alone" in report.basis


def test_a_task_like_none_is_said_to_be_and_less_is_claimed(prior):
    near = fit_task(prior, *drawn(1, 1, 10), n_way=4, head="prototype")
    far = fit_task(prior, *drawn(7, 1, 10), n_way=4, head="prototype")
    assert far.familiar is None
    report = report_on(far)
    assert "does not know such tasks (it knows cars, cats)" in report.prior
    assert "vague" in report.prior
    a, b = near.expected_accuracy(), far.expected_accuracy()
    assert b.high - b.low > a.high - a.low
    assert far.novelty_threshold(0.95) >= near.novelty_threshold(0.95)


def test_with_several_shots_the_report_counts_the_examples_it_rests_on(prior):
    report = report_on(fit_task(prior, *drawn(7, 5, 11), n_way=4, head="prototype"))
    assert "20 of the task's own examples" in report.basis
    assert "hardly counts here" in report.prior
    assert "of further classes of this kind about" in report.strangers


def test_labels_without_meaning_are_told():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, D)), np.arange(5).repeat(5)
    report = FewShotClassifier("array").fit(x, y).report()
    assert report.nothing_learned
    assert "nothing was learned" in report.accuracy
    x[np.arange(25), y] += 8
    report = FewShotClassifier("array").fit(x, y).report()
    assert not report.nothing_learned
    assert "none for this encoder" in report.prior


def test_one_example_each_without_a_prior_claims_nothing():
    clf = FewShotClassifier("array").fit(np.eye(3, D), ["a", "b", "c"])
    report = clf.report()
    assert "rest on nothing" in report.basis
    assert "none can be refused" in report.strangers
    assert report.lines() == str(report).splitlines()


def test_one_class_has_a_report():
    report = FewShotClassifier("array").fit(np.eye(2, D), ["a", "a"]).report()
    assert "one class only" in report.accuracy


def test_show_prints_the_report(tmp_path, capsys):
    clf = FewShotClassifier("array").fit(np.eye(4, D), ["a", "a", "b", "b"])
    clf.save(tmp_path / "x.task")
    with pytest.raises(SystemExit) as ended:
        main(["show", str(tmp_path / "x.task"), "--out", str(tmp_path / "x.html")])
    assert ended.value.code == 0
    assert clf.report().prior in capsys.readouterr().out
    assert "What these numbers rest on" in (tmp_path / "x.html").read_text()


def test_a_class_that_cannot_be_held_out_is_not_counted_as_solved():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(51, D)), ["often"] * 50 + ["once"]
    clf = FewShotClassifier("array").fit(x, y)
    said = clf.estimate_accuracy()
    assert said.high - said.low >= 0.5
    assert "of 1 of the 2 classes nothing is known" in said.method
    assert clf.report().nothing_learned
    # nor can it be ruled out
    assert all("once" in inside for inside in clf.predict_set(rng.normal(size=(20, D))))
    # with a second example it is heard
    more = clf.add_examples(rng.normal(size=(1, D)), "once")
    assert more is not None
    assert "nothing is known" not in clf.estimate_accuracy().method


def test_guessing_the_most_frequent_class_is_no_learning():
    rng = np.random.default_rng(0)
    y = rng.permutation(["often"] * 45 + ["seldom"] * 5)
    report = FewShotClassifier("table").fit(rng.normal(size=(50, 5)), y).report()
    assert report.nothing_learned
    assert "guessing gets 90 % right" in report.accuracy


def test_little_evidence_is_not_called_nothing_learned():
    said = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = np.concatenate([rng.normal(size=(3, D)), rng.normal(size=(3, D)) + 0.8])
        report = FewShotClassifier("array").fit(x, ["a"] * 3 + ["b"] * 3).report()
        yet = "cannot be told from guessing yet" in report.accuracy
        never = "nothing was learned, as far" in report.accuracy
        assert report.nothing_learned == (yet or never)
        said.append((yet, never))
    assert any(yet for yet, _ in said)
    assert any(never for _, never in said)


def test_the_share_of_false_rejects_is_the_one_asked_for():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, D)), rng.normal(size=(40, D)) + 4])
    clf = FewShotClassifier("array", unknown="?", false_rejects=0.2)
    report = clf.fit(x, ["a"] * 40 + ["b"] * 40).report()
    assert "20 % false rejects" in report.strangers

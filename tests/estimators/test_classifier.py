"""The classifier: answers at once, changes at once, and says what it does not know."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from quickstudy.core import CheckpointError, ConfigError, DataError, TaskError
from quickstudy.estimators import FewShotClassifier, TaskPrior, TaskVersion
from quickstudy.estimators.history import History
from quickstudy.fitting.space import Metric, MetricSettings

CENTRES = np.random.default_rng(0).normal(size=(1000, 20)) * 2


def examples(classes: int = 5, each: int = 5, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    x = CENTRES[y] + draw.normal(size=(len(y), 20))
    return x, np.array([f"class {c:04d}" for c in y])


@pytest.fixture
def clf() -> FewShotClassifier:
    return FewShotClassifier("array").fit(*examples())


@parametrize_with_checks([FewShotClassifier("table")])
def test_scikit_learn_conventions(estimator: FewShotClassifier, check: object):
    check(estimator)  # type: ignore[operator]


def test_it_works_in_scikit_learns_tools():
    x, y = examples(each=9)
    assert cross_val_score(FewShotClassifier("table"), x, y, cv=3).mean() > 0.9
    search = GridSearchCV(FewShotClassifier("table"), {"head": ["prototype", "ridge"]}, cv=3)
    assert search.fit(x, y).best_score_ > 0.9
    assert make_pipeline(FewShotClassifier("table")).fit(x, y).score(x, y) > 0.9
    assert clone(FewShotClassifier("table", head="ridge")).head == "ridge"


@pytest.mark.parametrize(
    "head",
    ["auto", "prototype", "ridge", "logistic", "kernel", "neighbours", "gradient", "class-mean"],
)
def test_every_head_learns(head: str):
    clf = FewShotClassifier("array", head=head).fit(*examples())
    x, y = examples(each=20, seed=1)
    assert clf.score(x, y) > 0.9
    p = clf.predict_proba(x)
    assert p.shape == (100, 5)
    assert np.allclose(p.sum(1), 1, atol=1e-5)
    assert (clf.classes_[p.argmax(1)] == clf.predict(x)).all()


@pytest.mark.parametrize("labels", [[0, 1], [True, False], [2.0, 7.0], ["a", "b"], ["ä😀", "b"]])
def test_labels_of_any_type_come_back(labels: list[object]):
    x, y = examples(2)
    given = np.array([labels[int(name[-1])] for name in y])
    clf = FewShotClassifier("array").fit(x, given)
    answer = clf.predict(x)
    assert answer.dtype == given.dtype
    assert (answer == given).all()


def test_edits_equal_a_refit(clf: FewShotClassifier):
    x, y = examples(7, 4, seed=2)
    query, _ = examples(7, 5, seed=3)
    new = y == "class 0005"
    assert clf.add_class("class 0005", x[new]).n_classes == 6
    clf.add_examples(x[y == "class 0006"], "class 0006")
    clf.add_examples(x[:8], y[:8])
    clf.remove_class("class 0002")
    old, names = examples()
    rest = names != "class 0002"
    refit = FewShotClassifier("array").fit(
        np.concatenate([old[rest], x[new], x[y == "class 0006"], x[:8]]),
        np.concatenate([names[rest], y[new], y[y == "class 0006"], y[:8]]),
    )
    assert list(refit.classes_) == sorted(clf.classes_)
    columns = np.argsort(clf.classes_)
    assert np.allclose(clf.predict_proba(query)[:, columns], refit.predict_proba(query), atol=1e-5)


def test_a_tables_edit_scales_it_anew():
    x, y = examples()
    clf = FewShotClassifier("table").fit(x[:20], y[:20])
    clf.add_examples(100 * x[20:], y[20:])
    refit = FewShotClassifier("table").fit(np.concatenate([x[:20], 100 * x[20:]]), y)
    assert np.allclose(clf.predict_proba(x), refit.predict_proba(x), atol=1e-5)


def test_undo_is_exact(clf: FewShotClassifier):
    x, _ = examples(seed=4)
    before = clf.predict_proba(x)
    clf.remove_class("class 0001")
    clf.add_class("other", x[:2] + 50)
    clf.relabel(0, "other")
    clf.remove_examples([1, 2])
    clf.rename_class("other", "another")
    assert clf.undo().others_unchanged
    assert not clf.undo().others_unchanged
    for _ in range(3):
        clf.undo()
    assert np.array_equal(clf.predict_proba(x), before)
    with pytest.raises(TaskError, match="nothing to undo"):
        clf.undo()


def test_a_renaming_changes_no_score(clf: FewShotClassifier):
    x, _ = examples(seed=4)
    before = clf.decision_function(x)
    assert clf.rename_class("class 0000", "zebra").others_unchanged
    assert np.array_equal(clf.decision_function(x), before)
    assert "zebra" in clf.classes_


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_class_means_leave_other_classes_bit_identical(steps: list[int], seed: int):
    """In a whitened space, where a product of matrices rounds by the number of its rows."""
    draw = np.random.default_rng(seed)
    mixed = Metric(
        MetricSettings(shrinkage=0.5),
        torch.zeros(20),
        torch.linalg.qr(torch.randn(20, 9)).Q,
        torch.rand(9),
    )
    x, y = examples(9, 6, seed=seed)
    first = np.isin(y, np.unique(y)[:6])
    clf = FewShotClassifier("array", head="class-mean").fit(x[first], y[first])
    mixed_version = TaskVersion.learn(
        clf.support_, clf.embedder_, TaskPrior(mixed), head="class-mean"
    )
    clf._task = mixed_version, History()
    query = draw.normal(size=(7, 20)).astype(np.float32)
    fresh = [f"class {c:04d}" for c in range(6, 9)]
    for step in steps:
        before = dict(zip(clf.classes_, clf.decision_function(query).T, strict=True))
        some = str(draw.choice(clf.classes_))
        if step == 0 and fresh:
            touched = fresh.pop()
            edit = clf.add_class(touched, x[y == touched])
        elif step == 1 and len(clf.classes_) > 3:
            touched, edit = some, clf.remove_class(some)
        elif step == 2:
            touched, edit = some, clf.add_examples(draw.normal(size=(3, 20)), some)
        elif step == 3:
            touched, edit = some, clf.rename_class(some, some + "!")
            clf.undo()
        else:
            touched, edit = (
                some,
                clf.undo() if clf._task[1].past else clf.rename_class(some, some + "?"),
            )
            touched = None
        assert edit.others_unchanged
        after = dict(zip(clf.classes_, clf.decision_function(query).T, strict=True))
        if touched is not None:
            for name in before.keys() & after.keys() - {touched}:
                assert np.array_equal(before[name], after[name]), (step, name)


def test_other_heads_say_that_scores_may_move(clf: FewShotClassifier):
    assert not clf.remove_class("class 0001").others_unchanged
    x, y = examples()
    table = FewShotClassifier("table", head="class-mean").fit(x, y)
    assert not table.remove_class("class 0001").others_unchanged  # its scales are the support's


def test_strangers_are_not_known():
    x, y = examples(each=10)
    clf = FewShotClassifier("array", unknown="?").fit(x, y)
    near, _ = examples(each=20, seed=1)
    far = np.random.default_rng(5).normal(size=(100, 20)) * 2
    assert (clf.predict(near) != "?").mean() > 0.8
    assert (clf.predict(far) == "?").mean() > 0.8
    assert clf.known_score(near).mean() > clf.known_score(far).mean()


@pytest.mark.parametrize(
    ("labels", "unknown", "kind"),
    [
        ([0, 1], -1, "i"),
        ([0, 1], np.int64(-1), "i"),
        ([0.0, 1.0], -1, "f"),
        (["a", "b"], "a stranger", "U"),
        ([0, 1], "stranger", "O"),
        (["a", "b"], -1, "O"),
        ([True, False], "stranger", "O"),
    ],
)
def test_the_type_of_the_answers_does_not_depend_on_the_inputs(
    labels: list[object], unknown: object, kind: str
):
    x, y = examples(2, 12)
    given = [labels[int(name[-1])] for name in y]
    clf = FewShotClassifier("array", unknown=unknown, false_rejects=0.3).fit(x, given)
    far = np.full((2, 20), -30.0)
    alone, both, strangers = clf.predict(x[:2]), clf.predict(np.r_[x[:2], far]), clf.predict(far)
    assert {alone.dtype, both.dtype, strangers.dtype} == {both.dtype}
    assert both.dtype.kind == kind
    assert both.tolist() == [given[0], given[1], unknown, unknown]
    assert strangers.tolist() == [unknown] * 2
    if kind != "O":  # scikit-learn's metrics take no mixed labels, and these are none
        assert accuracy_score([given[0], given[1], unknown, unknown], both) == 1
        assert f1_score([*given[:2], unknown, unknown], both, average="macro") == 1


def test_one_class_is_accepted_or_not():
    x, _ = examples(1, 20)
    clf = FewShotClassifier("array", unknown="?").fit(x, ["okapi"] * 20)
    assert (clf.predict(examples(1, 20, seed=1)[0]) == "okapi").mean() > 0.7
    assert (clf.predict(-x) == "?").all()
    assert np.array_equal(clf.predict_proba(x), np.ones((20, 1)))


def test_one_example_in_all():
    clf = FewShotClassifier("array").fit([[1.0, 2.0]], ["only"])
    assert clf.predict([[0.0, 1.0]]) == ["only"]
    assert clf.suspects() == []
    assert str(clf.estimate_accuracy())


def test_sets_hold_the_answer():
    x, y = examples(each=8)
    clf = FewShotClassifier("array").fit(x, y)
    query, truth = examples(each=40, seed=6)
    sets = clf.predict_set(query, 0.9)
    assert np.mean([t in s for t, s in zip(truth, sets, strict=True)]) > 0.8
    assert all(s[0] == label for s, label in zip(sets, clf.predict(query), strict=True) if s)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        clf.predict_set(query, 1.0)


def test_a_wrong_label_is_the_first_suspect():
    x, y = examples()
    y = y.copy()
    y[3] = "class 0004"
    clf = FewShotClassifier("array").fit(x, y)
    first = clf.suspects()[0]
    assert (first.row, first.label, first.suggestion) == (3, "class 0004", "class 0000")


def test_the_same_example_under_two_labels_is_a_conflict():
    x, y = examples()
    x[9] = x[0]
    (conflict,) = FewShotClassifier("array").fit(x, y).conflicts()
    assert conflict.rows == (0, 9)
    assert conflict.labels == ("class 0000", "class 0001")


def test_an_explanation_names_the_nearest_support(clf: FewShotClassifier):
    x, _ = examples()
    why = clf.explain(x[7:8], n=2)[0]
    assert why.supports[0].row == 7
    assert why.supports[0].distance < 1e-3
    assert why.label == "class 0001"
    assert why.margin > 0


def test_what_to_label_next_is_uncertain(clf: FewShotClassifier):
    sure, _ = examples(seed=8)
    between = (CENTRES[:1] + CENTRES[1:2]) / 2
    rows = clf.label_next(np.concatenate([sure, between]), 3)
    assert rows[0] == len(sure)
    assert len(rows) == len(set(rows)) <= 3


def test_a_thousand_classes():
    x, y = examples(1000, 5)
    clf = FewShotClassifier("array").fit(x, y)
    edit = clf.add_class("new", x[:5] + 30)
    assert edit.n_classes == 1001
    query, truth = examples(50, 2, seed=1)
    assert (clf.predict(query) == truth).mean() > 0.5


def test_a_saved_task_answers_the_same_in_a_new_process(clf: FewShotClassifier, tmp_path: Path):
    x, _ = examples(seed=4)
    clf.unknown = "?"
    clf.save(tmp_path / "a.task")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np; from quickstudy.estimators import FewShotClassifier\n"
        "clf = FewShotClassifier.load(sys.argv[1] + '/a.task')\n"
        "x = np.load(sys.argv[1] + '/x.npy')\n"
        "np.save(sys.argv[1] + '/p.npy', clf.predict_proba(x))\n"
        "print(','.join(map(str, clf.predict(x))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert np.allclose(np.load(tmp_path / "p.npy"), clf.predict_proba(x), atol=1e-6)
    assert done.stdout.strip() == ",".join(map(str, clf.predict(x)))


def test_a_loaded_table_can_still_be_edited(tmp_path: Path):
    x, y = examples()
    clf = FewShotClassifier("table").fit(x[:20], y[:20])
    clf.save(tmp_path / "t.task")
    again = FewShotClassifier.load(tmp_path / "t.task")
    for one in (clf, again):
        one.add_examples(x[20:] * 3, y[20:])
    assert np.allclose(clf.predict_proba(x), again.predict_proba(x), atol=1e-6)


def embed(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows)[:, :10]


def other(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows)[:, 10:]


def test_a_function_has_to_be_given_again(tmp_path: Path):
    x, y = examples()
    clf = FewShotClassifier(embed).fit(x, y)
    clf.save(tmp_path / "f.task")
    with pytest.raises(CheckpointError, match="embed"):
        FewShotClassifier.load(tmp_path / "f.task")
    with pytest.raises(CheckpointError, match="another encoder"):
        FewShotClassifier.load(tmp_path / "f.task", encoder=other)
    again = FewShotClassifier.load(tmp_path / "f.task", encoder=embed)
    assert np.allclose(again.predict_proba(x), clf.predict_proba(x), atol=1e-6)


def test_faults_are_errors_that_help(clf: FewShotClassifier):
    x, y = examples()
    with pytest.raises(NotFittedError):
        FewShotClassifier("array").predict(x)
    with pytest.raises(ConfigError, match=r"no class 'class 001'.*class 0001"):
        clf.remove_class("class 001")
    with pytest.raises(ConfigError, match="already"):
        clf.add_class("class 0001", x[:1])
    with pytest.raises(ConfigError, match="of that name already"):
        clf.rename_class("class 0001", "class 0002")
    with pytest.raises(ConfigError, match="0 to 24"):
        clf.relabel(25, "a")
    with pytest.raises(TaskError, match="3 inputs and 2 labels"):
        FewShotClassifier("array").fit(x[:3], y[:2])
    with pytest.raises(TaskError, match="row 1 has no label"):
        FewShotClassifier("array").fit(x[:2], np.array(["a", None], dtype=object))
    with pytest.raises(DataError):
        FewShotClassifier("array").fit(np.zeros((0, 4)), [])
    bad = x.copy()
    bad[2, 3] = np.nan
    with pytest.raises(DataError, match="row 2"):
        FewShotClassifier("array").fit(bad, y)
    with pytest.raises(ConfigError, match=r"no head 'ridg'.*ridge"):
        FewShotClassifier("array", head="ridg").fit(x, y)
    with pytest.raises(ConfigError, match="false_rejects"):
        FewShotClassifier("array", false_rejects=0).fit(x, y)
    with pytest.raises(ConfigError, match="no head None"):
        FewShotClassifier("array", head=None).fit(x, y)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        clf.label_next(x, n=0)
    for unnamed in (
        lambda: clf.add_class(None, x[:1]),
        lambda: clf.add_examples(x[:1], None),
        lambda: clf.rename_class("class 0001", None),
    ):
        with pytest.raises(TaskError, match="None is no label"):
            unnamed()
    with pytest.raises(TaskError, match="row 1 has no label"):
        FewShotClassifier("array").fit(x[:2], pd.Series(["a", pd.NA]))
    with pytest.raises(TaskError, match="<NA> is no label"):
        clf.add_class(pd.NA, x[:1])
    with pytest.raises(TaskError, match="one per example"):
        FewShotClassifier("array").fit(x[:2], [("a", 1), ("b",)])
    with pytest.raises(ConfigError, match=r"Give \[0\]"):
        clf.remove_examples(0)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="name of a file"):
        clf.save("")
    one = FewShotClassifier("array").fit(x[:2], y[:2])
    with pytest.raises(TaskError, match="without classes"):
        one.remove_class(y[0])


def test_a_failed_edit_changes_nothing(clf: FewShotClassifier):
    x, y = examples()
    before = clf.predict_proba(x)
    with pytest.raises(DataError):
        clf.add_examples(np.full((1, 20), np.nan), "class 0000")
    with pytest.raises(TaskError):
        clf.add_examples(x[:2], y[:1])
    assert np.array_equal(clf.predict_proba(x), before)


def test_copies_of_an_example_are_one_witness():
    x, y = examples(5, 1)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=x.shape)
    copied = FewShotClassifier("table").fit(np.repeat(noise, 5, 0), np.repeat(y, 5))
    single = FewShotClassifier("table").fit(noise, y)
    # nothing can be held out of either, so neither promises anything
    of_copies, of_one = copied.estimate_accuracy(), single.estimate_accuracy()
    assert of_copies.low <= 0.05
    assert replace(of_copies, method="") == replace(of_one, method="")
    assert "held out" in of_copies.method
    assert "one example each" in of_one.method
    assert not copied.suspects(all=True)


def test_a_suspect_given_twice_is_still_one():
    x, y = examples(3, 5)
    y = y.copy()
    y[0] = y[-1]
    twice = FewShotClassifier("table").fit(np.r_[x[:1], x], np.r_[y[:1], y])
    assert {s.row for s in twice.suspects()[:2]} == {0, 1}


def test_scoring_with_strangers_among_numbers():
    x, y = examples(5, 5)
    _, codes = np.unique(y, return_inverse=True)
    clf = FewShotClassifier("table", unknown="stranger").fit(x, codes)
    far = np.full((2, x.shape[1]), 1e3)
    assert clf.predict(far).tolist() == ["stranger"] * 2
    assert clf.score(far, ["stranger", "stranger"]) == 1
    first = int(codes[0])
    assert clf.score(np.r_[far, x[:1], x[:1]], ["stranger", 1, first, first]) == 0.75
    answer = clf.answer(far)[0]
    assert (answer.label, answer.known) == ("stranger", False)
    assert answer.nearest in range(5)

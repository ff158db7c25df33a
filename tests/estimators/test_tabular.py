"""The in-context classifier as a user meets it: tables of every kind, limits, words of errors."""

import datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from quickstudy.core import CheckpointError, ConfigError, DataError, TaskError
from quickstudy.estimators import TabularInContextClassifier


def clouds(
    classes: int, each: int, columns: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    centres = np.random.default_rng(7).normal(size=(classes, columns)) * 3
    return centres[y] + rng.normal(size=(len(y), columns)), y


def quick(**settings: object) -> TabularInContextClassifier:
    return TabularInContextClassifier(members=1, **settings)  # type: ignore[arg-type]


@parametrize_with_checks([TabularInContextClassifier(members=1)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "weight": [1.0, 1.2, np.nan, 5.0, 5.5, 4.9],
            "colour": ["red", "red", "blue", "green", None, "green"],
            "day": [datetime.date(2024, 1, d) for d in (1, 2, 3, 20, 21, 22)],
            "same": [3] * 6,
            "nothing": [np.nan] * 6,
        }
    )


LABELS = ["a", "a", "a", "b", "b", "b"]


def test_a_frame_with_gaps_categories_dates_and_columns_that_say_nothing():
    clf = TabularInContextClassifier().fit(frame(), LABELS)
    asked = frame().iloc[[0, 4]]
    assert clf.predict(asked).tolist() == ["a", "b"]
    assert clf.classes_.tolist() == ["a", "b"]
    # another order of columns, one more, and a category never seen
    other = asked[["same", "nothing", "day", "colour", "weight"]].assign(note="x")
    assert np.array_equal(clf.predict_proba(other), clf.predict_proba(asked))
    unseen = clf.predict_proba(asked.assign(colour=["violet", "violet"]))
    missing = clf.predict_proba(asked.assign(colour=[None, None]))
    assert np.array_equal(unseen, missing)
    assert np.isfinite(unseen).all()
    with pytest.raises(DataError, match=r"lacks the column\(s\) 'weight'"):
        clf.predict(asked.drop(columns="weight"))


def test_names_and_order_of_rows_do_not_matter():
    x, y = clouds(3, 6, 5)
    asked, _ = clouds(3, 4, 5, seed=1)
    plain = quick().fit(x, y).predict_proba(asked)
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = quick().fit(x[order], y[order]).predict_proba(asked)
    np.testing.assert_allclose(shuffled, plain, atol=1e-4)
    named = quick().fit(x, np.array(["z", "m", "a"])[y])
    np.testing.assert_allclose(named.predict_proba(asked)[:, ::-1], plain, atol=1e-4)
    assert (plain.argmax(1) == np.repeat(np.arange(3), 4)).mean() > 0.8


def test_what_is_too_large_is_refused_or_done_by_name():
    many, y = clouds(13, 4, 6)
    with pytest.raises(ConfigError, match="at most 10 classes; got 13"):
        quick().fit(many, y)
    p = quick(many_classes="hierarchy").fit(many, y).predict_proba(many)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p.argmax(1) == y).mean() > 0.6
    wide, y = clouds(2, 5, 101)
    with pytest.raises(ConfigError, match="at most 100 columns; got 101"):
        quick().fit(wide, y)
    assert quick(many_columns="sample").fit(wide, y).score(wide, y) == 1
    long, y = clouds(2, 501, 3)
    with pytest.raises(ConfigError, match="at most 1,000 rows; got 1,002"):
        quick().fit(long, y)
    for option in ("sample", "chunks"):
        clf = quick(many_rows=option).fit(long, y)
        assert clf.score(long[::50], y[::50]) > 0.8


def test_one_class_and_one_row_of_a_class():
    x, y = clouds(1, 3, 2)
    assert quick().fit(x, y).predict_proba(x).tolist() == [[1.0]] * 3
    x, y = clouds(2, 1, 2)
    assert quick().fit(x, y).predict(x).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"members": 0}, "members"),
        ({"many_rows": "cut"}, "many_rows must be one of"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(ConfigError, match=words):
        TabularInContextClassifier(**settings).fit(*clouds(2, 3, 2))


def test_faults_of_the_table_are_told_by_row_and_column(tmp_path):
    x, y = clouds(2, 3, 2)
    clf = quick().fit(x, y)
    x[1, 1] = np.inf
    with pytest.raises(DataError, match="row 1, column 'x1': the value is infinite"):
        clf.predict(x)
    twice = pd.DataFrame(np.ones((4, 2)), columns=["a", "a"])
    with pytest.raises(DataError, match="two columns are called 'a'"):
        quick().fit(twice, [0, 0, 1, 1])
    with pytest.raises(DataError, match="inconsistent numbers"):
        quick().fit(np.ones((3, 2)), [0, 1])
    with pytest.raises(TaskError):
        quick().fit(np.ones((2, 2)), [0, None])
    with pytest.raises(CheckpointError, match="does not exist"):
        quick(weights=tmp_path / "none.safetensors").fit(np.eye(2), [0, 1])
    with pytest.raises(NotFittedError):
        quick().predict(np.ones((1, 2)))


@pytest.mark.parametrize("offset", [1e4, 1e8, 1e12])
def test_what_all_rows_share_does_not_round_away_their_differences(offset):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = np.c_[y, -y] + 0.1 * rng.normal(size=(40, 2))
    here = TabularInContextClassifier(members=1).fit(x[:20], y[:20])
    there = TabularInContextClassifier(members=1).fit(x[:20] + offset, y[:20])
    assert (there.predict(x[20:] + offset) == here.predict(x[20:])).all()
    seconds = pd.to_datetime("2024-01-01") + pd.to_timedelta(60 * y + np.arange(40) % 7, unit="s")
    frame = pd.DataFrame({"when": seconds})
    dated = TabularInContextClassifier(members=1).fit(frame[:20], y[:20])
    assert (dated.predict(frame[20:]) == y[20:]).mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"members": 10**9}, "members"), ({"random_state": "x"}, "random_state")],
)
def test_settings_without_sense_are_refused_at_once(settings, word):
    with pytest.raises(ConfigError, match=word):
        TabularInContextClassifier(**settings).fit([[1.0], [2.0]], ["a", "b"])


def test_labels_in_two_spellings_are_refused():
    with pytest.raises(TaskError, match="one value in two types"):
        TabularInContextClassifier().fit([[1.0], [2.0], [3.0]], [1, "1", 2])

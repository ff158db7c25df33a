"""Labels: what is missing or cannot be one is refused at once, everywhere; spellings are told."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.core import ConfigError, QuickstudyError, TaskError
from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.labels import as_labels, class_of, match_labels, named

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
NEW = X[:2] + 5


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


MISSING = [None, float("nan"), np.nan, pd.NA, pd.NaT, "", "  ", float("inf"), np.float32("nan")]
NO_LABELS = [
    b"a",
    np.bytes_(b"a"),
    (1, 2),
    ["a"],
    Colour.RED,
    Level.LOW,
    decimal.Decimal(1),
    datetime.date(2024, 1, 1),
    datetime.datetime(2024, 1, 1),
    np.datetime64("2024-01-01"),
    pd.Timestamp("2024-01-01"),
    1j,
    0.5,
    np.float32(0.5),
]
EDITS: dict[str, Callable[[FewShotClassifier, Any], Any]] = {
    "add_examples": lambda clf, label: clf.add_examples(NEW, ["c", label]),
    "add one label": lambda clf, label: clf.add_examples(NEW, label),
    "add_class": lambda clf, label: clf.add_class(label, NEW),
    "relabel": lambda clf, label: clf.relabel(0, label),
    "rename_class": lambda clf, label: clf.rename_class("a", label),
    "unknown": lambda clf, label: clf.set_params(unknown=label).predict(NEW),
    "version": lambda clf, label: clf.version_.relabel(0, label),
}


def fitted(y: Any = ("a", "a", "a", "b", "b", "b"), **params: Any) -> FewShotClassifier:
    return FewShotClassifier("array", head="prototype", **params).fit(X, list(y))


@pytest.mark.parametrize("label", [*MISSING, *NO_LABELS], ids=repr)
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_no_edit_takes_what_is_no_label(edit: Callable[..., Any], label: Any):
    clf = fitted()
    if edit is EDITS["unknown"] and label is None:
        return  # no word for strangers
    if edit is EDITS["add one label"] and isinstance(label, (list, tuple)):
        return  # labels of the examples, one by one
    before = clf.version_
    with pytest.raises(QuickstudyError):
        edit(clf, label)
    assert clf.version_ is before


FORMS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "generator": lambda y: (label for label in y),
    "array": lambda y: _objects(y),
    "column": lambda y: _objects(y)[:, None],
    "series": lambda y: pd.Series(y, dtype=object),
    "index": lambda y: pd.Index(_objects(y)),
    "frame": lambda y: pd.DataFrame({"label": pd.Series(y, dtype=object)}),
    "map": lambda y: map(copy.copy, y),
}


def _objects(y: list[Any]) -> np.ndarray:
    array = np.empty(len(y), dtype=object)
    array[:] = y
    return array


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("label", MISSING, ids=repr)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_missing_label_is_refused_with_its_row_in_every_form(
    form: Callable[..., Any], label: Any
):
    given = form(["a", "b", "a", label, "b", "b"])
    with pytest.raises(TaskError, match=r"row 3|infinity"):
        FewShotClassifier("array").fit(X, given)
    clf = fitted()
    with pytest.raises(TaskError, match=r"row 1|infinity"):
        clf.add_examples(NEW, form(["c", label]))


@pytest.mark.parametrize(
    "given",
    [
        np.array(["a", None, "b"], dtype=object),
        pd.Series(["a", None, "b"], dtype="string"),
        pd.Series(["a", None, "b"], dtype="category"),
        pd.Series([1, None, 2], dtype="Int64"),
        pd.Series([True, None, False], dtype="boolean"),
        pd.array(["a", None, "b"], dtype="string"),
        pa.array(["a", None, "b"]),
        pa.chunked_array([["a", None, "b"]]),
        np.array([1.0, np.nan, 2.0]),
        torch.tensor([1.0, float("nan"), 2.0]),
        np.ma.array([1, 2, 3], mask=[False, True, False]),
        pd.Series(pd.to_datetime(["2024-01-01", None, "2024-01-02"])),
    ],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'dtype', '')}",
)
def test_gaps_in_typed_columns_are_refused(given: Any):
    with pytest.raises(TaskError, match=r"row 1 has no label|row 0: .*cannot be a label"):
        as_labels(given)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ([1, "a"], [1, "a"]),
        ([True, "a"], [True, "a"]),
        ([True, 2], [True, 2]),
        ([1, 2.0], [1, 2]),
        ([np.str_("a"), np.int64(3)], ["a", 3]),
        (np.array([True, False]), [True, False]),
        (torch.tensor([1, 2]), [1, 2]),
        (pa.array(["a", "b"]), ["a", "b"]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (["nan", "None"], ["nan", "None"]),
        ([2**70, -1], [2**70, -1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_types_are_kept(given: Any, plain: list[Any], tmp_path: Any):
    labels = as_labels(given)
    assert labels == plain
    assert [type(label) for label in labels] == [type(label) for label in plain]
    clf = FewShotClassifier("array", head="prototype").fit(
        X, (given if len(plain) == 6 else plain * 3)
    )
    assert set(map(type, clf.classes_.tolist())) == set(map(type, plain))
    clf.save(tmp_path / "a.task")  # what enters can be saved
    assert FewShotClassifier.load(tmp_path / "a.task").classes_.tolist() == clf.classes_.tolist()


@pytest.mark.parametrize("pair", [(1, "1"), (1, True), (1.0, "1"), (True, "true"), (0, "0.0")])
def test_one_value_in_two_types_is_not_two_classes(pair: tuple[Any, Any]):
    with pytest.raises(TaskError, match="one value in two types"):
        fitted(pair * 3)


@pytest.mark.parametrize("given", ["abc", 5, {"a": 1}, {1, 2}, np.zeros((6, 2)), object(), None])
def test_what_is_no_list_of_labels_is_refused(given: Any):
    with pytest.raises(TaskError):
        FewShotClassifier("array").fit(X, given)


def test_unknown_is_no_class_at_any_time():
    y = ("a", "a", "a", "b", "b", "b")
    with pytest.raises(ConfigError, match="there is a class 'b'"):
        fitted(y, unknown="b")
    with pytest.raises(ConfigError, match="there is a class 1"):
        fitted([1, 1, 1, 2, 2, 2], unknown="1")
    clf = fitted(y, unknown="?")
    before = clf.version_
    for edit in (
        lambda: clf.add_class("?", NEW),
        lambda: clf.add_examples(NEW, ["c", "?"]),
        lambda: clf.rename_class("a", "?"),
        lambda: clf.relabel(0, "?"),
        lambda: clf.set_params(unknown="a"),
    ):
        with pytest.raises(ConfigError, match="unknown="):
            edit()
        assert clf.version_ is before
        assert clf.unknown == "?"
    clf.unknown = "b"  # past set_params
    for ask in (clf.predict, clf.answer, lambda x: clf.save("never.task")):
        with pytest.raises(ConfigError, match="there is a class 'b'"):
            ask(NEW)


@pytest.mark.parametrize(
    ("given", "classes", "columns"),
    [
        (["1.0", 1.0, "1", " 1 ", 1, "1e0", np.int64(1), "01"], [0, 1], [1] * 8),
        (["true", "TRUE", True, np.True_], [False, True], [1] * 4),
        (
            ["2024-01-01", "2024-01-01T00:00", datetime.date(2024, 1, 1)],
            ["x", "2024-01-01"],
            [1] * 3,
        ),
        ([pd.Timestamp("2024-01-01"), np.datetime64("2024-01-01")], ["2024-01-01"], [0, 0]),
        (["a ", "\ta"], ["a"], [0, 0]),
        (["A", "b"], ["a", "b"], [-1, 1]),
        (["cafe\u0301"], ["caf\u00e9"], [0]),
        (["7"], ["007", "7"], [1]),
        (["07"], ["007", "7"], [-1]),
        ([None, np.nan, "", pd.NA], ["a"], [-1] * 4),
        (["12345678901234567891"], [12345678901234567890], [-1]),
        ([1], [True, False], [-1]),
        (["1_000", "1,000", "nan", "inf"], [1000], [-1] * 4),
    ],
)
def test_the_same_value_in_another_spelling_is_the_same_label(
    given: list[Any], classes: list[Any], columns: list[int]
):
    assert match_labels(given, classes).columns.tolist() == columns


def test_what_was_taken_for_what_is_told():
    matched = match_labels(["1.0", 1, "3", None, "07"], [1, 2, "7", "007"])
    assert matched.respelled == {"1.0": 1}
    assert (matched.other, matched.ambiguous, matched.missing) == (("3",), ("07",), (3,))
    assert "'1.0' as 1" in matched.text()
    assert match_labels(["a"], ["a"]).text() == ""


@given(st.lists(st.one_of(st.text(min_size=1), st.integers(), st.booleans()), unique_by=repr))
def test_a_class_is_always_itself(classes: list[Any]):
    classes = [label for label in classes if str(label).strip()]
    found = match_labels(classes, classes).columns.tolist()
    assert found == list(range(len(classes)))


def test_edits_know_classes_in_another_spelling():
    clf = fitted([1, 1, 1, 2, 2, 2])
    clf.add_examples(NEW, ["1.0", "2"])
    assert clf.classes_.tolist() == [1, 2]
    clf.relabel(0, "2")
    assert clf.support_.label(0) == 2
    clf.add_examples(NEW, 3.0)
    assert (clf.classes_.tolist(), clf.classes_.dtype.kind) == ([1, 2, 3], "i")
    clf.rename_class("3", "three")
    clf.rename_class(2, "2")  # the old name does not stand against the new one
    assert clf.classes_.tolist() == [1, "2", "three"]
    clf.remove_class("1")
    with pytest.raises(TaskError, match="one value in two types"):
        clf.add_examples(NEW, [5, "5"])
    assert class_of("1.10", ["1.1"]) == "1.10"  # versions are names
    with pytest.raises(TaskError, match="may be any of"):
        class_of(7.0, ["7", "07", "7.00"][1:])


def test_score_takes_labels_in_another_spelling():
    clf = fitted([1, 1, 1, 2, 2, 2])
    right = clf.predict(X)
    assert clf.score(X, [f"{label}.0" for label in right]) == 1
    assert clf.score(X, [str(3 - label) for label in right]) == 0


def test_names_are_shown_with_how_many_more():
    assert named(iter(["a", "b", "c", "d", "e"])) == "'a', 'b', 'c' and 2 more"


def numbers() -> Iterator[int]:
    yield from (1, 2)


def test_an_iterator_of_labels_is_read_once():
    assert as_labels(numbers()) == [1, 2]

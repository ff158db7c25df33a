"""Versions never change, edits make others, and threads see whole ones."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from quickstudy.core import DataError, QuickstudyError, TaskError
from quickstudy.estimators import FewShotClassifier, TaskPrior, TaskVersion, get_embedder
from quickstudy.estimators.saving import load_task, save_task

CENTRES = np.random.default_rng(0).normal(size=(40, 6)) * 3


def examples(classes: range = range(4), each: int = 4, *, seed: int = 0) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    y = np.repeat(np.array(classes), each)
    return CENTRES[y] + draw.normal(size=(len(y), 6)), np.array([f"c{c:02d}" for c in y])


QUERY, _ = examples(range(8), 3, seed=1)
NEW, _ = examples(range(5, 6), 3, seed=2)


def squared(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows, dtype=np.float32) ** 2


ENCODERS = ["array", "table", squared]
EDITS: dict[str, Callable[[TaskVersion], TaskVersion]] = {
    "add examples": lambda v: v.add_examples(NEW, ["c01", "new", "c01"]),
    "add class": lambda v: v.add_class("new", NEW),
    "remove class": lambda v: v.remove_class("c01"),
    "rename class": lambda v: v.rename_class("c01", "other"),
    "remove examples": lambda v: v.remove_examples([0, 5, 5]),
    "relabel": lambda v: v.relabel(2, "c03"),
    "another head": lambda v: v.with_head("ridge"),
}


def fitted(encoder: Any = "array", head: str = "prototype") -> TaskVersion:
    x, y = examples()
    return TaskVersion.fit(x, y, embedder=get_embedder(encoder), head=head)


def all_answers(version: TaskVersion, query: Any = QUERY) -> dict[str, Any]:
    """Return all that a version answers, as plain values that ``==`` compares."""
    z = version.embed(query)
    scores = version.scores(z)
    return {
        "classes": version.classes,
        "scores": scores.tolist(),
        "raw scores": version.scores(z, calibrated=False).tolist(),
        "probabilities": version.probabilities(scores).tolist(),
        "labels": version.labels(scores, version.known(z, 0.3), unknown="?").tolist(),
        "sets": version.label_sets(scores, 0.8),
        "known": version.known_score(z).tolist(),
        "answers": [asdict(a) for a in version.answers(z, coverage=0.8)],
        "explained": [asdict(e) for e in version.explain(z, n=2)],
        "to label": version.label_next(z, 4).tolist(),
        "estimate": version.estimate_accuracy(),
        "suspects": version.suspects(all=True),
        "features": version.features(np.arange(3)).tolist(),
        "support": version.support.z.tolist(),
    }


# ---------------------------------------------------------------- a value


def test_nothing_of_a_version_can_be_set_or_written():
    version = fitted()
    for name in ("support", "embedder", "prior", "head", "task", "n_features", "edit", "other"):
        with pytest.raises(FrozenInstanceError):
            setattr(version, name, None)
    with pytest.raises(FrozenInstanceError):
        version.support.classes = ()  # type: ignore[misc]
    for array in (version.support.z, version.support.y):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    again = pickle.loads(pickle.dumps(version))  # noqa: S301
    assert all_answers(again) == all_answers(version)
    assert not again.support.z.flags.writeable
    assert copy.deepcopy(version) is version
    assert repr(version) == (
        "TaskVersion(4 classes, 16 examples, encoder 'array', head 'prototype')"
    )


def test_what_the_user_does_to_his_arrays_later_changes_nothing():
    x, y = examples()
    version = TaskVersion.fit(x, y, embedder=get_embedder("array"))
    before = all_answers(version)
    x[:], y[:] = 0, "gone"
    assert all_answers(version) == before


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_leaves_the_version_before_it_bit_for_bit(
    encoder: Any, edit: Callable[[TaskVersion], TaskVersion]
):
    version = fitted(encoder)
    before = all_answers(version)
    after = edit(version)
    assert after is not version
    assert all_answers(after) != before
    assert all_answers(version) == before


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("head", ["auto", "ridge", "class-mean"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_equals_a_refit(
    encoder: Any, head: str, edit: Callable[[TaskVersion], TaskVersion]
):
    after = edit(fitted(encoder, head))
    s = after.support
    relearned = TaskVersion.learn(s, after.embedder, after.prior, head=after.head)
    assert all_answers(relearned) == all_answers(after)


def test_edits_equal_a_fit_of_the_same_inputs():
    x, y = examples(range(6), 3, seed=5)
    for encoder in ENCODERS:
        version = fitted(encoder)
        for label in ("c04", "c05"):
            version = version.add_class(label, x[y == label])
        version = version.remove_class("c01").remove_examples([1]).relabel(0, "c05")
        old, names = examples()
        kept = np.flatnonzero(names != "c01")
        kept = kept[kept != kept[1]]
        names[kept[0]] = "c05"
        refit = TaskVersion.fit(
            np.concatenate([old[kept], x[y == "c04"], x[y == "c05"]]),
            np.concatenate([names[kept], y[y == "c04"], y[y == "c05"]]),
            embedder=get_embedder(encoder),
            head="prototype",
        )
        assert refit.classes == version.classes
        p, q = (v.probabilities(v.scores(v.embed(QUERY))) for v in (refit, version))
        assert np.allclose(p, q, atol=1e-5)


def test_an_edit_is_recorded_in_the_version_that_it_makes():
    version = fitted(head="class-mean")
    assert version.edit is None
    after = version.add_class("new", NEW)
    assert after.edit is not None
    assert (after.edit.what, after.edit.n_classes, after.edit.n_examples) == (
        "added class 'new': 3 examples of 'new'",
        5,
        19,
    )
    assert after.edit.others_unchanged
    named = fitted().rename_class("c01", "other").edit
    assert named is not None
    assert named.others_unchanged
    removed = fitted().remove_class("c01").edit
    assert removed is not None
    assert not removed.others_unchanged


def test_versions_share_what_an_edit_does_not_touch():
    version = fitted(squared)
    named = version.rename_class("c01", "other")
    assert named.task is version.task
    assert np.shares_memory(named.support.z, version.support.z)
    assert np.shares_memory(version.relabel(0, "c03").support.z, version.support.z)
    for edit in EDITS.values():
        after = edit(version)
        known = {id(item) for item in version.support.items}
        assert sum(id(item) in known for item in after.support.items) >= 12
        assert after.embedder is version.embedder


def test_a_table_gets_a_category_more_and_one_less():
    table = pd.DataFrame({"size": [1.0, 2.0, 8.0, 9.0], "colour": ["red", "red", "blue", "blue"]})
    more = pd.DataFrame({"size": [4.0, 5.0], "colour": ["green", "green"]})
    version = TaskVersion.fit(table, list("aabb"), embedder=get_embedder("table"))
    wider = version.add_class("c", more)
    refit = TaskVersion.fit(
        pd.concat([table, more], ignore_index=True), list("aabbcc"), embedder=get_embedder("table")
    )
    assert all_answers(wider, table) == all_answers(refit, table)
    assert all_answers(wider.remove_class("c"), table) == all_answers(version, table)


def test_a_prior_can_be_given():
    x, y = examples()
    prior = TaskPrior.plain(6)
    version = TaskVersion.fit(x, y, embedder=get_embedder("array"), prior=prior)
    assert version.prior is prior
    assert version.remove_class("c01").prior is prior


def test_queries_are_checked_and_not_written_to():
    version = fitted(squared)
    with pytest.raises(DataError, match="X has 5 features, but FewShotClassifier is expecting 6"):
        version.embed(QUERY[:, :5])
    z = version.embed(QUERY)
    z.flags.writeable = False  # torch would warn, and a warning is an error in tests
    assert version.scores(z).shape == (24, 4)
    assert len(version.explain(z)) == len(version.answers(z)) == 24
    with pytest.raises(TaskError, match="nan is no label"):
        version.relabel(0, float("nan"))


def test_a_file_holds_one_version(tmp_path: Any):
    version = fitted("table").add_class("new", NEW)
    save_task(version, tmp_path / "a.task", unknown="?", false_rejects=0.2)
    saved = load_task(tmp_path / "a.task")
    assert all_answers(saved.version) == all_answers(version)
    assert (saved.encoder, saved.unknown, saved.false_rejects) == ("table", "?", 0.2)
    assert saved.version.edit is None


# ---------------------------------------------------------------- the classifier around it


@pytest.mark.parametrize("encoder", ENCODERS)
def test_undo_gives_back_the_versions_bit_for_bit(encoder: Any):
    clf = FewShotClassifier(encoder).fit(*examples())
    versions = [clf.version_]
    clf.add_class("new", NEW)
    versions.append(clf.version_)
    clf.rename_class("new", "newer")
    versions.append(clf.version_)
    clf.relabel(0, "c02")
    for version in reversed(versions):
        clf.undo()
        assert all_answers(clf.version_) == all_answers(version)
        assert clf.version_.edit == version.edit
    with pytest.raises(TaskError, match="nothing to undo"):
        clf.undo()
    clf.fit(*examples(range(2)))
    with pytest.raises(TaskError, match="nothing to undo"):
        clf.undo()


def test_a_classifier_answers_as_its_version_does():
    clf = FewShotClassifier("table", unknown="?", false_rejects=0.3).fit(*examples())
    version, expected = clf.version_, all_answers(clf.version_)
    assert clf.predict(QUERY).tolist() == expected["labels"]
    assert clf.predict_proba(QUERY).tolist() == expected["probabilities"]
    assert clf.decision_function(QUERY).tolist() == expected["raw scores"]
    assert clf.predict_set(QUERY, 0.8) == expected["sets"]
    assert clf.known_score(QUERY).tolist() == expected["known"]
    assert clf.label_next(QUERY, 4).tolist() == expected["to label"]
    assert clf.classes_.tolist() == list(version.classes)
    assert clf.n_features_in_ == 6
    parts = (clf.support_, clf.embedder_, clf.prior_, clf.fitted_task)
    assert parts == (version.support, version.embedder, version.prior, version.task)


def test_a_classifier_without_a_task_says_so():
    clf = FewShotClassifier("array")
    for name in ("version_", "classes_", "support_", "head_", "embedder_", "n_features_in_"):
        assert not hasattr(clf, name)
    check_is_fitted(clf.fit(*examples()))
    assert not hasattr(clone(clf), "classes_")


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))],  # noqa: S301
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_go_their_own_way(copied: Callable[[FewShotClassifier], FewShotClassifier]):
    clf = FewShotClassifier("table").fit(*examples())
    clf.add_class("new", NEW)
    other = copied(clf)
    before = all_answers(clf.version_)
    assert all_answers(other.version_) == before
    other.remove_class("c01")
    assert all_answers(clf.version_) == before
    clf.undo()
    assert len(other.classes_) == 4
    other.undo()
    assert all_answers(other.version_) == before
    with pytest.raises(TaskError, match="nothing to undo"):  # what a copy was before is not copied
        other.undo()


def test_a_head_that_is_set_later_is_used_from_the_next_edit_on():
    clf = FewShotClassifier("array", head="prototype").fit(*examples())
    clf.set_params(head="ridge")
    assert clf.head_ == "prototype"
    clf.rename_class("c01", "other")
    assert clf.head_ == "ridge"
    assert not clf.undo().others_unchanged
    assert clf.head_ == "prototype"


# ---------------------------------------------------------------- threads


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns 500 times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def in_threads(*jobs: Callable[[], None]) -> None:
    """Run jobs at once, and raise the first of their errors."""
    errors: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


QUESTIONS: dict[str, Callable[[FewShotClassifier], Any]] = {
    "predict": lambda clf: clf.predict(QUERY).tolist(),
    "predict_proba": lambda clf: clf.predict_proba(QUERY),
    "decision_function": lambda clf: clf.decision_function(QUERY),
    "predict_set": lambda clf: clf.predict_set(QUERY, 0.8),
    "answer": lambda clf: [(a.label, a.nearest, a.known) for a in clf.answer(QUERY, coverage=0.8)],
    "explain": lambda clf: [
        (e.label, e.runner_up, tuple((s.row, s.label) for s in e.supports))
        for e in clf.explain(QUERY, n=2)
    ],
    "known_score": lambda clf: clf.known_score(QUERY),
    "suspects": lambda clf: [(s.row, s.label, s.suggestion) for s in clf.suspects(all=True)],
}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and np.allclose(a, b, atol=1e-4)
    return bool(a == b)


def one_round(clf: FewShotClassifier) -> Iterator[None]:
    """Edit a classifier, and stop after each edit; at the end it is what it was."""
    clf.add_class("new", 20 * NEW)  # a table's scales change much with it
    yield
    clf.rename_class("c00", "other")
    yield
    clf.remove_class("c01")
    yield
    clf.add_examples(NEW + 5, "c02")
    yield
    for _ in range(4):
        clf.undo()
        yield


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_answer_is_that_of_one_whole_version(encoder: Any):
    clf = FewShotClassifier(encoder, head="prototype", unknown="?", false_rejects=0.3)
    clf.fit(*examples())
    expected = {name: [ask(clf)] for name, ask in QUESTIONS.items()}
    for _ in one_round(clf):
        for name, ask in QUESTIONS.items():
            expected[name].append(ask(clf))
    done, seen = threading.Event(), {name: set[int]() for name in QUESTIONS}

    def edit() -> None:
        try:
            for _ in range(12):
                for _ in one_round(clf):
                    pass
        finally:
            done.set()

    def asking(name: str) -> Callable[[], None]:
        def ask() -> None:
            while not done.is_set():
                answer = QUESTIONS[name](clf)
                found = [i for i, one in enumerate(expected[name]) if equal(answer, one)]
                assert found, f"{name} gave an answer of no version: {answer}"
                seen[name].add(found[0])

        return ask

    in_threads(edit, *(asking(name) for name in QUESTIONS))
    # some asked before an edit and after it
    assert sum(len(versions) for versions in seen.values()) > len(QUESTIONS)


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_edit_of_several_threads_is_lost(encoder: Any):
    clf = FewShotClassifier(encoder, head="prototype").fit(*examples())
    first = clf.version_

    def adding(start: int) -> Callable[[], None]:
        def add() -> None:
            for c in range(start, start + 5):
                x, y = examples(range(c, c + 1), 3, seed=c)
                edit = clf.add_class(str(y[0]), x)
                assert edit.n_examples == 16 + 3 * (edit.n_classes - 4)

        return add

    in_threads(*(adding(start) for start in range(10, 30, 5)))
    assert set(clf.classes_) == {f"c{c:02d}" for c in (*range(4), *range(10, 30))}
    assert len(clf.support_.items) == 16 + 20 * 3
    in_threads(*[lambda: [clf.undo() for _ in range(5)] and None] * 4)
    assert all_answers(clf.version_) == all_answers(first)


@pytest.mark.usefixtures("eager_threads")
def test_a_fit_among_edits_forgets_all_of_them_or_none():
    """An edit is done before the fit, or on what it made; never on a mixture."""
    clf = FewShotClassifier("table", head="prototype").fit(*examples())
    other = examples(range(20, 22), 2, seed=3)

    def fit() -> None:
        for _ in range(20):
            clf.fit(*other)

    def add() -> None:
        for _ in range(20):
            clf.add_examples(NEW[:1], "more")

    in_threads(fit, add, add)
    new = clf.support_.counts[clf.version_.classes.index("more")] if len(clf.classes_) > 2 else 0
    assert len(clf.support_.items) == 4 + new
    assert clf.classes_.tolist()[:2] == ["c20", "c21"]


# ---------------------------------------------------------------- imports and examples


def test_estimators_are_imported_without_what_trains():
    """They are imported wherever a task is asked, where nothing is ever trained."""
    code = (
        "import sys, quickstudy.estimators\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('quickstudy.')}\n"
        "print(rooms & {'training', 'runs', 'recipes', 'evaluation', 'checks', 'cli'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", [FewShotClassifier, TaskVersion])
def test_the_example_of_a_class_runs(kind: type, capsys: pytest.CaptureFixture[str]):
    _, _, text = str(kind.__doc__).partition("Example::")
    exec(textwrap.dedent(text.strip("\n")))
    assert capsys.readouterr().out


@pytest.mark.usefixtures("eager_threads")
def test_readers_savers_and_settings_meet_whole_versions_while_others_edit(tmp_path: Any):
    clf = FewShotClassifier("array", head="prototype", unknown="?").fit(*examples())
    done = threading.Event()

    def adding(start: int) -> Callable[[], None]:
        def add() -> None:
            for c in range(start, start + 6):
                clf.add_class(f"c{c:02d}", CENTRES[c] + np.zeros((2, 6)))

        return add

    def edit() -> None:
        try:
            in_threads(*(adding(start) for start in (10, 16, 22, 28)))
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            version = clf.version_
            support = version.support
            assert support.counts.min() >= 2
            assert len(support.y) == len(support.items) == len(support.z)
            assert set(clf.predict(QUERY)) <= {*clf.classes_, "?"}
            assert len(clf.class_estimates()) >= 4

    def save() -> None:
        turn = 0
        while not done.is_set():
            clf.save(tmp_path / "a.task")
            assert set(version_classes(tmp_path / "a.task")) <= set(clf.classes_)
            clf.set_params(head=("prototype", "ridge")[turn % 2])
            turn += 1

    in_threads(edit, read, read, save)
    assert set(clf.classes_) == {f"c{c:02d}" for c in (*range(4), *range(10, 34))}
    clf.save(tmp_path / "a.task")
    assert version_classes(tmp_path / "a.task") == clf.classes_.tolist()


def version_classes(path: Any) -> list[Any]:
    return list(load_task(path).version.classes)


WRONG: dict[str, Callable[[FewShotClassifier], Any]] = {
    "embedder": lambda clf: TaskVersion.fit(*examples(), embedder="array"),  # type: ignore[arg-type]
    "head": lambda clf: TaskVersion.fit(*examples(), embedder=get_embedder("array"), head=5),  # type: ignore[arg-type]
    "head of a classifier": lambda clf: FewShotClassifier("array", head=5).fit(*examples()),  # type: ignore[arg-type]
    "share": lambda clf: FewShotClassifier("array", false_rejects="x").fit(*examples()),  # type: ignore[arg-type]
    "share later": lambda clf: clf.set_params(unknown="?", false_rejects=2).predict(QUERY),
    "encoder": lambda clf: FewShotClassifier(5).fit(*examples()),
    "device": lambda clf: FewShotClassifier("image", device=5).fit(*examples()),  # type: ignore[arg-type]
    "n": lambda clf: clf.explain(QUERY, n=1.5),  # type: ignore[arg-type]
    "n of 0": lambda clf: clf.explain(QUERY, n=0),
    "n is true": lambda clf: clf.label_next(QUERY, n=True),
    "coverage": lambda clf: clf.predict_set(QUERY, "x"),  # type: ignore[arg-type]
    "coverage of answers": lambda clf: clf.answer(QUERY, coverage=2),
    "no path": lambda clf: FewShotClassifier.load(None),  # type: ignore[arg-type]
    "a path that is a number": lambda clf: clf.save(5),  # type: ignore[arg-type]
    "rows": lambda clf: clf.remove_examples([]),
    "rows that are words": lambda clf: clf.remove_examples("01"),  # type: ignore[arg-type]
    "rows that are truth values": lambda clf: clf.remove_examples([True, False]),
    "half a row": lambda clf: clf.remove_examples([0.5]),  # type: ignore[list-item]
    "a list for a label": lambda clf: clf.add_class(["new"], NEW),  # type: ignore[arg-type]
    "names": lambda clf: clf.name_examples("abc"),
    "scores": lambda clf: clf.version_.probabilities([[0.5]]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_wrong_types_are_errors_in_our_words(call: Callable[[FewShotClassifier], Any]):
    clf = FewShotClassifier("array").fit(*examples())
    before = clf.version_
    with pytest.raises(QuickstudyError) as raised:
        call(clf)
    assert "--" not in str(raised.value)  # no option of a command
    assert clf.version_ is before


@pytest.mark.parametrize("number", [np.int64(1), np.int32(2), 3])
def test_numbers_of_numpy_are_numbers(number: Any):
    clf = FewShotClassifier("array").fit(*examples())
    assert len(clf.explain(QUERY, n=number)[0].supports) == number
    assert len(clf.label_next(QUERY, number)) <= number
    clf.predict_set(QUERY, np.float32(0.5))
    clf.remove_examples(np.array([0, number]))
    clf.relabel(number, "c01")
    assert clf.relabel(number, "c01").what.endswith("nothing changed")

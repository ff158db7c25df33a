"""Task files edited by commands: each edit holds, can be undone, and none is lost."""

from __future__ import annotations

import csv
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from quickstudy.cli import app
from quickstudy.core import CheckpointError, ConfigError, DataError, TaskError
from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.by_class import balanced_accuracy, rare_classes_text
from quickstudy.estimators.file_edits import (
    add_files,
    correct_files,
    relabel_file,
    remove_files,
    rename_file,
    undo_file,
)
from quickstudy.estimators.files import fit_files, predict_files
from quickstudy.estimators.history import MOST_UNDONE
from quickstudy.estimators.saving import load_task
from quickstudy.storage.locks import changing

HEADER = ["width", "height", "label"]
ROWS = [[1, 2, "small"], [2, 1, "small"], [1, 1, "large"], [8, 9, "large"], [9, 8, "large"]]


def table(path: Path, rows: list[list[Any]], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def task(tmp_path: Path) -> Path:
    fit_files(table(tmp_path / "s.csv", ROWS), tmp_path / "s.task", head="prototype")
    return tmp_path / "s.task"


def content(path: Path) -> tuple[Any, ...]:
    """Return everything that a task answers with, as plain values."""
    version = load_task(path).version
    support = version.support
    labels = [support.label(row) for row in range(len(support.items))]
    scores = version.scores(support.z).tolist()
    return version.classes, labels, [item.source for item in support.items], scores


def test_each_edit_holds_in_the_file_and_is_undone(task: Path, tmp_path: Path):
    more = table(tmp_path / "more.csv", [[20, 21, "huge"], [21, 20, "huge"], [3, 3, "small"]])
    bare = table(tmp_path / "bare.csv", [[30, 31], [31, 30]], HEADER[:2])
    edits = [
        lambda: add_files(task, [more]),
        lambda: add_files(task, [bare], name="giant"),
        lambda: relabel_file(task, "s.csv, line 4", "small"),
        lambda: relabel_file(task, "5", "tiny"),
        lambda: rename_file(task, "tiny", "wee"),
        lambda: remove_files(task, examples=["s.csv, line 3", "more.csv, line 3"]),
        lambda: remove_files(task, classes=["large", "giant"]),
    ]
    before = []
    for count, edit in enumerate(edits, start=1):
        before.append(content(task))
        edited = edit()
        assert edited.can_undo == count
        assert content(task) != before[-1]
        assert edited.classes == dict(
            zip(content(task)[0], load_task(task).version.support.counts.tolist(), strict=True)
        )
    assert set(content(task)[0]) == {"small", "wee", "huge"}
    for was in reversed(before):
        undo_file(task)
        assert content(task) == was
    with pytest.raises(TaskError, match="nothing to undo"):
        undo_file(task)


def test_images_are_named_by_the_end_of_their_path(tmp_path: Path):
    draw = np.random.default_rng(0)
    for name in ("a/1", "a/2", "b/1", "b/2", "more/3"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = (draw.random((28, 28)) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "p" / f"{name}.png")
    more = (tmp_path / "p" / "more").rename(tmp_path / "more")
    path = tmp_path / "p.task"
    fit_files(tmp_path / "p", path, encoder="characters")
    add_files(path, [more], name="c")
    assert relabel_file(path, "3.png", "a").classes == {"a": 3, "b": 2}
    assert remove_files(path, examples=["b/1.png"]).classes == {"a": 3, "b": 1}
    with pytest.raises(ConfigError, match=r"may be any of .*Write the whole name"):
        remove_files(path, examples=["2.png"])
    with pytest.raises(ConfigError, match=r"no example 'x\.png'"):
        remove_files(path, examples=["x.png"])
    undo_file(path)
    undo_file(path)  # the picture of a removed example comes back with it
    items = load_task(path).version.support.items
    assert all(isinstance(item.preview, bytes) for item in items)
    assert len(items) == 5


def test_forgetting_leaves_nothing_of_what_was_removed(task: Path):
    relabel_file(task, "4", "odd")
    kept = task.read_bytes()
    assert b"s.csv, line 4" in kept
    remove_files(task, classes=["odd"])
    assert b"s.csv, line 4" in task.read_bytes()  # to undo it
    rename_file(task, "small", "little", forget=True)
    assert b"s.csv, line 4" not in task.read_bytes()
    with pytest.raises(TaskError, match="nothing to undo"):
        undo_file(task)


def test_so_many_changes_can_be_undone_and_no_more(task: Path):
    for turn in range(MOST_UNDONE + 3):
        edited = relabel_file(task, "4", "small" if turn % 2 else "large 2")
    assert edited.can_undo == MOST_UNDONE
    for _ in range(MOST_UNDONE):
        undo_file(task)
    with pytest.raises(TaskError, match=f"only the last {MOST_UNDONE} changes"):
        undo_file(task)


def test_another_file_leaves_the_first_as_it_was(task: Path, tmp_path: Path):
    before = task.read_bytes()
    rename_file(task, "small", "little", out=tmp_path / "other.task")
    assert task.read_bytes() == before
    assert "little" in content(tmp_path / "other.task")[0]
    with pytest.raises(ConfigError, match="did not write it"):
        rename_file(task, "small", "little", out=tmp_path / "s.csv")


def test_a_failed_edit_leaves_the_file(task: Path, tmp_path: Path):
    before = task.read_bytes()
    for edit in (
        lambda: add_files(task, [table(tmp_path / "b.csv", [["x", 1, "small"]])]),
        lambda: add_files(task, [table(tmp_path / "c.csv", [[1, 1, ""], [1, 2, "small"]])]),
        lambda: add_files(task, [tmp_path / "none.csv"]),
        lambda: add_files(task, texts=["a"], name="small"),
        lambda: remove_files(task, classes=["small", "large"]),
        lambda: rename_file(task, "small", "large"),
        lambda: relabel_file(task, "99", "large"),
        lambda: relabel_file(task, "4", " "),
        lambda: correct_files(task, tmp_path / "s.csv"),
    ):
        with pytest.raises((ConfigError, DataError, TaskError)):
            edit()
        assert task.read_bytes() == before


def answers(task: Path, tmp_path: Path, rows: list[list[Any]]) -> Path:
    new, out = table(tmp_path / "new.csv", rows, HEADER[:2]), tmp_path / "answers.csv"
    done = CliRunner().invoke(app, ["predict", str(task), str(new), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


@pytest.mark.parametrize("column", ["label", "correct"])
def test_corrected_answers_are_learned(task: Path, tmp_path: Path, column: str):
    path = answers(task, tmp_path, [[1, 3], [8, 7], [2, 1], [30, 31]])
    with pytest.raises(ConfigError, match="nothing is corrected"):
        correct_files(task, path)
    with path.open(encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    if column == "correct":
        header, rows = [*header, "correct"], [[*row, ""] for row in rows]
    at = header.index(column)
    for number, right in ((0, "large"), (2, "large"), (3, "giant")):
        rows[number][at] = right
    edited = correct_files(task, table(path, rows, header))
    # the third input is an example of the task already: its label is corrected
    assert edited.classes == {"large": 5, "small": 1, "giant": 1}
    assert edited.edit.what.startswith("learned 3 corrections (2 new, 1 of examples")
    assert predict_files(task, path).answers[3].label == "giant"  # type: ignore[union-attr]
    assert undo_file(task).classes == {"large": 3, "small": 2}


def _cells(path: Path) -> tuple[list[str], list[list[Any]]]:
    with path.open(encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    return header, rows


def test_changed_labels_count_beside_a_column_of_corrections(task: Path, tmp_path: Path):
    path = answers(task, tmp_path, [[1, 3], [8, 7], [30, 31]])
    header, rows = _cells(path)
    header, rows = [*header, "correct"], [[*row, ""] for row in rows]
    rows[0][header.index("label")] = "wide"
    rows[1][header.index("label")], rows[1][-1] = "overruled", "tall"
    edited = correct_files(task, table(path, rows, header))
    assert edited.classes == {"large": 3, "small": 2, "wide": 1, "tall": 1}


def test_a_column_of_the_table_is_not_taken_for_corrections(task: Path, tmp_path: Path):
    new, out = tmp_path / "new.csv", tmp_path / "answers.csv"
    table(new, [[1, 3, "yes"], [8, 7, "no"]], [*HEADER[:2], "correct"])
    predict = CliRunner().invoke(app, ["predict", str(task), str(new), "--out", str(out)])
    assert predict.exit_code == 0, predict.output
    before = task.read_bytes()
    with pytest.raises(ConfigError, match="'correct' stands among the table's own columns"):
        correct_files(task, out)
    assert task.read_bytes() == before


def test_of_answers_to_answers_the_last_are_corrected(task: Path, tmp_path: Path):
    path = answers(task, tmp_path, [[1, 3], [8, 7]])
    for number in range(2):  # predicted_label, then predicted_label_2
        again = tmp_path / f"again{number}.csv"
        done = CliRunner().invoke(app, ["predict", str(task), str(path), "--out", str(again)])
        assert done.exit_code == 0, done.output
        path = again
        header, rows = _cells(path)
        at = max(i for i, name in enumerate(header) if name.startswith("predicted_label"))
        rows[0][at] = f"class {number}"
        edited = correct_files(task, table(path, rows, header), out=tmp_path / f"{number}.task")
        assert edited.classes == {"large": 3, "small": 2, f"class {number}": 1}


def test_commands_print_what_they_did(task: Path, tmp_path: Path):
    run = CliRunner()
    out = run.invoke(app, ["rename", str(task), "small", "little", "--json"])
    document = json.loads(out.stdout)
    assert (document["command"], document["n_classes"], document["can_undo"]) == ("rename", 2, 1)
    assert "renamed class 'small' to 'little'" in document["what"]
    out = run.invoke(app, ["undo", str(task)])
    assert "undid: renamed class 'small' to 'little'" in out.stdout
    more = table(tmp_path / "more.csv", [[20, 21, "huge"]])
    for command in (
        ["add", str(task), str(more)],
        ["relabel", str(task), "4", "small"],
        ["remove", str(task), "--example", "s.csv, line 2", "--example", "3"],
        ["remove", str(task), "--class", "huge", "--forget"],
    ):
        out = run.invoke(app, command)
        assert out.exit_code == 0, out.output
        assert str(task) in out.stdout
    for name in ("add", "remove", "relabel", "rename", "correct", "undo"):
        assert f"Example: quickstudy {name} zoo.task" in run.invoke(app, [name, "--help"]).stdout


def _add(task: str, start: int) -> None:
    for number in range(start, start + 2):
        relabel_file(task, "4", f"class {number}")
        rows = [[number, 2 * number, f"class {number}"]]
        add_files(task, [table(Path(task).with_name(f"{number}.csv"), rows)])


def test_no_edit_of_several_commands_at_once_is_lost(task: Path):
    # threads take the lock as processes do: it belongs to the handle with which it was asked for
    with ThreadPoolExecutor() as pool:
        list(pool.map(_add, [str(task)] * 2, (10, 20)))
    classes = load_task(task).version.classes
    assert {f"class {n}" for n in (10, 11, 20, 21)} <= set(classes)
    assert len(load_task(task).history.past) == 8


def test_who_waits_too_long_is_told(task: Path):
    with changing(task), pytest.raises(CheckpointError, match="another command"):  # noqa: SIM117
        with changing(task, wait=0.01):
            pass


def test_a_history_is_small_and_goes_into_no_copy(tmp_path: Path):
    draw = np.random.default_rng(0)
    clf = FewShotClassifier("array", head="class-mean")
    clf.fit(draw.normal(size=(200, 500)), [i % 2 for i in range(200)])
    alone = len(pickle.dumps(clf))
    for turn in range(30):
        clf.add_examples(draw.normal(size=(1, 500)), turn % 2)
    support = clf.support_
    history = clf._task[1]
    assert len(history.past) == MOST_UNDONE
    arrays = [array for past in history.past for array in (past.z, past.y, past.rows)]
    # a view is small and holds the array that it looks at
    held = sum((array if array.base is None else array.base).nbytes for array in arrays)
    assert held < 0.2 * support.z.nbytes
    assert len(pickle.dumps(clf)) < 1.3 * alone
    for _ in range(MOST_UNDONE):
        clf.undo()
    assert np.array_equal(clf.support_.z, support.z[: 200 + 30 - MOST_UNDONE])
    with pytest.raises(TaskError, match=f"only the last {MOST_UNDONE}"):
        clf.undo()


def test_of_a_rare_class_its_own_accuracy_is_told(tmp_path: Path):
    draw = np.random.default_rng(0)
    x = np.r_[draw.normal(0, 1, (200, 3)), draw.normal(0.3, 1, (5, 3))]
    y = ["common"] * 200 + ["odd"] * 5
    rows = [[*np.round(row, 3).tolist(), label] for row, label in zip(x, y, strict=True)]
    path = table(tmp_path / "i.csv", rows, ["a", "b", "c", "label"])
    fitted = fit_files(path, tmp_path / "i.task", head="logistic")
    common, odd = fitted.classifier.class_estimates()
    assert (odd.label, odd.n, odd.held_out) == ("odd", 5, 5)
    assert odd.accuracy == odd.right / 5
    assert odd.low <= odd.right / 5 <= odd.high
    assert common.high - common.low < odd.high - odd.low
    balanced = balanced_accuracy([common, odd])
    assert balanced == pytest.approx((common.accuracy + odd.accuracy) / 2)  # type: ignore[operator]
    said = fitted.text()
    assert f"rare: class 'odd' has 5 of 205 examples: of its 5 held out {odd.right} " in said
    assert f"each weighing the same: {100 * balanced:.0f} %" in said  # type: ignore[operator]
    assert fitted.to_dict()["expected_by_class"][1]["right"] == odd.right


def test_where_no_class_is_rare_nothing_is_said(task: Path):
    clf = FewShotClassifier.load(task)
    assert rare_classes_text(clf.class_estimates()) == []
    single = FewShotClassifier("array").fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
    assert [one.accuracy for one in single.class_estimates()] == [None, None]
    assert balanced_accuracy(single.class_estimates()) is None

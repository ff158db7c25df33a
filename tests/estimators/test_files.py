"""Tasks from files in Python: what ``fit`` and ``predict`` do, as functions."""

import json
from pathlib import Path

import numpy as np
import pytest

from quickstudy.cli import main
from quickstudy.core import ConfigError
from quickstudy.estimators.files import fit_files, predict_files


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = ["a,b,label"]
    for i in range(12):
        a, b = draw.normal(0, 0.1, 2) + (3 if i % 2 else 0)
        rows.append(f"{a:.4f},{b:.4f},{'high' if i % 2 else 'low'}")
    path = tmp_path / "points.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def command(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--json"])
    assert not stop.value.code
    return json.loads(capsys.readouterr().out)


def test_the_functions_give_the_documents_of_the_commands(table, tmp_path, capsys):
    heard: list[str] = []
    mine = fit_files(table, tmp_path / "points.task", say=heard.append)
    theirs = command(capsys, "fit", table, "--out", tmp_path / "points.task")
    assert theirs == {"command": "fit", **mine.to_dict()}
    assert heard == [
        "label: column 'label'; inputs: 2 numbers (a, b)",
        "12 examples of 2 classes; encoder: table",
    ]
    assert "next: quickstudy predict" in mine.text()
    answers = predict_files(tmp_path / "points.task", [table], label="label", coverage=0.9)
    words = ("predict", tmp_path / "points.task", table, "--label", "label", "--coverage", 0.9)
    assert command(capsys, *words) == {"command": "predict", **answers.to_dict()}
    assert answers.accuracy == 1.0
    assert answers.text().endswith("accuracy against the column of labels: 100.00 % of 12")


def test_what_is_refused(table, tmp_path):
    with pytest.raises(ConfigError, match="takes texts"):
        fit_files(table, tmp_path / "t.task", encoder="text")
    with pytest.raises(ConfigError, match="there is a class 'low'"):
        fit_files(table, tmp_path / "t.task", unknown="low")
    fit_files(table, tmp_path / "t.task")
    with pytest.raises(ConfigError, match="one kind"):
        predict_files(tmp_path / "t.task")
    with pytest.raises(ConfigError, match="coverage must lie"):
        predict_files(tmp_path / "t.task", [table], coverage=1.5)
    with pytest.raises(ConfigError, match="classifies tables; got texts"):
        predict_files(tmp_path / "t.task", texts=["a"])


def test_no_line_grows_with_what_is_in_the_file(tmp_path):
    texts = [(f"{row % 6} {row // 6}", f"label {row} " + "x" * 400) for row in range(120)]
    rows = [{"size": int(text[0]), "label": label} for text, label in texts]
    report = fit_files(rows, tmp_path / "copies.task").text()
    assert "the same example under different labels" in report
    assert max(map(len, report.splitlines())) < 300
    assert "... and 1 more such examples" in report  # of six, five are shown


@pytest.mark.parametrize(("sizes", "one_each"), [([1, 9], True), ([1, 2, 9, 8], False)])
def test_one_example_each_is_said_of_one_example_each(sizes, one_each, tmp_path):
    rows = [{"size": size, "label": "small" if size < 5 else "large"} for size in sizes]
    method = fit_files(rows, tmp_path / "s.task").expected.method
    assert ("with one example each" in method) == one_each


def test_a_word_for_unknown_that_is_a_class_is_an_option_in_the_error(table, tmp_path, capsys):
    label = fit_files(table, tmp_path / "a.task").classifier.classes_[0]
    out = tmp_path / "b.task"
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(table), "--out", str(out), "--unknown", str(label)])
    assert stop.value.code == 2
    assert "so --unknown cannot be the same word" in capsys.readouterr().err

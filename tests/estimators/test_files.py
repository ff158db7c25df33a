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
    assert heard == ["12 examples of 2 classes; encoder: table"]
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

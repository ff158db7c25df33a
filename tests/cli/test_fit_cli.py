"""fit, predict, show, export: from files to a task file, to answers, to a page, to a graph."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quickstudy.cli import main

LETTERS = "abc"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """Strokes of three kinds, five pictures each, as class folders; two strangers beside them."""
    draw = np.random.default_rng(0)
    for c, letter in enumerate(LETTERS):
        for i in range(6):
            paper = np.full((40, 40), 255, np.uint8)
            at = int(draw.integers(8, 32))
            if c != 1:
                paper[6:34, at - 2 : at + 1] = 0
            if c != 0:
                paper[at - 2 : at + 1, 6:34] = 0
            path = tmp_path / ("new" if i == 5 else "drawings") / letter / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(paper).save(path)
    return tmp_path / "drawings"


def test_pictures_from_folder_to_graph(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    task, new = tmp_path / "strokes.task", tmp_path / "new"
    words = (drawings, "--encoder", "characters", "--out", task, "--head", "prototype")
    fitted = answer(capsys, "fit", *words)
    assert fitted["classes"] == dict.fromkeys(LETTERS, 5)
    assert 0 < fitted["expected_accuracy"]["mean"] <= 1
    found = answer(capsys, "predict", task, new, "--coverage", "0.9")
    assert [a["label"] for a in found["answers"]] == list(LETTERS)
    assert all(a["label"] in a["set"] for a in found["answers"])

    assert run("predict", task, new, "--out", tmp_path / "answers.csv") == 0
    capsys.readouterr()
    with (tmp_path / "answers.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == list(LETTERS)

    page = Path(answer(capsys, "show", task)["page"]).read_text(encoding="utf-8")
    assert all(letter in page for letter in LETTERS)
    assert "<script" not in page
    assert page.count('<li><svg width="12"') == len(LETTERS)  # a colour for each class

    made = answer(capsys, "export", task)
    assert made["support"]
    assert Path(made["path"]) == tmp_path / "strokes.onnx"
    assert Path(made["path"]).stat().st_size > 10_000
    assert answer(capsys, "export", task, "--fixed")["classes"] == list(LETTERS)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_numbers_from_a_table(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    draw = np.random.default_rng(0)
    rows = [
        {"height": float(h), "width": float(w), "species": name}
        for name, middle in (("okapi", 0), ("zebra", 9))
        for h, w in draw.normal(middle, 1, (6, 2))
    ]
    table = tmp_path / f"animals.{kind}"
    if kind == "csv":
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = tmp_path / "animals.task"
    assert answer(capsys, "fit", table, "--label", "species", "--out", task)["encoder"] == "table"
    assert answer(capsys, "predict", task, table, "--label", "species")["accuracy"] == 1


def test_faults_are_one_line_that_helps(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    task = tmp_path / "strokes.task"
    assert run("fit", drawings, "--encoder", "characters", "--out", task) == 0
    capsys.readouterr()
    (tmp_path / "note.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / "broken.task").write_bytes(task.read_bytes()[:-40])
    for words, what in (
        (("fit", tmp_path / "nothing"), "nothing"),
        (("fit", drawings, "--encoder", "imgae"), "image"),
        (("fit", drawings, "--encoder", "characters", "--head", "protoype"), "prototype"),
        (("predict", task), "give inputs"),
        (("predict", task, tmp_path / "note.txt"), "note.txt"),
        (("predict", task, drawings, "--coverage", "1.5"), "between 0 and 1"),
        (("predict", task, "--text", "a"), "classifies images"),
        (("predict", tmp_path / "broken.task", drawings), "broken.task"),
        (("show", tmp_path / "none.task"), "none.task"),
        (("export", task, "--out", tmp_path / "note.txt" / "a.onnx"), "note.txt"),
    ):
        assert run(*words) in (1, 2), words
        error = capsys.readouterr().err
        assert what in error, words
        assert "Traceback" not in error

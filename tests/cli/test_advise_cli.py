"""advise: a table in, an approach, an expectation and a command that runs out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from quickstudy.cli import main


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = ["height,width,species,herd"]
    for name, middle in (("okapi", 0.0), ("zebra", 9.0)):
        for i, (h, w) in enumerate(draw.normal(middle, 1, (15, 2))):
            rows.append(f"{h},{w},{name},{i % 4}")
    table = tmp_path / "my animals.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    return table


def test_a_document_a_page_and_the_next_command(
    animals: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    page = tmp_path / "advice.html"
    words = ("advise", animals, "--label", "species", "--group", "herd", "--episodes", 6)
    assert run(*words, "--html", page, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "advise"
    assert document["page"] == str(page)
    assert document["facts"]["classes"] == 2
    assert document["chosen"]["encoder"] == "table"
    for e in document["expected"]:
        assert 0 <= e["low"] <= e["mean_low"] <= e["mean"] <= e["mean_high"] <= e["high"] <= 1
    assert "hardest pairs" in page.read_text(encoding="utf-8") or not document["confused"]

    monkeypatch.chdir(tmp_path)
    program, *rest = shlex.split(document["next"])
    assert program == "quickstudy"
    assert run(*rest) == 0
    assert (tmp_path / "my animals.task").is_file()


def test_words_for_people(animals: Path, capsys: pytest.CaptureFixture[str]):
    words = ("advise", animals, "--label", "species", "--group", "herd", "--episodes", 6)
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert "take: table, auto" in out
    assert "90 % interval" in out
    assert "one more label per class" in out
    assert "next: quickstudy fit" in out


def test_faults_are_one_line_that_helps(
    animals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bare = tmp_path / "bare.csv"
    bare.write_text("height,label\n1,a\n2,b\n", encoding="utf-8")
    alone = tmp_path / "alone.csv"
    rows = [f"{i},{c},herd of {c}" for i in range(9) for c in "ab"]
    alone.write_text("\n".join(["height,label,herd", *rows]), encoding="utf-8")
    for words, code, what in (
        ((alone, "--group", "herd"), 1, "too few groups"),
        ((tmp_path / "nothing.csv",), 1, "no such file"),
        ((animals,), 2, "--label"),
        ((animals, "--label", "species", "--group", "hred"), 2, "herd"),
        ((bare,), 1, "too few examples"),
        ((animals, "--label", "species", "--episodes", 1), 2, "at least 5"),
    ):
        assert run("advise", *words) == code, words
        error = capsys.readouterr().err
        assert what in error, words
        assert "Traceback" not in error

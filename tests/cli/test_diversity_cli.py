"""``quickstudy diversity``: one document, a verdict, errors that help."""

from __future__ import annotations

import json

import pytest

from quickstudy.cli import main


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_digits_and_glyphs(capsys):
    words = ["diversity", "digits", "glyphs", "--episodes", "20", "--n-way", "5"]
    assert run(*words, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "diversity"
    assert document["domains"] == ["digits", "glyphs"]
    for name in document["domains"]:
        assert len(document["accuracy"][name]) == 4
        assert all(0.2 < row["mean"] <= 1 for row in document["accuracy"][name].values())
    assert document["recognised"]["digits"] > 0.9
    assert run(*words) == 0
    text = capsys.readouterr().out
    assert ("enough" in text) != ("too diverse" in text)
    assert ("too diverse" in text) == document["too_diverse"]


def test_faults(capsys):
    assert run("diversity", "digits") == 2
    assert "at least two" in capsys.readouterr().err
    assert run("diversity", "digits", "digits") == 2
    assert run("diversity", "digits", "glyps") == 2
    assert "glyphs" in capsys.readouterr().err
    assert run("diversity", "digits", "glyphs", "--n-way", "7") == 1
    assert "10 classes; half of them" in capsys.readouterr().err

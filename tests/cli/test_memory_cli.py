"""Memory learners on the command line: trained, judged on streams, refused before anything is
written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import run, shapes_pool

import quickstudy.recipes.data
import quickstudy.runs.judging

SMALL = [
    *("-s", "hidden_size=8", "-s", "slots=6", "-s", "width=4", "-s", "heads=2"),
    *("-s", "train.k_shot=3", "-s", "train.tasks_per_step=2", "-s", "image_size=16"),
    *("-s", "validation.episodes=4", "-s", "steps=2", "-s", "validation.every=2"),
]


@pytest.fixture(autouse=True)
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstudy.recipes.data, "load_pool", shapes_pool)
    monkeypatch.setattr(quickstudy.runs.judging, "load_pool", shapes_pool)


def train(out: Path, *settings: str) -> int:
    words = [w for s in settings for w in ("-s", s)]
    return run("train", "omniglot-mann", "--out", str(out), "--device", "cpu", *SMALL, *words)


def evaluate(out: Path, *options: str) -> int:
    words = ["--data", "omniglot", "--n-query", "2", "--episodes", "6", "--device", "cpu"]
    return run("evaluate", str(out), *words, *options)


def test_evaluate_prints_the_table_by_instance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(out) == 0
    capsys.readouterr()
    assert evaluate(out) == 0
    text = capsys.readouterr().out
    assert "labels one step late: accuracy, % (95 % CI over 6 streams" in text
    assert "instance  2:" in text
    assert evaluate(out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    table = document["streams"]["accuracy_by_instance"]
    assert list(table) == [str(k + 1) for k in range(document["streams"]["protocol"]["instances"])]
    assert all(0 <= cell["mean"] <= 1 for cell in table.values())
    assert evaluate(out, "--no-streams", "--json") == 0
    assert "streams" not in json.loads(capsys.readouterr().out)


def test_more_classes_than_trained_for_are_an_error_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(out, "train.n_way=3", "validation.n_way=3") == 0
    assert evaluate(out, "--n-way", "4") == 1
    assert "made for 3 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("roles=every", "reads it in order"),
        ("heads=7", "heads=7 write to as many least used slots, and there are slots=6"),
        ("decay=1", "setting learner.decay: Input should be less than 1; got 1."),
        ("filters=4", "filters is for snail, not for mann"),
        ("protocol=both", "setting learner.protocol: Input should be 'stream' or 'episode'"),
    ],
)
def test_a_refusal_comes_before_the_folder(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", setting) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""What ``train`` says of meta-overfitting, and what ``evaluate`` says of a domain that chose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy.recipes.data
import quickstudy.runs.judging
from quickstudy.cli import main
from quickstudy.tasks import Pool

FAST = [
    *("-s", "steps=6", "-s", "train.n_way=5", "-s", "train.n_query=3", "-s", "channels=8"),
    *("-s", "checkpoint_every=2", "-s", "validation.every=2", "-s", "watch_episodes=4"),
    *("-s", "validation.n_way=5", "-s", "validation.n_query=3", "-s", "validation.episodes=4"),
]


def shapes(name: str = "shapes", split: str = "train", **_: Any) -> Pool:
    """Return 12 classes of noisy bars, 10 images each, of another colour depth in each domain."""
    generator = torch.Generator().manual_seed(len(split) + len(name))
    channels, side = (3, 32) if name == "cifar-fs" else (1, 28)
    x = torch.zeros(120, channels, side, side)
    for row in range(120):
        x[row, :, 2 * (row // 10) : 2 * (row // 10) + 3] = 200
    x += 40 * torch.rand(x.shape, generator=generator)
    y = torch.arange(12).repeat_interleave(10)
    return Pool(x.to(torch.uint8), y, tuple(f"class {c}" for c in range(12)), name, split)


@pytest.fixture(autouse=True)
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstudy.recipes.data, "load_pool", shapes)
    monkeypatch.setattr(quickstudy.runs.judging, "load_pool", shapes)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert isinstance(stop.value.code, int)
    return stop.value.code


def train(out: Path, *words: str) -> int:
    return run("train", "omniglot-few", "--out", str(out), "--json", "--device", "cpu", *words)


def test_domains_are_followed_and_one_of_them_chooses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    # classes: the stand-in has 12
    words = ["-s", "domains=cifar-fs,mnist", "-s", "choose_by=cifar-fs", "-s", "classes=6"]
    assert train(out, *FAST, *words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["chosen_by"] == "cifar-fs"
    curve = document["curve"]
    assert curve["steps"] == [2, 4, 6]
    assert set(curve["lists"]) == {"training classes", "novel classes", "cifar-fs", "mnist"}
    assert document["overfitting"] == []
    best = curve["steps"].index(document["best_step"])
    assert document["validation"]["mean"] == pytest.approx(
        curve["lists"]["cifar-fs"]["mean"][best], abs=1e-6
    )
    facts = json.loads((out / "recipe.json").read_text())
    assert {"domain cifar-fs", "domain mnist"} <= facts.keys()

    def note(data: str, split: str) -> tuple[str, bool]:
        asked = ["--data", data, "--split", split, "--n-query", "3", "--episodes", "4", "--json"]
        assert run("evaluate", str(out), *asked) == 0
        printed = capsys.readouterr()
        return printed.err, json.loads(printed.out)["protocol"]["chosen_on"]

    text, chose = note("cifar-fs", "val")
    assert "chosen by its score on cifar-fs; the domain is not new to it" in text
    assert chose
    assert note("cifar-fs", "test")[1] is False  # the classes that chose are its validation classes
    assert note("fc100", "test")[1] is True  # the same images, split otherwise
    text, chose = note("mnist", "all")  # followed, but it decided nothing
    assert "chosen by" not in text
    assert not chose


def test_a_run_that_overfits_is_warned_of_in_words_and_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real glyphs
    few = ["-s", "validation.episodes=200", "-s", "channels=128", "--json", "--device", "cpu"]
    assert run("train", "glyphs-few", "--out", str(tmp_path / "few"), *few) == 0
    printed = capsys.readouterr()
    (found,) = json.loads(printed.out)["overfitting"]
    assert found["kind"] == "falls"
    assert found["change"]["high"] < 0 < found["gap"]["low"]
    warning = next(line for line in printed.err.splitlines() if line.startswith("warning: "))
    assert "novel classes got worse" in warning
    assert "What helps: more classes or tasks" in warning


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["domains=omniglot"], "omniglot is no novel domain"),
        (["domains=mnist", "choose_by=minst"], "choose_by must be"),
        (["choose_by=mnist"], "must be one of domains"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_written(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [w for setting in words for w in ("-s", setting)]
    assert train(tmp_path / "run", *given) == 2
    assert says in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not (tmp_path / "run").exists()

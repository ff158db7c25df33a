"""``quickstudy check``: folders, data sets, runs, a user's own code; evidence, page, exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.cli import main

OWN = """
import torch
from quickstudy.learners import NearestNeighbour
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool

class Cheater(NearestNeighbour):
    def predict(self, state, x):
        return super().predict(state, x - x.mean(1, keepdim=True))

honest = NearestNeighbour()
source = PoolSource(gaussian_pool(8, 12, (6,)))

def needs(argument):
    return argument

number = 3
"""


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def picture(path: Path, seed: int) -> None:
    """Write a smooth random picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ and test/ with five classes of six pictures each."""
    for part, first in (("train", 0), ("test", 100)):
        for c in range(5):
            for i in range(6):
                seed = 1000 * c + first + i
                picture(tmp_path / "data" / part / f"{part} {c}" / f"{i}.png", seed)
    return tmp_path / "data"


def test_a_good_folder_is_clean(folder, capsys):
    assert run("check", folder, "--episodes", "50", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "check"
    assert document["clean"]
    assert document["findings"] == []
    assert len(document["passed"]) >= 8


def test_a_broken_folder_is_told_with_its_pictures(folder, tmp_path, capsys):
    # the same file under two labels, and another size and format of a picture in the other split
    (folder / "train/train 1/copy.png").write_bytes((folder / "train/train 0/2.png").read_bytes())
    again = Image.open(folder / "train/train 3/1.png").resize((40, 40), Image.Resampling.LANCZOS)
    again.save(folder / "test/test 2/again.jpg", quality=80)
    page = tmp_path / "check.html"
    assert run("check", folder, "--episodes", "50", "--html", page, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    found = {f["check"]: f for f in document["findings"] if f["severity"] == "fault"}
    assert set(found) == {"identical-images", "near-duplicates"}
    told = json.dumps(found["identical-images"])
    assert "copy.png" in told
    assert "train 0/2.png" in told
    assert "again.jpg" in json.dumps(found["near-duplicates"])
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") >= 4
    assert "remedy" in text.lower() or "delete" in text.lower()


def test_what_cannot_be_read_is_told_with_all_else(folder, tmp_path, capsys):
    (folder / "test/test 0/0.png").write_bytes(b"no picture")
    (folder / "test/test 3/1.png").write_bytes(b"")
    (folder / "train/train 2/notes.txt").write_text("drawn on Monday")
    (folder / "train/train 2/gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "train/train 9").mkdir()
    picture(folder / "test/lonely/0.png", 7)
    (folder / "train/train 1/copy.png").write_bytes((folder / "train/train 0/2.png").read_bytes())
    page = tmp_path / "check.html"
    assert run("check", folder, "--episodes", "60", "--html", page, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    found = {f["check"]: f for f in document["findings"]}
    assert found["readable"]["evidence"]["files"] == ["test/test 0/0.png", "test/test 3/1.png"]
    passed_over = ["train/train 2/gone.png", "train/train 2/notes.txt"]
    assert found["files-passed-over"]["evidence"]["files"] == passed_over
    assert found["empty-classes"]["evidence"]["files"] == ["train/train 9"]
    assert found["small-classes"]["evidence"]["classes"] == ["lonely"]
    # the files keep their names although others were left out
    assert "train/train 1/copy.png" in json.dumps(found["identical-images"]["pairs"])
    assert "shared-rows" in {p["check"] for p in document["passed"]}
    assert "test 3/1.png" in page.read_text()


def test_an_example_in_support_and_query_is_named(folder, capsys):
    for i in range(1, 5):
        (folder / f"test/test 0/{i}.png").write_bytes((folder / "test/test 0/0.png").read_bytes())
    assert run("check", folder, "--episodes", "60", "--json") == 1
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    first = found["shared-content"]["evidence"]["first"][0]
    assert first["support"].startswith("test/test 0/")
    assert first["query"].startswith("test/test 0/")
    assert isinstance(first["episode"], int)


def test_a_users_code_that_fails_is_no_fault_of_ours(tmp_path, monkeypatch, capsys):
    for name, text in (
        ("broken_syntax", "def build(:\n"),
        ("broken_exit", "import sys; sys.exit(3)\n"),
        ("broken_call", "def build():\n    raise KeyError('weights')\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for target, said in (
        ("broken_syntax:build", "SyntaxError"),
        ("broken_exit:build", "SystemExit: 3"),
        ("broken_call:build", "KeyError: 'weights'"),
        ("./broken_call:build", "Write the module as 'import' does"),
        (":", "Write the module as 'import' does"),
        ("broken_call:", "Write the module as 'import' does"),
    ):
        assert run("check", target, "--data", "digits") == 2, target
        error = capsys.readouterr().err
        assert said in error
        assert "fault of Quickstudy" not in error


def test_a_learner_is_given_images_of_its_size(tmp_path, monkeypatch, capsys):
    (tmp_path / "sized.py").write_text(
        "import torch\nfrom quickstudy.learners import NearestNeighbour\n"
        "class Picky(NearestNeighbour):\n"
        "    def adapt(self, support, n_way):\n"
        "        assert support.x.shape[2:] == (1, 20, 20), 'twenty'\n"
        "        return super().adapt(support, n_way=n_way)\n"
        "build = Picky()\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("check", "sized:build", "--data", "digits", "--episodes", "4", "--json")
    assert run(*words) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert "size" in found[0]["remedy"]
    assert "[1, 28, 28]" in found[0]["summary"]
    assert run(*words, "--size", "20") == 0


def test_a_page_that_cannot_be_written_is_said_before_the_work(folder, capsys):
    assert run("check", folder, "--html", folder) == 2
    error = capsys.readouterr().err
    assert "is a folder" in error
    assert "hashing" not in error


def test_a_users_own_learner_and_source(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_to_check.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["--data", "digits", "--episodes", "20"]
    assert run("check", "mine_to_check:Cheater", *words) == 1
    assert "query-statistics" in capsys.readouterr().out
    assert run("check", "mine_to_check:honest", *words) == 0
    assert run("check", "mine_to_check:source", "--episodes", "60") == 0
    assert run("check", "mine_to_check:honest") == 2
    assert "--data" in capsys.readouterr().err
    assert run("check", "mine_to_check:needs", *words) == 2
    assert "without arguments" in capsys.readouterr().err
    assert run("check", "mine_to_check:number", *words) == 2
    assert run("check", "mine_to_check:sourc") == 2
    assert "source" in capsys.readouterr().err
    assert run("check", "nowhere_at_all:thing") == 2
    assert "cannot be imported" in capsys.readouterr().err
    sys.modules.pop("mine_to_check", None)


def test_a_run_of_ours_is_clean(tmp_path, capsys):
    fast = ["steps=2", "train.n_way=5", "train.n_query=3", "precision=float32", "channels=4"]
    fast += ["validation.n_way=5", "validation.n_query=3", "validation.episodes=4"]
    words = [word for setting in fast for word in ("-s", setting)]
    assert run("train", "glyphs-protonet", "--out", tmp_path / "run", *words) == 0
    assert run("check", tmp_path / "run", "--data", "digits", "--episodes", "50") == 0
    out = capsys.readouterr().out
    assert "evaluation-changes-model" in out
    assert "passed: classes-seen: the run was not trained" in out
    words = ["--data", "digits", "--episodes", "8", "--n-query", "3", "--json"]
    assert run("evaluate", tmp_path / "run", *words) == 0
    document = json.loads(capsys.readouterr().out)
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(document))
    assert run("check", file) == 0
    assert "follow from 8 scores" in capsys.readouterr().out
    document["scores"][3] += 0.1
    file.write_text(json.dumps(document))
    assert run("check", file) == 1


def test_a_document_of_evaluate(tmp_path, capsys):
    scores = np.random.default_rng(0).random(50)
    half = 1.96 * scores.std() / np.sqrt(50)
    document = {"accuracy": {"mean": scores.mean(), "ci95": half / 5}, "scores": scores.tolist()}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(document))
    assert run("check", path) == 1
    assert "interval" in capsys.readouterr().out
    path.write_text("{}")
    assert run("check", path) == 1
    assert "evaluate --json" in capsys.readouterr().err


def test_what_is_not_there(tmp_path, capsys):
    assert run("check", "omniglt") == 2
    assert "omniglot" in capsys.readouterr().err
    assert run("check", tmp_path / "none") == 1
    assert "no such folder" in capsys.readouterr().err
    assert run("check", "digits", "--data", "digits") == 2
    assert "for learners" in capsys.readouterr().err

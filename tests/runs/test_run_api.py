"""Training, judging and checking a run from Python: what the commands do, as functions."""

import json
from pathlib import Path

import numpy as np
import pytest

from quickstudy.cli import main
from quickstudy.comparing import compare_runs
from quickstudy.core import CheckpointError, ConfigError
from quickstudy.recipes import get_recipe, override
from quickstudy.runs import Run, TrainedRun, check, judge, load_run, train_recipe

DIGITS = ["data.name=digits", "data.train=all", "data.validation=all", "classes=null"]
TINY = [*DIGITS, "steps=4", "every=2", "validation.episodes=20", "watch_episodes=10"]
TINY += ["train.n_way=5", "channels=16", "log_every=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return train_recipe("glyphs-few", TINY, out=tmp_path_factory.mktemp("runs") / "digits")


def command(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--json"])
    assert not stop.value.code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_training_returns_the_document_of_the_command(trained, tmp_path, capsys):
    settings = [word for setting in TINY for word in ("-s", setting)]
    document = command(capsys, "train", "glyphs-few", "--out", tmp_path / "run", *settings)
    mine = trained.to_dict()
    assert list(document) == ["command", *mine]
    same = set(mine) - {"run", "seconds", "episodes_per_second", "sampling_share"}
    assert {name: document[name] for name in same} == {name: mine[name] for name in same}
    assert f"next: quickstudy evaluate {trained.folder} --data digits" in trained.text()
    assert isinstance(trained.load(), Run)


def test_judging_returns_the_document_of_the_command(trained, capsys):
    words = ("evaluate", trained.folder, "--data", "digits", "--episodes", 30, "--floor")
    document = command(capsys, *words)
    judged = judge(trained.folder, "digits", episodes=30, floor=True)
    mine = judged.to_dict()
    assert list(document) == ["command", *mine]
    for name in ("accuracy", "scores", "protocol"):
        assert document[name] == mine[name]
    assert "difference:" in judged.text()
    # it was trained on these classes, and that is said
    assert judged.facts["trained_on"]
    assert any("trained or validated on" in note for note in judged.notes)


def test_judging_takes_a_run_a_path_or_a_text(trained):
    scores = [
        judge(run, "digits", episodes=5).report.mean
        for run in (load_run(trained.folder), trained.folder, str(trained.folder))
    ]
    assert scores[0] == scores[1] == scores[2]


def test_checking_returns_the_document_of_the_command(trained, capsys):
    report = check(str(trained.folder), episodes=30)
    with pytest.raises(SystemExit) as stop:
        main(["check", str(trained.folder), "--episodes", "30", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert stop.value.code == (not report.clean)
    mine = report.to_dict()
    assert set(document) == {"command", "page", *mine}
    assert [f["check"] for f in document["findings"]] == [f["check"] for f in mine["findings"]]
    assert report.text().startswith(str(trained.folder))


def test_comparing_returns_the_document_of_the_command(trained, tmp_path, capsys):
    words = ("compare", trained.folder, "--data", "digits", "--episodes", 10, "--workers", 1)
    document = command(capsys, *words, "--baseline", "pixels")
    out = tmp_path / "compared"
    compared = compare_runs(
        [trained.folder], ["digits"], episodes=10, workers=1, baselines=["pixels"], out=out
    )
    mine = compared.to_dict()
    assert set(mine) == {*document, "page", "scores"} - {"command"}
    for ours, theirs in zip(mine["results"], document["results"], strict=True):
        assert ours["accuracy"] == theirs["accuracy"]
    assert "open it in a browser" in compared.text()
    assert json.loads((out / "comparison.json").read_text())["command"] == "compare"


def test_a_recipe_object_is_trained_like_a_named_one(trained, tmp_path):
    recipe = override(get_recipe("glyphs-few"), TINY)
    again = train_recipe(recipe, out=str(tmp_path / "again"))
    assert again.result.best_validation == trained.result.best_validation


def test_what_is_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match="there is no recipe 'glyph'"):
        train_recipe("glyph")
    with pytest.raises(CheckpointError, match="already holds a run"):
        train_recipe("glyphs-few", TINY, out=trained.folder)
    with pytest.raises(CheckpointError, match="no run to resume"):
        train_recipe("glyphs-few", out=tmp_path / "none", resume=True)
    with pytest.raises(ConfigError, match="inner loop"):
        judge(trained.folder, "digits", transductive=True)
    with pytest.raises(ConfigError, match="regression on a number"):
        judge(trained.folder, "sinusoid")
    with pytest.raises(ConfigError, match="n_way would ask for others"):
        judge(trained.folder, "digits", tasks=tmp_path / "list.npz", n_way=3)
    assert not list(Path(tmp_path).iterdir())


def test_one_is_as_good_as_a_list_of_one(trained, tmp_path):
    compared = compare_runs(
        trained.folder, "digits", episodes=3, workers=1, baselines=[], out=tmp_path / "c"
    )
    assert len(compared.comparison.cells) == 1
    again = compare_runs([trained.load()], ["digits"], episodes=3, workers=1, baselines=[])
    assert again.to_dict()["results"][0]["accuracy"] == compared.to_dict()["results"][0]["accuracy"]
    judged = judge(trained.folder, Path("digits"), n_way=np.int64(5), episodes=np.int64(3))
    assert json.loads(json.dumps(judged.to_dict()))["protocol"]["n_way"] == 5


@pytest.mark.parametrize("wrong", [None, 3, "", ["a"]])
def test_what_is_no_run_is_named(wrong):
    with pytest.raises(ConfigError, match=r"a run is named by its folder|run needs a Run"):
        judge(wrong, "digits")
    with pytest.raises(ConfigError, match=r"recipe needs|name a recipe|there is no recipe"):
        train_recipe(wrong)
    with pytest.raises(ConfigError, match=r"invert (must be|needs)"):
        judge("run", "digits", invert="maybe")
    with pytest.raises(ConfigError, match=r"episodes (must be|needs) a whole number"):
        judge("run", "digits", episodes=2.5)

"""Going on with runs: finished ones, by their folder alone, by one process at a time."""

import json
from pathlib import Path

import pytest

from quickstudy.cli import main
from quickstudy.core import CheckpointError, ConfigError
from quickstudy.recipes import get_recipe, override
from quickstudy.runs import judge, load_run, train_recipe
from quickstudy.storage.run_lock import LOCK, locked
from quickstudy.training import TrainingInterrupted, Watcher

DIGITS = ["data.name=digits", "data.train=all", "data.validation=all", "classes=null"]
TINY = [*DIGITS, "steps=4", "every=2", "validation.episodes=4", "watch_episodes=2"]
TINY += ["train.n_way=3", "train.n_query=2", "channels=8", "log_every=2", "checkpoint_every=2"]
TINY += ["validation.n_way=3", "validation.n_query=2"]


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return train_recipe("glyphs-few", TINY, out=tmp_path / "run").folder


def written(folder: Path) -> dict:
    return json.loads((folder / "recipe.json").read_text())["recipe"]["train"]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_finished_run_goes_on_with_more_steps(tmp_path, schedule):
    settings = [*TINY, f"schedule={schedule}", "warmup=0"]
    out = train_recipe("glyphs-few", settings, out=tmp_path / "run").folder
    said: list[str] = []
    longer = train_recipe(None, "train.steps=8", out=out, resume=True, say=said.append)
    assert longer.result.steps == 8
    assert written(out)["steps"] == 8
    assert any("8 steps instead of 4" in line for line in said)
    assert load_run(out).meta["training"]["steps"] == 8
    # with a rate that does not depend on the steps, both ways end at the same weights
    whole = train_recipe("glyphs-few", [*settings, "steps=8"], out=tmp_path / "whole")
    last = [line["loss"] for line in longer.result.log if "loss" in line][-1]
    same = [line["loss"] for line in whole.result.log if "loss" in line][-1] == last
    assert same is (schedule == "constant")


def test_the_folder_alone_is_enough(run, capsys):
    assert command("train", "--resume", run) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert command("train", "--resume", "--out", run, "-s", "train.steps=5") == 0
    assert command("train", "glyphs-few", "--resume", "--out", run, "-s", "train.steps=6") == 0
    assert written(run)["steps"] == 6
    assert train_recipe(run, resume=True).result.steps == 6
    assert command("train", "--resume") == 2
    assert command("train", "--resume", run, "--out", str(run) + "2") == 2
    assert command("train", "omniglot-matching", "--resume", "--out", run) == 1
    assert command("train", "glyphs-few", "--resume", "--out", str(run) + "2") == 1


def test_settings_that_nothing_was_trained_with_are_not_written(run):
    # glyphs-few has no warm-up
    before = (run / "recipe.json").read_bytes()
    for setting in ("outer_lr=0.1", "clip_norm=1", "tasks_at_once=1"):
        with pytest.raises(ConfigError, match="is finished"):
            train_recipe(None, setting, out=run, resume=True)
    with pytest.raises(ConfigError, match="has done 4 steps"):
        train_recipe(None, "train.steps=3", out=run, resume=True)
    with pytest.raises(CheckpointError, match=r"train\.warmup: 0 in the run, 7 now"):
        train_recipe(None, ["train.warmup=7", "train.steps=6"], out=run, resume=True)
    assert (run / "recipe.json").read_bytes() == before
    train_recipe(None, ["outer_lr=0.1", "train.steps=6"], out=run, resume=True)
    assert written(run)["outer_lr"] == 0.1


def test_a_run_that_patience_ended_goes_on_with_more_of_it(tmp_path):
    out = train_recipe(
        "glyphs-few", [*TINY, "steps=40", "patience=1", "outer_lr=1e-9"], out=tmp_path / "run"
    ).folder
    done = load_run(out).meta["training"]["steps"]
    assert done < 40
    with pytest.raises(ConfigError, match="patience"):
        train_recipe(None, "clip_norm=1", out=out, resume=True)
    more = train_recipe(None, ["patience=3"], out=out, resume=True)
    assert more.result.steps > done


class StopsAt(Watcher):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step, figures):
        if step == self.step:
            raise KeyboardInterrupt


def test_a_watcher_that_interrupts_leaves_a_run_that_goes_on(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match=r"up to step 2 is kept\. Go on with") as stop:
        train_recipe("glyphs-few", TINY, out=out, watchers=StopsAt(3))
    assert stop.value.step == 2
    assert not (out / LOCK).exists()
    whole = train_recipe("glyphs-few", TINY, out=tmp_path / "whole").load().learner.state_dict()
    parts = train_recipe(out, resume=True).load().learner.state_dict()
    assert all(bool((whole[name] == parts[name]).all()) for name in whole)


class Looks(Watcher):
    """Does what others do while a run is trained."""

    def __init__(self, out: Path) -> None:
        self.out, self.scores, self.refused = out, [], 0

    def on_checkpoint(self, step, path):
        self.scores.append(judge(self.out, "digits", n_way=2, n_query=2, episodes=2).report.mean)
        for resume in (True, False):
            with pytest.raises(CheckpointError, match="is being trained by process"):
                train_recipe("glyphs-few", TINY, out=self.out, resume=resume)
            self.refused += 1


def test_a_run_is_trained_by_one_and_judged_by_all(run):
    looks = Looks(run)
    train_recipe(None, ["train.steps=8"], out=run, resume=True, watchers=looks)
    assert len(looks.scores) == 2
    assert looks.refused == 4
    with locked(run):
        assert command("train", "--resume", run) == 1
        assert load_run(run).recipe.train.steps == 8


def test_wrong_arguments_are_named(tmp_path):
    recipe = override(get_recipe("glyphs-few"), TINY)
    wrong = [
        {"settings": None},
        {"settings": [3]},
        {"settings": 3},
        {"watchers": 5},
        {"watchers": [5]},
        {"seed": "a"},
        {"out": ""},
        {"out": 3},
        {"data": 3},
        {"data": ""},
        {"data": (1, 2, 3)},
        {"data": ([[1.0, 2.0]], ["a"])},
        {"device": 3},
        {"resume": "yes"},
    ]
    for given in wrong:
        if "seed" in given:
            given = {"settings": [f"seed={given['seed']}"]}
        with pytest.raises((ConfigError, ValueError)) as raised:
            train_recipe(recipe, **({"out": tmp_path / "run"} | given))
        assert type(raised.value).__module__.startswith("quickstudy."), (given, raised.value)
    for name in (None, 3, ["glyphs-few"], ""):
        with pytest.raises(ConfigError):
            get_recipe(name)
    for settings in (["train=3", "train.steps=3"], ["train.steps=3", "data=[1]", "train=3"], ["="]):
        with pytest.raises(ConfigError):
            override(recipe, settings)
    assert not list(tmp_path.iterdir())


TOO_MUCH = ["channels=1000000000", "image_size=1000000000", "kind=mlp channels=100000", "steps=-1"]
TOO_MUCH += ["seed=-1", "seed=1e400", "seed=99999999999999999999999", "outer_lr=inf"]
TOO_MUCH += ["train.n_query=0", "in_features=1000000000000"]


@pytest.mark.parametrize("settings", TOO_MUCH)
def test_what_no_machine_could_do_is_refused_before_it_is_tried(settings, tmp_path):
    words = [word for one in settings.split() for word in ("-s", one)]
    code = command("train", "glyphs-few", "--out", tmp_path / "run", *words)
    assert code == 2
    assert not (tmp_path / "run").exists()


def test_a_run_is_shown_in_a_line(run):
    assert len(repr(load_run(run))) < 200 + len(str(run))

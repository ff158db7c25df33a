"""A learner in a file of the user's own goes through every command; other files do not run."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import quickstudy.recipes.kinds
from quickstudy.cli import main
from quickstudy.core import CheckpointError, ConfigError
from quickstudy.recipes import LearnerConfig, Recipe, learner_config
from quickstudy.runs import load_run, train_recipe
from quickstudy.runs.code import VARIABLE

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_learner.py"
DIGITS = ["data.name=digits", "data.train=all", "data.validation=all", "rotations=false"]
TINY = [*DIGITS, "steps=3", "train.n_way=5", "every=3", "validation.episodes=5"]
TINY += ["channels=8", "watch_episodes=0"]


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)


def test_train_evaluate_compare_and_check_take_it(tmp_path, capsys):
    own = tmp_path / "own_learner.py"
    shutil.copy(EXAMPLE, own)
    settings = [word for setting in TINY for word in ("-s", setting)]
    out = tmp_path / "run"
    assert run("train", f"{own}:RECIPE", "--out", out, *settings) == 0
    assert run("train", f"{own}:RECIPE", "--out", out, "--resume") == 0  # nothing is left to do
    capsys.readouterr()
    assert run("evaluate", out, "--data", "digits", "--episodes", 5, "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["mean"] > 0.2
    words = ("--data", "digits", "--episodes", 5, "--workers", 1, "--baseline", "neighbour")
    assert run("compare", out, *words, "--json") == 0
    approaches = json.loads(capsys.readouterr().out)["approaches"]
    assert [row["family"] for row in approaches] == ["metric", "baseline"]
    run("check", out, "--data", "digits", "--episodes", 20, "--json")
    document = json.loads(capsys.readouterr().out)
    # digits has no part that the run was not trained on; nothing else is wrong with it
    assert {f["check"] for f in document["findings"] if f["severity"] == "fault"} <= {
        "classes-seen"
    }
    assert run("check", f"{own}:RIDGE", "--data", "digits") == 2
    assert "has no 'RIDGE'" in capsys.readouterr().err


def test_a_run_from_elsewhere_runs_no_code(tmp_path, monkeypatch):
    own = tmp_path / "own_learner.py"
    shutil.copy(EXAMPLE, own)
    train_recipe(f"{own}:RECIPE", TINY, out=tmp_path / "run")
    # somebody else's machine, where nobody trained from this file
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    own.write_text("raise RuntimeError('it was run')")
    for name in [name for name in sys.modules if "quickstudy_own" in name]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(CheckpointError, match=f"{VARIABLE}="):
        load_run(tmp_path / "run")
    monkeypatch.setenv(VARIABLE, str(EXAMPLE))
    assert load_run(tmp_path / "run").recipe.name == "own-ridge"


def test_a_learner_without_a_file_is_given_to_load_run(tmp_path):
    space: dict = {}
    code = (
        "from typing import Literal\n"
        "from quickstudy.learners import PrototypicalNetwork\n"
        "from quickstudy.recipes import LearnerConfig\n"
        "class Mine(LearnerConfig):\n"
        "    kind: Literal['mine'] = 'mine'\n"
        "    def build(self, net, *, n_way):\n"
        "        return PrototypicalNetwork(net)\n"
    )
    exec(code, space)
    mine: type[LearnerConfig] = space["Mine"]
    base = learner_config({"kind": "protonet"})
    assert base.kind == "protonet"
    from quickstudy.recipes import get_recipe, override

    recipe = override(
        get_recipe("glyphs-few").model_copy(update={"learner": mine()}),
        [*DIGITS[:3], "classes=null", "steps=2", "train.n_way=5", "channels=8", "every=2"],
    )
    assert isinstance(recipe, Recipe)
    trained = train_recipe(recipe, out=tmp_path / "run")
    assert trained.load().recipe.learner.kind == "mine"
    assert load_run(tmp_path / "run", learners=[mine]).recipe.learner.kind == "mine"
    with pytest.raises(CheckpointError, match="there is no learner 'mine'"):
        load_run(tmp_path / "run")


def test_an_installed_package_adds_a_kind(monkeypatch):
    point = EntryPoint(
        "matching-too", "quickstudy.recipes.metric:MatchingConfig", "quickstudy.learners"
    )
    monkeypatch.setattr(quickstudy.recipes.kinds, "entry_points", lambda group: [point])
    assert "matching-too" in quickstudy.recipes.kinds.known_learners()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{}", "Name the recipe in it"),
        ("{}:NOTHING", "has no 'NOTHING'"),
        ("{}:RidgeConfig", "must be a quickstudy.recipes.Recipe"),
        ("none.py:RECIPE", "there is no file none.py"),
        ("no.such.module:RECIPE", "cannot be imported"),
    ],
)
def test_what_is_no_recipe_is_refused(target, says):
    with pytest.raises(ConfigError, match=says):
        train_recipe(target.format(EXAMPLE))


OWN = """
from typing import Literal
from quickstudy.learners import PrototypicalNetwork
from quickstudy.recipes import ImageData, LearnerConfig, EncoderConfig, Recipe
from quickstudy.training import TrainConfig, ValidationConfig

class Config(LearnerConfig):
    kind: Literal["own"] {default}
    def build(self, net, {arguments}):
        {body}

RECIPE = Recipe(
    name="own", data=ImageData(name="digits", train="all", validation="all"),
    encoder=EncoderConfig(channels=8), learner=Config(), train=TrainConfig(
        steps=2, n_way=5,
        validation=ValidationConfig(n_way=5, episodes=4, every=2, watch_episodes=0)))
"""
GOOD = {"default": '= "own"', "arguments": "*, n_way", "body": "return PrototypicalNetwork(net)"}


def own_file(path: Path, text: str = OWN, **changes: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(**(GOOD | changes)))
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"body": "return 42"}, "Config.build returned int; it must return"),
        ({"body": "raise KeyError('oops')"}, "Config.build failed .*KeyError.*own.py line 10"),
        (
            {"arguments": "*, ways"},
            "Config.build failed when .*unexpected keyword argument 'n_way'",
        ),
        ({"default": ""}, "is missing|gives its kind no name"),
        ({"body": "return ("}, "SyntaxError: .*own.py line 10"),
    ],
)
def test_faults_of_own_code_are_said_to_be_theirs(tmp_path, changes, says):
    own = own_file(tmp_path / "own.py", **changes)
    with pytest.raises(ConfigError, match=says):
        train_recipe(f"{own}:RECIPE", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_name_of_a_learner_of_ours_is_taken(tmp_path):
    text = OWN.replace('"own"] {default}', '"maml"] = "maml"')
    own = own_file(tmp_path / "own.py", text)
    with pytest.raises(ConfigError, match="'maml', and there is a learner of that name already"):
        train_recipe(f"{own}:RECIPE", out=tmp_path / "run")


def test_another_file_of_the_same_name_is_never_taken(tmp_path, monkeypatch):
    first, second = (own_file(tmp_path / name / "own.py") for name in ("a", "b"))
    for own in (first, second):
        train_recipe(f"{own}:RECIPE", out=tmp_path / own.parent.name / "run")
    second.rename(tmp_path / "own.py")
    with pytest.raises(CheckpointError, match=f"not there any more.*{VARIABLE}="):
        load_run(tmp_path / "b" / "run")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own.py"))
    config = type(load_run(tmp_path / "b" / "run").recipe.learner)
    assert inspect.getfile(config) == str(tmp_path / "own.py")


def test_a_script_that_loads_its_run_is_not_run_again(tmp_path):
    script = own_file(tmp_path / "own.py")
    more = (
        "from quickstudy.runs import load_run, train_recipe\n"
        "print('started')\n"
        "train_recipe(RECIPE, out='run')\n"
        "assert type(load_run('run').recipe.learner) is Config\n"
    )
    script.write_text(script.read_text() + more)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "own.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("started") == 1

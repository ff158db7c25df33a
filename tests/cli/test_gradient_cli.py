"""Gradient learners on the command line: refusals before anything is written, hints that work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import run, shapes_pool

import quickstudy.recipes.data
import quickstudy.runs.judging
import quickstudy.runs.train
from quickstudy.core import CheckpointError
from quickstudy.recipes import get_recipe, override
from quickstudy.runs.start import check_start

SMALL = [
    *("-s", "train.n_way=5", "-s", "train.n_query=2", "-s", "encoder.channels=8"),
    *("-s", "validation.n_way=5", "-s", "validation.n_query=3", "-s", "validation.episodes=4"),
    *("-s", "steps=2", "-s", "validation.every=2"),
]


@pytest.fixture(autouse=True)
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstudy.recipes.data, "load_pool", shapes_pool)
    monkeypatch.setattr(quickstudy.runs.judging, "load_pool", shapes_pool)


def train(recipe: str, out: Path, *settings: str) -> int:
    words = [w for s in settings for w in ("-s", s)]
    return run("train", recipe, "--out", str(out), "--device", "cpu", *SMALL, *words)


@pytest.mark.parametrize(
    ("recipe", "setting", "message", "says_nothing_of"),
    [
        ("omniglot-maml", "roles=every", "MAML adapts the network to each support", "norm="),
        ("omniglot-anil", "encoder.norm=batch", "norm='support'", "roles"),
        ("omniglot-maml", "precision=bfloat16", "Set precision='float32'", "roles"),
        ("omniglot-start", "encoder.norm=support", "norm='group' or 'batch'", "bfloat16"),
    ],
)
def test_a_refusal_comes_before_data_and_folder(
    recipe: str,
    setting: str,
    message: str,
    says_nothing_of: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(_: object) -> None:
        raise AssertionError("data were read")

    monkeypatch.setattr(quickstudy.runs.train, "sources", never)
    # the harder case, on any processor: one that has something to note about bfloat16
    monkeypatch.setattr(quickstudy.runs.train, "computes_bfloat16", lambda _: False)
    assert train(recipe, tmp_path / "run", setting) == 2
    said = capsys.readouterr().err
    assert message in said
    assert says_nothing_of not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "learner.optimiser=adam",
            "setting learner: optimiser is for reptile, not for maml.",
        ),
        ("inner_lr=-1", "setting learner.inner_lr: Input should be greater than 0; got -1."),
        ("train.n_way=abc", "setting train.n_way: Input should be a valid integer"),
        ("train.n_way=0", "setting train: n_way must be a whole number"),
        ("learner.kind=mammal", "setting learner.kind: there is no learner 'mammal'"),
    ],
)
def test_a_setting_that_cannot_be_is_named_as_it_was_written(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("omniglot-maml", tmp_path / "run", setting) == 2
    said = capsys.readouterr().err
    assert message in said
    assert not any(word in said for word in ("Value error", "{", "..", "learner.maml"))


@pytest.fixture(scope="module")
def inductive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose network has no batch norm."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstudy.recipes.data, "load_pool", shapes_pool)
        assert train("omniglot-maml", out, "start=null", "encoder.norm=group") == 0
    return out


def test_the_next_command_is_that_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("omniglot-maml", tmp_path / "run", "start=null", "validation.k_shot=[1,2]") == 0
    hint = "--data omniglot --rotations --n-way 5 --k-shot 1-2"
    assert f"next: quickstudy evaluate {tmp_path / 'run'} {hint}" in capsys.readouterr().out


def test_transduction_without_batch_norm_is_said_to_change_nothing(
    inductive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(inductive), "--data", "shapes", "--n-query", "3", "--episodes", "4"]
    for extra in ([], ["--transductive"]):
        assert run(*words, "--json", *extra) == 0
        printed = capsys.readouterr()
        assert ("--transductive changes nothing" in printed.err) is bool(extra)
        assert "transductive_gain" not in json.loads(printed.out)
    assert run(*words, "--inner-steps", "-1") == 2
    said = capsys.readouterr().err
    assert "'--inner-steps'" in said
    assert "eval_steps" not in said


def test_transduction_is_scored_with_variable_way_and_shot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("omniglot-maml", tmp_path / "run", "start=null") == 0
    capsys.readouterr()
    words = ["--n-way", "2-5", "--k-shot", "1-3", "--n-query", "3", "--episodes", "6", "--json"]
    assert run("evaluate", str(tmp_path / "run"), "--data", "shapes", "--transductive", *words) == 0
    document = json.loads(capsys.readouterr().out)
    gain = document["transductive"]["accuracy"]["mean"] - document["accuracy"]["mean"]
    assert document["transductive_gain"]["mean"] == pytest.approx(gain)


def test_a_start_is_what_its_folder_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("omniglot-protonet", tmp_path / "omniglot-start", "precision=float32") == 0
    capsys.readouterr()
    assert train("omniglot-maml", tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "data.split_file is 'vinyals', not 'random'" in said
    assert "name is 'omniglot-protonet', not 'omniglot-start'" in said
    assert "or set start=null" in said
    assert not (tmp_path / "run").exists()
    # a start that would not fit is not trained first
    assert train("omniglot-maml", tmp_path / "elsewhere" / "run") == 1
    assert "encoder.channels is 64, not 8" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_a_start_may_differ_in_its_norm_alone() -> None:
    start, maml = get_recipe("omniglot-start"), get_recipe("omniglot-maml")
    check_start(maml, start, Path("runs/omniglot-start"))
    for setting in ("channels=32", "downsample=stride", "split_file=vinyals", "data.train=all"):
        with pytest.raises(CheckpointError, match=setting.split("=")[0] + " is .*, not "):
            check_start(override(maml, [setting]), start, Path("runs/omniglot-start"))

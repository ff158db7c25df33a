"""The command line: one JSON document, exit codes, errors that help."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import quickstudy.recipes.data
import quickstudy.runs.judging
from quickstudy.cli import main
from quickstudy.core import ConfigError
from quickstudy.tasks import Pool

FAST = [
    *("-s", "steps=6", "-s", "train.n_way=5", "-s", "train.n_query=3", "-s", "precision=float32"),
    *("-s", "channels=8", "-s", "checkpoint_every=2", "-s", "validation.every=3"),
    *("-s", "validation.n_way=5", "-s", "validation.n_query=3", "-s", "validation.episodes=4"),
]


def shapes_pool(name: str = "shapes", split: str = "train", **_: Any) -> Pool:
    """Return 12 classes of noisy bars and blobs, 10 images each."""
    if name == "nowhere":
        raise ConfigError("unknown data set 'nowhere'. Did you mean 'omniglot'?")
    generator = torch.Generator().manual_seed(len(split))
    x = torch.zeros(120, 1, 28, 28)
    for row in range(120):
        c = row // 10
        x[row, 0, 2 * c : 2 * c + 3] = 200
        x[row, 0, :, c : c + 2] = 120
    x += 40 * torch.rand(x.shape, generator=generator)
    y = torch.arange(12).repeat_interleave(10)
    return Pool(x.to(torch.uint8), y, tuple(f"class {c}" for c in range(12)), name, split)


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstudy.recipes.data, "load_pool", shapes_pool)
    monkeypatch.setattr(quickstudy.runs.judging, "load_pool", shapes_pool)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert isinstance(stop.value.code, int)
    return stop.value.code


def trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "run"
    assert run("train", "omniglot-protonet", "--out", str(out), "--device", "cpu", *FAST) == 0
    capsys.readouterr()
    return out


def test_train_prints_one_json_document(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "omniglot-protonet", "--out", str(out), "--json", "--device", "cpu"]
    assert run(*words, *FAST) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["command"] == "train"
    assert document["run"] == str(out)
    assert document["steps"] == 6
    assert document["stopped"] == "done"
    assert 0 <= document["validation"]["mean"] <= 1
    assert {p.name for p in out.iterdir()} == {
        "checkpoint.safetensors",
        "curve.jsonl",
        "log.jsonl",
        "model.safetensors",
        "recipe.json",
    }


def test_evaluate_keeps_the_json_contract(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, capsys)
    words = ["evaluate", str(out), "--data", "shapes", "--n-way", "5", "--k-shot", "1"]
    assert run(*words, "--n-query", "4", "--episodes", "20", "--floor", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "evaluate"
    assert document["run"] == str(out)
    assert document["data"] == "shapes"
    protocol = document["protocol"]
    assert {
        k: protocol[k] for k in ("split", "n_way", "k_shot", "n_query", "episodes", "seed")
    } == {
        "split": "test",
        "n_way": 5,
        "k_shot": 1,
        "n_query": 4,
        "episodes": 20,
        "seed": 0,
    }
    assert protocol["transductive"] is False
    assert len(protocol["episodes_sha256"]) == 64
    assert 0.2 < document["accuracy"]["mean"] <= 1  # chance is 0.2
    assert document["accuracy"]["ci95"] >= 0
    assert document["seconds"] > 0
    assert document["floor"]["protocol"]["episodes_sha256"] == protocol["episodes_sha256"]


def test_variable_way_and_shot(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, capsys)
    words = ["--n-way", "3-6", "--k-shot", "1-4", "--n-query", "3", "--episodes", "10", "--json"]
    assert run("evaluate", str(out), "--data", "shapes", *words) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["n_way"] == [3, 6]


def test_a_folder_of_pictures_dark_on_light_is_inverted(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, capsys)
    pictures = tmp_path / "pictures"
    pool = shapes_pool(split="mine")
    for row, label in enumerate(pool.y.tolist()):
        folder = pictures / pool.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - pool.x[row, 0].numpy()).resize((60, 60)).save(folder / f"{row}.png")
    words = ["evaluate", str(out), "--data", str(pictures), "--n-query", "3", "--episodes", "5"]
    assert run(*words) == 0
    printed = capsys.readouterr()
    assert "inverted. If these are no drawings, take --invert no." in printed.err
    assert "12 classes" in printed.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "omniglot-protonett"], 2, "Did you mean 'omniglot-protonet'"),
        (["train", "omniglot-protonet", "-s", "stepps=3"], 2, "Did you mean 'steps'"),
        (["train", "omniglot-protonet", "-s", "steps=-3"], 2, "greater than or equal to 1"),
        (["train", "omniglot-protonet", "-s", "steps"], 2, "key=value"),
        (["train", "omniglot-protonet", "-s", "n_way=5"], 2, "ambiguous"),
        (["train"], 2, "--list"),
        (["evaluate", "nothing-here", "--data", "omniglot"], 1, "holds no run"),
        (["data", "get", "omniglott"], 2, "Did you mean 'omniglot'"),
    ],
)
def test_misuse_is_answered_in_one_sentence(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "shapes", "--n-way", "13"], "12 class(es); 13-way"),
        (
            ["--data", "shapes", "--n-query", "15"],
            "has 10 examples; --k-shot 1 + --n-query 15 needs 16",
        ),
        (["--data", "shapes", "--n-way", "five"], "a whole number or a range"),
        (["--data", "shapes", "--invert", "maybe"], "--invert must be"),
        (["--data", "shapes", "--groups", "--n-query", "3"], "no groups"),
        (["--data", "nowhere"], "Did you mean 'omniglot'"),
        (["--data", "./no-such-folder"], "no-such-folder"),
        (["--data", "shapes", "--episodes", "0", "--n-query", "3"], "at least 1"),
        (["--data", "shapes", "--device", "abacus", "--n-query", "3"], "abacus"),
    ],
)
def test_evaluate_refuses_what_cannot_be(
    small_data: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    out = trained(tmp_path, capsys)
    assert run("evaluate", str(out), *words) in (1, 2)
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err


def test_a_second_run_in_the_same_folder_is_refused_and_resume_needs_the_same_settings(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, capsys)
    assert run("train", "omniglot-protonet", "--out", str(out), *FAST) == 1
    assert "already holds a run" in capsys.readouterr().err
    changed = [*FAST, "-s", "warmup=7"]
    assert run("train", "omniglot-protonet", "--out", str(out), "--resume", *changed) == 1
    assert "train.warmup: 50 in the run, 7 now" in capsys.readouterr().err
    assert json.loads((out / "recipe.json").read_text())["recipe"]["train"]["warmup"] == 50
    # with nothing left to train, the settings would say of the weights what is not true
    softer = [*FAST, "-s", "outer_lr=0.001"]
    assert run("train", "omniglot-protonet", "--out", str(out), "--resume", *softer) == 2
    assert "is finished: no step is left to train" in capsys.readouterr().err
    assert json.loads((out / "recipe.json").read_text())["recipe"]["train"]["outer_lr"] == 0.003
    # what a diverged run may need to get on is accepted, said, and written down
    softer += ["-s", "train.steps=8"]
    assert run("train", "omniglot-protonet", "--out", str(out), "--resume", *softer) == 0
    assert "train.outer_lr: 0.003 in the run, 0.001 now" in capsys.readouterr().err
    assert json.loads((out / "recipe.json").read_text())["recipe"]["train"]["outer_lr"] == 0.001
    assert run("train", "omniglot-matching", "--out", str(out), "--resume") == 1
    assert "not of 'omniglot-matching'" in capsys.readouterr().err


def test_damaged_runs_are_named(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, capsys)
    model = out / "model.safetensors"
    model.write_bytes(model.read_bytes()[:100])
    assert run("evaluate", str(out), "--data", "shapes") == 1
    assert "model.safetensors is damaged" in capsys.readouterr().err
    (out / "recipe.json").write_text("{")
    assert run("evaluate", str(out), "--data", "shapes") == 1
    assert "recipe.json is damaged" in capsys.readouterr().err
    model.unlink()
    assert run("evaluate", str(out), "--data", "shapes") == 1
    assert "not finished" in capsys.readouterr().err


def test_resume_needs_a_run(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "mistyped"
    assert run("train", "omniglot-protonet", "--out", str(nowhere), "--resume") == 1
    assert "there is no run to resume" in capsys.readouterr().err
    assert run("train", "--resume", str(nowhere)) == 2
    said = capsys.readouterr().err
    assert "is no folder with a run to resume" in said
    assert "there is no recipe" in said
    assert not nowhere.exists()
    out = trained(tmp_path, capsys)
    (out / "recipe.json").unlink()
    assert run("train", "omniglot-protonet", "--out", str(out), "--resume") == 1
    assert "recipe.json is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "no-such-recipe"], 2, "there is no recipe"),
        (["train", "--no-such-option"], 2, "No such option"),
        (["evaluate", "x", "--data", "mnist", "--episodes", "abc"], 2, "--episodes"),
        (["evaluate", "x", "--data", "mnist"], 1, "holds no run"),
        (["evaluate", "x", "--data", ""], 2, "--data is empty"),
        (["data", "check", "omniglo"], 2, "Did you mean 'omniglot'"),
        (["data", "frobnicate"], 2, "No such command"),
        (["train", "omniglot-protonet", "-s", "train.n_way=0"], 2, "train: n_way must be"),
        (["train", "omniglot-protonet", "-s", "n_way=5"], 2, "Write train.n_way=... or"),
        (["train", "omniglot-protonet", "-s", "lr=5"], 2, "outer_lr"),
    ],
)
def test_errors_are_one_json_document(
    words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "--json") == code
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert set(error) == {"type", "message"}
    assert says in error["message"]
    assert printed.err.strip() == f"error: {error['message']}"
    assert run(*words) == code
    assert capsys.readouterr().out == ""


def test_one_episode_has_no_interval(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, capsys)
    words = ["evaluate", str(out), "--data", "shapes", "--n-way", "3", "--episodes", "1"]
    words += ["--n-query", "3", "--floor"]
    assert run(*words, "--json") == 0
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert document["accuracy"]["ci95"] is None
    assert document["paired"]["ci95"] is None
    assert run(*words) == 0
    said = capsys.readouterr().out
    assert "one episode has no interval" in said
    assert "nan" not in said


def test_evaluate_says_when_the_classes_were_trained_on(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, capsys)
    words = ["evaluate", str(out), "--n-way", "3", "--episodes", "4", "--n-query", "3", "--json"]
    for split, seen in (("train", True), ("val", True), ("test", False)):
        assert run(*words, "--data", "omniglot", "--split", split) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["protocol"]["trained_on"] is seen
        assert ("says nothing about classes" in printed.err) is seen
    for name in ("a", "b", "c"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / "pictures" / name / "1.png")
    assert run(*words, "--data", str(tmp_path / "pictures"), "--split", "train") == 2
    assert "names no parts, so it has no 'train'" in capsys.readouterr().err


def test_a_broken_output_is_said_plainly(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "quickstudy", "train", "--list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to standard output: No space left on device.\n"


def test_ctrl_c_while_starting_shows_no_traceback(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for wait in (0.15, 0.6, 1.2):
        child = subprocess.Popen(
            [sys.executable, "-m", "quickstudy", "demo", "--out", str(tmp_path / "r.html")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # as a terminal starts it: a shell starts what runs in the background without Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        time.sleep(wait)
        child.send_signal(signal.SIGINT)
        _, complaint = child.communicate()
        # Python itself may be starting, with a traceback and a code of its own; none is of ours
        assert child.returncode in (-signal.SIGINT, 130) or "init_import_site" in complaint
        assert "Traceback" not in complaint or f"{os.sep}quickstudy{os.sep}" not in complaint


def test_ctrl_c_in_a_command_says_what_is_left(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "omniglot-protonet", "--out", str(out), "--device", "cpu", *FAST]

    def interrupt() -> None:
        while not (out / "checkpoint.safetensors").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert run(*words, "-s", "steps=100000", "-s", "validation.every=100000", "--json") == 130
    printed = capsys.readouterr()
    assert "nothing is lost. Go on with: quickstudy train" in printed.err
    assert json.loads(printed.out)["error"]["type"] == "KeyboardInterrupt"
    assert (out / "checkpoint.safetensors").exists()


def test_ctrl_c_while_evaluating_is_said(
    small_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(tmp_path, capsys)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstudy.runs.judging, "evaluate", stop)
        assert run("evaluate", str(out), "--data", "shapes") == 130
    assert capsys.readouterr().err == "stopped.\n"


def test_the_package_makes_waiting_threads_sleep() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP", "OMP_WAIT"))}
    code = (
        "import os, quickstudy, sys;print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    for extra, says in (({}, "1000 False"), ({"OMP_WAIT_POLICY": "active"}, "None False")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment | extra,
            check=True,
        )
        assert done.stdout.strip() == says


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "no-such-recipe", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["demo"], ["train"], ["evaluate"], ["data", "list"], ["data", "get"]):
        assert run(*words, "--help") == 0
        assert "Example: quickstudy " + " ".join(words) in capsys.readouterr().out


def test_data_list_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "list", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    names = [entry["name"] for entry in document["data"]]
    assert {"omniglot", "miniimagenet", "cifar-fs", "quickdraw", "digits", "glyphs"} <= set(names)
    assert all(entry["licence"] and entry["source"] for entry in document["data"])


def test_the_installed_command_and_python_m_agree(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for command in (["quickstudy"], [sys.executable, "-m", "quickstudy"]):
        if command == ["quickstudy"]:
            command = [str(Path(sys.executable).with_name("quickstudy"))]
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.startswith("quickstudy ")


@pytest.mark.skipif(
    not os.environ.get("QUICKSTUDY_DATA"), reason="QUICKSTUDY_DATA names no folder of real data"
)
def test_train_and_evaluate_on_real_omniglot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    few = ["-s", "steps=60", "-s", "validation.every=60", "-s", "validation.episodes=50"]
    assert run("train", "omniglot-protonet", "--out", str(out), "--device", "cpu", *few) == 0
    capsys.readouterr()
    words = ["--data", "omniglot", "--n-way", "5", "--k-shot", "1", "--episodes", "100"]
    assert run("evaluate", str(out), *words, "--floor", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    # a minute's training is not much, but pixels are far behind already
    assert document["accuracy"]["mean"] > document["floor"]["accuracy"]["mean"] + 0.1
    assert np.isfinite(document["calibration_error"])


def test_published_episodes_are_scored_as_they_are_listed(
    small_data: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import quickstudy.tasks.datasets

    monkeypatch.setattr(quickstudy.tasks.datasets, "load_pool", shapes_pool)
    folder, listed = tmp_path / "run", tmp_path / "tasks.npz"
    assert run("train", "omniglot-protonet", "--out", str(folder), *FAST) == 0
    words = ("--data", "shapes", "--n-way", "5", "--n-query", "3", "--episodes", "8")
    assert run("episodes", "write", *words, "--seed", "4", "--out", str(listed), "--json") == 0
    written = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert written["episodes"] == 8
    assert run("episodes", "verify", str(listed), "--json") == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["faults"] == []
    assert checked["sha256"] == written["sha256"]
    scores = []
    for more in ((*words, "--seed", "4"), ("--data", "shapes", "--tasks", str(listed))):
        assert run("evaluate", str(folder), *more, "--json") == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    digests = {s["protocol"]["episodes_sha256"] for s in scores}
    assert len(digests) == 1
    assert scores[1]["protocol"]["tasks_sha256"] == written["sha256"]

    def others(name: str = "shapes", split: str = "train", **_: Any) -> Pool:
        pool = shapes_pool(name, split)
        return pool.with_x(255 - pool.x)

    monkeypatch.setattr(quickstudy.tasks.datasets, "load_pool", others)
    assert run("episodes", "verify", str(listed)) == 1
    assert "images are others" in capsys.readouterr().err
    assert run("episodes", "verify", str(listed), "--alone") == 0
    conflict = ("--data", "shapes", "--tasks", str(listed), "--n-way", "5", "--seed", "4")
    assert run("evaluate", str(folder), *conflict) == 2
    assert "--n-way, --seed would ask for others" in capsys.readouterr().err


def test_a_list_of_a_folder_is_scored_by_the_command_that_is_printed(
    small_data: None, tmp_path: Path, capsys: Any
) -> None:
    pictures = tmp_path / "my pictures"
    draw = np.random.default_rng(0)
    for name in "abcdef":
        (pictures / name).mkdir(parents=True)
        for i in range(6):
            pixels = draw.integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(pictures / name / f"{i}.png")
    folder, listed = tmp_path / "run", tmp_path / "my tasks.npz"
    assert run("train", "omniglot-protonet", "--out", str(folder), *FAST) == 0
    capsys.readouterr()
    words = ("--data", str(pictures), "--n-way", "5", "--n-query", "3", "--episodes", "8")
    assert run("episodes", "write", *words, "--out", str(listed)) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    program, *rest = shlex.split(line.removeprefix("next: "))
    assert program == "quickstudy"
    assert run(*[str(folder) if word == "RUN" else word for word in rest]) == 0
    assert "6 classes" in capsys.readouterr().out


def test_rows_that_are_no_whole_numbers_are_no_list(tmp_path: Path, capsys: Any) -> None:
    listed = tmp_path / "tasks.npz"
    words = ("--data", "digits", "--episodes", "3", "--out", str(listed))
    assert run("episodes", "write", *words) == 0
    with np.load(listed, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["support"] = arrays["support"] + 0.5
    np.savez(listed, **arrays)
    assert run("episodes", "verify", str(listed)) == 1
    assert "support holds float64, not whole numbers" in capsys.readouterr().err

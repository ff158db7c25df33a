"""``quickstudy compare``: the same scores however they are computed, and a page."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import quickstudy.recipes.build
from quickstudy.cli import main
from quickstudy.comparing.contestants import contestants, seed_groups
from quickstudy.comparing.tasklists import available_domains, role_of, task_lists
from quickstudy.core import ConfigError, EpisodeSpec, TaskError
from quickstudy.evaluation import evaluate
from quickstudy.recipes import ImageData, Recipe, parse_recipe
from quickstudy.runs.folder import manifest, read_facts
from quickstudy.storage.tensors import load_tensors, save_tensors
from quickstudy.tasks import PoolSource
from quickstudy.tasks.datasets import load_pool
from quickstudy.testing import ConstantLearner, OracleLearner, PositionLearner
from quickstudy.training import MODEL, TrainConfig, ValidationConfig
from quickstudy.training.fingerprint import fingerprint

FAST = [
    *("-s", "steps=4", "-s", "train.n_way=5", "-s", "train.n_query=3", "-s", "precision=float32"),
    *("-s", "channels=8", "-s", "checkpoint_every=2", "-s", "validation.every=2"),
    *("-s", "validation.n_way=5", "-s", "validation.n_query=3", "-s", "validation.episodes=4"),
]
QUICK = ["--n-query", "4", "--episodes", "12", "--baseline", "pixels", "--baseline", "fine-tuned"]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three small runs on glyphs: a metric learner with two seeds, a gradient learner."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, more in (
        ("first", ["glyphs-protonet"]),
        ("second", ["glyphs-protonet", "-s", "seed=1"]),
        ("third", ["omniglot-fomaml-5way", "-s", "start=null", "-s", "data.name=glyphs"]),
    ):
        if name == "third":
            more += ["-s", "split_file=null", "-s", "inner_steps=1", "-s", "tasks_per_step=1"]
        made.append(folder / name)
        assert run("train", *more, "--out", made[-1], "--device", "cpu", *FAST) == 0
    return made


def test_the_contract_and_the_page(runs, tmp_path, capsys):
    out = tmp_path / "compared"
    words = ["compare", *runs, "--data", "glyphs", "--data", "digits", *QUICK, "--k-shot", "1"]
    capsys.readouterr()
    words += ["--k-shot", "2", "--workers", "1", "--out", out, "--json"]
    assert run(*words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "compare"
    # 5 learners on glyphs (trained, novel) and digits, each at two shots
    assert len(document["results"]) == 5 * 6
    roles = {r["tasks"]: r["role"] for r in document["results"]}
    assert roles["glyphs trained classes, 5-way 1-shot"] == "trained distribution"
    assert roles["glyphs novel classes, 5-way 2-shot"] == "novel classes"
    assert roles["digits test, 5-way 1-shot"] == "novel domain"
    assert len(document["paired"]) == 6 * 10
    assert all(d["p_holm"] >= d["p"] for d in document["paired"])
    rows = {a["learner"]: a for a in document["approaches"]}
    assert rows["third"]["cost"]["needs_gradients"]
    assert not rows["first"]["cost"]["needs_gradients"]
    assert rows["third"]["family"] == "gradient"
    assert {g["group"] for g in document["over_seeds"]} == {"glyphs-protonet"}
    assert run("check", out / "comparison.json") == 0
    assert capsys.readouterr().out.count("passed: interval") == 5 * 6
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "More examples" in page
    assert "The hardest tasks" in page
    assert page.count("data:image/png") > 20
    text = (out / "comparison.md").read_text(encoding="utf-8")
    assert "| first | metric | no |" in text


def test_a_result_is_what_evaluate_gives(runs, tmp_path, capsys):
    out = tmp_path / "compared"
    words = ["--n-query", "4", "--episodes", "12"]
    capsys.readouterr()
    assert (
        run(
            *("compare", runs[0], "--data", "digits", *words, "--out", out, "--json"),
            *("--workers", "1", "--baseline", "none"),
        )
        == 0
    )
    compared = json.loads(capsys.readouterr().out)["results"][0]
    assert run("evaluate", runs[0], "--data", "digits", *words, "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    assert compared["accuracy"] == alone["accuracy"]
    assert compared["protocol"]["episodes_sha256"] == alone["protocol"]["episodes_sha256"]


def scores(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "cells").glob("*.npy"))}


def test_scores_are_the_same_on_two_processes_and_after_a_kill(runs, tmp_path, capsys):
    words = ["compare", *runs, "--data", "digits", "--data", "glyphs", *QUICK]
    assert run(*words, "--workers", "2", "--out", tmp_path / "two") == 0
    command = [sys.executable, "-m", "quickstudy", *map(str, words), "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "killed")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    cells = tmp_path / "killed" / "cells"
    deadline = time.monotonic() + 120
    while len(list(cells.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = len(list(cells.glob("*.json")))
    whole = scores(tmp_path / "two")
    assert 2 <= found < len(whole)
    # a file that was cut short is as good as none
    victim = next(iter(cells.glob("*.npy")))
    victim.write_bytes(victim.read_bytes()[:-8])
    assert run(*words, "--workers", "1", "--out", tmp_path / "killed") == 0
    assert "are there already" in capsys.readouterr().err
    assert scores(tmp_path / "killed") == whole
    assert len(whole) == 5 * 3


ORPHANS = """
import concurrent.futures, multiprocessing, os, time
from quickstudy.comparing.scoring import _end_with

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=_end_with, initargs=(os.getpid(),)
    )
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_ctrl_c_does_not_wait_for_cells_that_take_minutes(runs, tmp_path):
    words = ["compare", runs[2], runs[1], "--data", "digits", "--data", "glyphs", "--no-trained"]
    words += ["--episodes", "100000", "--baseline", "none", "--workers", "2"]
    words += ["--out", tmp_path / "compared"]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "quickstudy", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            # as a terminal starts it: a shell starts what runs in the background without Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def busy() -> int:
        """Count the children that have computed for three seconds and more."""
        count = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            count += int(fields[1]) == process.pid and int(fields[11]) > 300
        return count

    deadline = time.monotonic() + 120
    while busy() < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert busy() >= 2
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=60) == 130  # a cell takes many minutes
    finally:
        process.kill()
    assert busy() == 0
    assert "stopped" in (tmp_path / "errors").read_text()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_a_killed_comparison_leaves_no_workers_behind(tmp_path):
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    said = tmp_path / "worker"
    with said.open("w") as out, (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen([sys.executable, str(script)], stdout=out, stderr=errors)
    deadline = time.monotonic() + 120
    while not said.read_text().endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.1)
    worker = Path("/proc") / said.read_text().strip()

    def runs() -> bool:
        try:
            return (worker / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    assert runs()
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while runs() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs()


def recipe(data: ImageData) -> Recipe:
    return Recipe(name="mine", data=data)


def test_a_domain_that_chose_the_weights_is_not_novel():
    (tasks,), _ = task_lists([], ["digits"], [EpisodeSpec(3, 1, 2)], episodes=3, seed=0)
    validation = ValidationConfig(domains=("digits",), choose_by="digits")
    chosen = Recipe(
        name="mine", data=ImageData(name="glyphs"), train=TrainConfig(validation=validation)
    )
    assert role_of(tasks, chosen) == "choosing domain"
    followed = ValidationConfig(domains=("digits",))  # looked at, and nothing else
    other = Recipe(
        name="mine", data=ImageData(name="glyphs"), train=TrainConfig(validation=followed)
    )
    assert role_of(tasks, other) == "novel domain"


def test_one_data_set_without_classes_does_not_stop_the_others():
    trained = ImageData(name="glyphs", train="all", validation="all")
    lists, remarks = task_lists(
        [trained], ["glyphs", "digits"], [EpisodeSpec(5, 1, 2)], episodes=3, seed=0
    )
    assert [tasks.split for tasks in lists] == ["trained", "test"]
    assert len(remarks) == 1
    assert "glyphs, novel classes: left out. It has 0 classes that no run" in remarks[0]
    with pytest.raises(TaskError, match="It has 0 classes that no run"):
        task_lists(
            [trained],
            ["glyphs"],
            [EpisodeSpec(5, 1, 2)],
            episodes=3,
            seed=0,
            with_trained=False,
        )


def test_one_run_is_not_two_seeds(runs, tmp_path):
    copy = tmp_path / "copied"
    shutil.copytree(runs[0], copy)
    with pytest.raises(ConfigError, match="hold the same weights"):
        contestants([runs[0], copy])
    with pytest.raises(ConfigError, match="hold the same weights"):
        contestants([runs[0], runs[0].parent / ".." / runs[0].parent.name / runs[0].name])


def rewrite(folder: Path, document: dict[str, object]) -> None:
    """Write another recipe into a run, as if its weights had been trained with it."""
    (folder / "recipe.json").write_text(json.dumps(document))
    recipe = parse_recipe(document["recipe"])
    tensors, meta = load_tensors(folder / MODEL)
    meta["fingerprint"] = fingerprint(recipe.train, manifest(recipe, read_facts(folder)))
    save_tensors(folder / MODEL, tensors, meta)


def test_how_often_a_log_is_written_is_no_difference_between_seeds(runs, tmp_path):
    talkative = tmp_path / "talkative"
    shutil.copytree(runs[1], talkative)
    document = json.loads((talkative / "recipe.json").read_text())
    document["recipe"]["train"]["log_every"] += 1
    del document["recipe"]["train"]["validation"]["watch_episodes"]  # as an older version wrote it
    rewrite(talkative, document)
    assert seed_groups(contestants([runs[0], talkative])) == {
        "glyphs-protonet": ["first", "talkative"]
    }
    document["recipe"]["train"]["outer_lr"] /= 2
    rewrite(talkative, document)
    assert not seed_groups(contestants([runs[0], talkative]))


def test_classes_that_any_run_has_seen_are_not_novel(monkeypatch):
    by_split = {
        (None, "train"): "abcdef",
        (None, "val"): "gh",
        ("other", "train"): "cdefij",
        ("other", "val"): "kl",
        (None, "all"): "abcdefghijklmnopqr",
    }

    def pool(name, *, split="test", split_file=None, **_):
        names = by_split[split_file, split]
        y = torch.arange(len(names)).repeat_interleave(8)
        return quickstudy.tasks.Pool(
            torch.zeros(len(y), 1, 28, 28, dtype=torch.uint8), y, tuple(names), name, split
        )

    monkeypatch.setattr(quickstudy.comparing.tasklists, "load_pool", pool)
    trained = [ImageData(name="omniglot"), ImageData(name="omniglot", split_file="other")]
    (seen, unseen), remarks = task_lists(
        trained, ["omniglot"], [EpisodeSpec((3, 20), 1, 2)], episodes=3, seed=0
    )
    assert "".join(seen.classes) == "cdef"
    assert "".join(unseen.classes) == "mnopqr"
    assert seen.spec.n_way == (3, 4)
    assert unseen.spec.n_way == (3, 6)
    assert remarks == [
        "omniglot trained classes, 3 to 4-way 1-shot, not 3 to 20-way 1-shot: it is small.",
        "omniglot novel classes, 3 to 6-way 1-shot, not 3 to 20-way 1-shot: it is small.",
    ]
    assert role_of(seen, recipe(trained[0])) == "trained distribution"
    assert role_of(unseen, recipe(trained[0])) == "novel classes"
    assert role_of(unseen, recipe(ImageData(name="mnist"))) == "novel domain"
    # a run on several data sets has seen the classes of each of them
    several = ImageData(name="mnist", also=[{"name": "omniglot", "split_file": "other"}])
    assert role_of(unseen, recipe(several)) == "novel classes"
    (_, rest), _ = task_lists([several], ["omniglot"], [EpisodeSpec(3, 1, 2)], episodes=3, seed=0)
    assert "".join(rest.classes) == "abghmnopqr"
    assert unseen.source(size=28, channels=1).pool.class_names == tuple("mnopqr")


@pytest.mark.parametrize("n_way", [2, 5, (3, 8)])
def test_known_learners_have_known_scores_on_every_domain(n_way):
    """An oracle 100 %; a constant, one that sees positions only and shuffled labels 1/N."""
    for data in available_domains():
        (tasks,), _ = task_lists([], [data], [EpisodeSpec(n_way, 2, 3)], episodes=60, seed=1)
        source = tasks.source(size=28, channels=1)
        pool = source.pool
        told = torch.zeros(len(pool.y), 2)
        told[:, 0] = pool.y.float()
        source = PoolSource(pool.with_x(told), source.group_aware)
        spec = tasks.spec
        chance = np.mean(
            [1 / float(n) for n in (source.index(spec, range(60), seed=1).classes >= 0).sum(1)]
        )
        assert evaluate(OracleLearner(), source, spec, episodes=60, seed=1).mean == 1.0
        constant = evaluate(ConstantLearner(), source, spec, episodes=60, seed=1)
        assert constant.mean == pytest.approx(chance, abs=1e-6), data
        position = evaluate(PositionLearner(), source, spec, episodes=60, seed=1)
        assert abs(position.mean - chance) < 3 * position.ci95, data
        shuffled = pool.y[torch.randperm(len(pool.y), generator=torch.Generator().manual_seed(0))]
        order = shuffled.argsort(stable=True)
        guess = PoolSource(
            quickstudy.tasks.Pool(
                told[order], shuffled[order], pool.class_names, pool.name, pool.split
            )
        )
        report = evaluate(OracleLearner(), guess, spec, episodes=60, seed=1)
        assert abs(report.mean - chance) < 3 * report.ci95 + 0.02, data


def test_faults_help(runs, tmp_path, capsys):
    assert run("compare", runs[0]) == 2
    assert "--data, or take every domain with --domains" in capsys.readouterr().err
    assert run("compare", runs[0], runs[0], "--data", "digits") == 2
    assert "hold the same weights" in capsys.readouterr().err
    assert run("compare", runs[0], "--data", "digits", "--data", "digits") == 2
    assert "named twice" in capsys.readouterr().err
    assert run("compare", runs[0], "--data", "digits", "--k-shot", "2", "--k-shot", "2") == 2
    assert "--k-shot names a number twice" in capsys.readouterr().err
    assert run("compare", runs[0], "--data", "digit") == 2
    assert "digits" in capsys.readouterr().err
    assert run("compare", tmp_path / "none", "--data", "digits") == 1
    assert "holds no run" in capsys.readouterr().err
    assert run("compare", runs[0], "--data", "digits", "--baseline", "svm") == 2
    assert "baseline++" in capsys.readouterr().err
    both = ("--baseline", "none", "--baseline", "pixels")
    assert run("compare", runs[0], "--data", "digits", *both) == 2
    assert "contradict" in capsys.readouterr().err
    assert run("compare", runs[0], "--data", "digits", "--features", tmp_path / "none") == 1
    assert "holds no run" in capsys.readouterr().err
    assert run("compare", runs[0], "--data", "digits", "--n-way", "11") == 1
    assert "10 classes there, too few for tasks of 11" in capsys.readouterr().err
    assert run("compare", runs[0], "--data", "digits", "--episodes", "0") == 2
    assert "at least 1" in capsys.readouterr().err
    words = ("--data", "glyphs", "--n-way", "7", "--episodes", "2", "--workers", "1")
    assert run("compare", *runs, *words) == 2
    assert "third on glyphs trained classes" in capsys.readouterr().err
    sine = tmp_path / "sine"
    assert run("train", "sinusoid-maml", "--out", sine, "-s", "steps=1") == 0
    assert run("compare", sine, "--data", "digits") == 2
    assert "sine waves" in capsys.readouterr().err
    assert run("compare", runs[0], "--data", "digits", "--workers", "0") == 2
    assert "workers" in capsys.readouterr().err


def test_baselines_stand_on_the_run_that_is_named(runs):
    given = contestants(runs, features=runs[1])
    assert [one.run for one in given[3:]] == [runs[1].resolve()] * 5
    assert given[4].name.endswith("of second")
    assert len({one.fingerprint for one in given}) == 8


def test_digits_are_really_there():
    assert load_pool("digits").n_classes == 10


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on sine waves: one with a learning rate, and one that learns next to nothing."""
    folder = tmp_path_factory.mktemp("waves")
    few = ["-s", "steps=30", "-s", "checkpoint_every=30", "-s", "validation.every=30"]
    few += ["-s", "validation.episodes=4"]
    for name, more in (("learning", []), ("standing", ["-s", "outer_lr=1e-9", "-s", "steps=1"])):
        words = ["train", "sinusoid-maml", "--out", folder / name, "--device", "cpu", *few, *more]
        assert run(*words) == 0
    return [folder / "standing", folder / "learning"]


def test_runs_of_regression_are_compared_by_their_error(waves, runs, tmp_path, capsys):
    out = tmp_path / "compared"
    words = ["compare", *waves, "--data", "sinusoid", "--k-shot", "10", "--episodes", "60"]
    capsys.readouterr()
    assert run(*words, "--workers", "1", "--out", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    means = {r["learner"]: r["mse"]["mean"] for r in document["results"]}
    assert means["learning"] < means["standing"]
    assert document["metric"] == {"name": "mse", "higher_is_better": False}
    assert {r["role"] for r in document["results"]} == {"trained distribution"}
    (pair,) = document["paired"]
    assert pair["mean"] > 0  # standing minus learning
    assert run("check", out / "comparison.json") == 0
    capsys.readouterr()
    assert run(*words, "--workers", "1", "--out", out) == 0  # all cells are there already
    text = capsys.readouterr().out
    best = next(line for line in text.splitlines() if line.startswith(" *"))
    assert best.endswith("learning")
    assert "learning is best" in (out / "comparison.html").read_text()
    # pictures of classes and waves do not mix, and heads for classes learn no waves
    for wrong in (
        [*waves, runs[0], "--data", "sinusoid"],
        [*waves, "--data", "digits"],
        [runs[0], "--data", "sinusoid"],
        [*waves, "--data", "sinusoid", "--baseline", "pixels"],
    ):
        assert run("compare", *wrong, "--episodes", "4") == 2
        assert "regression" in capsys.readouterr().err


def test_one_episode_has_no_interval(runs, capsys):
    words = ["compare", runs[0], "--data", "digits", "--n-query", "4", "--baseline", "pixels"]
    capsys.readouterr()
    assert run(*words, "--episodes", "1", "--workers", "1") == 0
    text = capsys.readouterr().out
    assert "one episode, which has no interval" in text
    assert "1 episodes" not in text
    assert "nan" not in text

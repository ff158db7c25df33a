"""Runs of an earlier version are read, resumed and made again with the same weights."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import (
    DOCUMENTS,
    EXACT,
    RUNS,
    STOPPED,
    TO_THE_BIT,
    differences,
    environment,
    lost,
    run_command,
    structure,
    values,
)
from safetensors import safe_open

# weights are made by many steps, in each of which the last digits matter
RTOL, ATOL = (0, 0) if TO_THE_BIT else (1e-3, 1e-4)


def train(words: str, out: str) -> dict[str, Any]:
    """Train, and return the document; skipped where the images themselves are not the same."""
    code, printed = run_command(["train", *shlex.split(words), "--out", out, "--json"])
    document = json.loads(printed)
    was = json.loads((DOCUMENTS / "environment.json").read_text(encoding="utf-8"))
    said = document.get("error", {}).get("message", "")
    if "training data" in said and environment() != was:
        pytest.skip(f"images are made ready otherwise by other versions than {was}")
    assert code == 0, printed
    return document


def tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safe_open(path, framework="np") as file:
        meta = json.loads(file.metadata()["quickstudy"])
        return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118


def assert_same_tensors(old: Path, new: Path, *, only_kinds: bool = False) -> None:
    """Compare names, types, shapes and values (or not these), and what is said of them."""
    (was, about), (is_, told) = tensors(old), tensors(new)
    assert is_.keys() == was.keys()
    for name, value in was.items():
        assert is_[name].dtype == value.dtype
        assert is_[name].shape == value.shape
        if not only_kinds:
            np.testing.assert_allclose(is_[name], value, rtol=RTOL, atol=ATOL, err_msg=name)
    assert told.keys() >= about.keys()
    for name in about.keys() & {"step", "fingerprint"}:
        assert told[name] == about[name]
    for name in about.keys() & {"validation"}:
        assert told[name] == pytest.approx(about[name], rel=RTOL, abs=ATOL)


def assert_same_logs(old: Path, new: Path) -> None:
    """Compare log and curve, line by line, but for how fast it was."""
    for name in ("log.jsonl", "curve.jsonl"):
        was, is_ = (
            [json.loads(line) for line in (folder / name).read_text().splitlines()]
            for folder in (old, new)
        )
        assert len(is_) == len(was)
        assert lost(structure(was), structure(is_)) == []
        assert differences(values(was), values(is_)) == []


@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_run_ends_as_one_that_was_never_stopped(name: str, work: Path) -> None:
    stopped, whole = work / "run-stopped" / name, work / "run-stopped/expected" / name
    assert not (stopped / "model.safetensors").exists()
    recipe = STOPPED[name].split()[0]
    document = train(f"{recipe} --resume --device cpu", str(stopped))
    assert document["steps"] == 9
    assert_same_tensors(whole / "model.safetensors", stopped / "model.safetensors")
    assert_same_logs(whole, stopped)
    assert_same_recipe(whole, stopped)


@pytest.mark.parametrize("name", ["protomaml", "sinusoid-maml"])
def test_a_finished_run_is_left_as_it_is(name: str, work: Path) -> None:
    run = work / "run-finished" / name
    before, _ = tensors(run / "model.safetensors")
    recipe = RUNS[name].split()[0]
    assert train(f"{recipe} --resume --device cpu", str(run))["steps"] == 6
    after, _ = tensors(run / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("name", ["protomaml", "sinusoid-maml"])
def test_the_same_command_makes_the_same_run(name: str, work: Path) -> None:
    old, new = work / "run-finished" / name, work / "new"
    train(RUNS[name], str(new))
    assert {path.name for path in old.iterdir()} <= {path.name for path in new.iterdir()}
    assert_same_tensors(old / "model.safetensors", new / "model.safetensors")
    # an optimiser's state differs more than the weights do
    checkpoints = old / "checkpoint.safetensors", new / "checkpoint.safetensors"
    assert_same_tensors(*checkpoints, only_kinds=not TO_THE_BIT)
    assert_same_logs(old, new)
    assert_same_recipe(old, new)


def assert_same_recipe(old: Path, new: Path) -> None:
    """Compare the recipes, and the hashes of the data if these are made ready alike."""
    was, is_ = (json.loads((folder / "recipe.json").read_text()) for folder in (old, new))
    facts = was.keys() - {"format", "recipe"}
    assert_kept({name: was[name] for name in was.keys() - facts}, is_)
    assert facts <= is_.keys()
    if EXACT:
        assert (new / "recipe.json").read_text() == (old / "recipe.json").read_text()


def assert_kept(old: Any, new: Any) -> None:
    """Compare settings; there may be new ones."""
    if isinstance(old, dict):
        assert isinstance(new, dict)
        for name, value in old.items():
            assert name in new
            assert_kept(value, new[name])
    else:
        assert new == old


def test_a_recipe_that_fits_no_run_is_refused(work: Path) -> None:
    """What must not change when a run is resumed is still written and read alike."""
    run = work / "run-stopped/sinusoid-maml"
    words = ["train", "sinusoid-maml", "--out", str(run), "--resume", "--json"]
    code, printed = run_command([*words, "-s", "warmup=3"])
    assert code == 1
    assert "train.warmup: 2 in the run, 3 now" in json.loads(printed)["error"]["message"]

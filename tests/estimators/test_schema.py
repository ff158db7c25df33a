"""A task file that a hand has changed, hashes included, is refused, or is a task all the same."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from quickstudy.core import CheckpointError, QuickstudyError
from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.file_edits import relabel_file, remove_files, undo_file
from quickstudy.estimators.saving import load_task

MEMBERS = ("task.json", "undo.json")
TENSORS = ("support.safetensors", "prior.safetensors", "undo.safetensors")
QUERY = np.array([[1.0, 2.0], [7.0, 9.0]])


def lengths(texts: Any) -> np.ndarray:
    return np.array([[len(t), t.count("a")] for t in texts], dtype=np.float32)


def make(path: Path, encoder: str) -> Path:
    X = np.array([[1.0, 2.0], [2.0, 1.0], [1.5, 1.0], [8.0, 9.0], [9.0, 8.0], [9.0, 9.5]])
    clf = FewShotClassifier(encoder, unknown="?").fit(X, ["low"] * 3 + ["high"] * 3)
    clf.name_examples([f"s.csv, line {i}" for i in range(2, 8)]).save(path)
    relabel_file(path, "4", "middle")
    remove_files(path, classes=["middle"])
    return path


@pytest.fixture(scope="module", params=["table", "array", "characters"])
def members(request: pytest.FixtureRequest, tmp_path_factory: Any) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("task") / "a.task"
    if request.param == "characters":  # its prior was learned
        draw = np.random.default_rng(0)
        images = (draw.random((6, 28, 28)) * 255).astype(np.uint8)
        clf = FewShotClassifier("characters").fit(list(images), ["a"] * 3 + ["b"] * 3)
        clf.name_examples([f"{i}.png" for i in range(6)]).save(path)
        remove_files(path, examples=["5.png"])
    else:
        make(path, request.param)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: dict[str, bytes]) -> Path:
    """Write a task file, with hashes that fit."""
    rest = {name: data for name, data in members.items() if name != "manifest.json"}
    manifest = json.loads(members["manifest.json"])
    manifest["sha256"] = {n: hashlib.sha256(data).hexdigest() for n, data in rest.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), **rest}.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
    return path


def works_or_is_refused(path: Path) -> bool:
    """Return whether the task was refused; else everything that it is asked works."""
    try:
        clf = FewShotClassifier.load(path)
    except CheckpointError:
        return True
    z = clf.support_.z
    version = clf.version_
    p = version.probabilities(version.scores(z))
    assert np.isfinite(p).all()
    version.answers(z, unknown=clf.unknown, coverage=0.9)
    version.explain(z)
    version.suspects(all=True)
    assert np.isfinite(clf.estimate_accuracy().mean)
    assert clf.class_estimates()
    try:
        clf.relabel(0, "another")
        undo_file(path)
    except QuickstudyError:
        pass
    return False


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of everything in a document, containers included."""
    yield path
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in list(inside)[:6]:
            yield from leaves(part, (*path, key))


WRONG = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2**40,
    10**400,
    0.5,
    -1e308,
    "",
    "x",
    "é",
    [],
    {},
    [[]],
    ["str"],
]


def replaced(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    document = json.loads(json.dumps(document))
    inside = document
    for key in place[:-1]:
        inside = inside[key]
    if value is KeyError:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return document


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_part_of_the_document_may_be_anything(
    members: dict[str, bytes], tmp_path: Path, data: st.DataObject
):
    name = data.draw(st.sampled_from([n for n in MEMBERS if n in members]))
    document = json.loads(members[name])
    place = data.draw(st.sampled_from(sorted(set(leaves(document)), key=repr)))
    value = data.draw(st.sampled_from([*WRONG, KeyError] if place else WRONG))
    text = json.dumps(replaced(document, place, value)).encode()
    works_or_is_refused(write(tmp_path / "a.task", {**members, name: text}))


TWISTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "double": lambda t: t.double(),
    "half": lambda t: t.half(),
    "whole": lambda t: t.int(),
    "truth": lambda t: t.bool(),
    "shorter": lambda t: t[:-1].clone(),
    "empty": lambda t: t[:0].clone(),
    "longer": lambda t: torch.cat([t, t]),
    "flat": lambda t: t.flatten(),
    "one more axis": lambda t: t[None],
    "narrower": lambda t: t[..., :-1].clone(),
    "nan": lambda t: t.double().mul(float("nan")).to(t.dtype),
    "infinite": lambda t: t.float() + float("inf"),
    "negative": lambda t: -t - 1,
    "large": lambda t: t + 1000,
    "huge": lambda t: t.float() * 1e38,
    "scalar": lambda t: t.sum(),
}


@pytest.mark.parametrize("twist", TWISTS.values(), ids=TWISTS)
def test_any_tensor_may_be_anything(
    members: dict[str, bytes], tmp_path: Path, twist: Callable[[torch.Tensor], torch.Tensor]
):
    for name in TENSORS:
        tensors = load(members[name]) if name in members else {}
        for key, tensor in tensors.items():
            try:
                twisted = twist(tensor.clone()).contiguous()
            except (IndexError, RuntimeError):
                continue
            changed = {**members, name: save({**tensors, key: twisted})}
            works_or_is_refused(write(tmp_path / "a.task", changed))
            missing = {k: t for k, t in tensors.items() if k != key}
            works_or_is_refused(write(tmp_path / "b.task", {**members, name: save(missing)}))


CASES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a class too many": lambda d: d["classes"].append(["str", "more"]),
    "a class twice": lambda d: d["classes"].__setitem__(0, d["classes"][1]),
    "a class of another type": lambda d: d["classes"].__setitem__(0, ["int", "1"]),
    "a truth value as number": lambda d: d["classes"].__setitem__(0, ["int", True]),
    "an example too many": lambda d: d["examples"].append(d["examples"][0]),
    "an example too few": lambda d: d["examples"].pop(),
    "no examples": lambda d: d["examples"].clear(),
    "a source that is a number": lambda d: d["examples"][0].update(source=3),
    "a head that is not there": lambda d: d["settings"].update(head="nix"),
    "a head that is a number": lambda d: d["settings"].update(head=5),
    "a share above 1": lambda d: d["settings"].update(false_rejects=1.5),
    "unknown is a class": lambda d: d["settings"].update(unknown=d["classes"][0]),
    "cells that are words": lambda d: d["examples"][0].update(row=["a", "b"]),
    "a cell too few": lambda d: d["examples"][0].update(row=[1.0]),
    "a prior of another format": lambda d: d["prior"].update(format="1"),
    "a prior with a negative weight": lambda d: d["prior"].update(centre_prior=-3),
    "a prior without sources": lambda d: d["prior"].pop("known"),
    "a prior of a source without a middle": lambda d: d["prior"].update(
        known={"else": {"mean": [[2, 0.5]], "deviation": [[2, -0.1]]}}
    ),
    "a prior of the first format without ways": lambda d: d["prior"].update(format=1),
    "no encoder": lambda d: d["embedder"].clear(),
}


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_known_forgeries_are_refused(
    members: dict[str, bytes], tmp_path: Path, change: Callable[[dict[str, Any]], Any]
):
    document = json.loads(members["task.json"])
    change(document)
    text = json.dumps(document).encode()
    assert works_or_is_refused(write(tmp_path / "a.task", {**members, "task.json": text}))


def one_shot(**changed: Any) -> dict[str, Any]:
    """Return the tables of a head, some of them changed."""
    tables = {name: [[2, 0.5], [10, 0.4]] for name in ("accuracy", "low", "high")}
    sets = {"0.5": [[2, 0.5]], "0.9": [[2, 2.0]]}
    return {"log_temperature": [[2, -1.0]], **tables, "sets": sets, **changed}


def head(**changed: Any) -> dict[str, Any]:
    """Return a head of a prior, some of it changed."""
    usual = {"settings": {"5x1": {"shrinkage": 0.0}}, "expected": {"5x1": 0.5}}
    return {**usual, "far": one_shot(), "near": {}, "held_out": [0.1, 2.0], **changed}


HEADS = {
    "an accuracy above 1": head(far=one_shot(accuracy=[[2, 1.5]])),
    "an accuracy below 0": head(near={"else": one_shot(low=[[2, -0.5]])}),
    "an accuracy that is no number": head(far=one_shot(high=[[2, None]])),
    "an endless temperature": head(far=one_shot(log_temperature=[[2, float("inf")]])),
    "ways that fall": head(far=one_shot(accuracy=[[5, 0.5], [2, 0.5]])),
    "an empty table": head(far=one_shot(accuracy=[])),
    "one threshold": head(far=one_shot(sets={"0.9": [[2, 1.0]]})),
    "no settings": head(settings={}),
    "settings of no size": head(settings={"5": {}}),
    "nothing expected": head(expected={}),
    "expected infinity": head(expected={"5x1": float("inf")}),
    "quantiles that fall": head(held_out=[2.0, 0.1]),
    "no numbers": 3,
}


@pytest.mark.parametrize("wrong", HEADS.values(), ids=HEADS)
def test_forged_heads_of_a_prior_are_refused(
    members: dict[str, bytes], tmp_path: Path, wrong: Any
) -> None:
    document = json.loads(members["task.json"])
    for one, refused in ((head(), False), (wrong, True)):
        document["prior"]["heads"]["prototype"] = one
        text = json.dumps(document).encode()
        path = write(tmp_path / "a.task", {**members, "task.json": text})
        assert works_or_is_refused(path) is refused


@pytest.mark.parametrize(
    "name", ["previews/-1.png", "previews/99.png", "previews/x.png", "previews/0.jpg"]
)
def test_pictures_of_no_example_are_refused(members: dict[str, bytes], tmp_path: Path, name: str):
    assert works_or_is_refused(write(tmp_path / "a.task", {**members, name: b"\x89PNG"}))
    assert works_or_is_refused(write(tmp_path / "a.task", {**members, "previews/0.png": b"<svg>"}))


@pytest.mark.parametrize("version", [True, 0, -1, "1", None, 1.0, [1]])
def test_the_format_is_a_number(members: dict[str, bytes], tmp_path: Path, version: Any):
    manifest = json.loads(members["manifest.json"]) | {"format": version}
    changed = {**members, "manifest.json": json.dumps(manifest).encode()}
    assert works_or_is_refused(write(tmp_path / "a.task", changed))


def test_an_untouched_file_is_read_with_its_history(members: dict[str, bytes], tmp_path: Path):
    path = write(tmp_path / "a.task", members)
    assert load_task(path).history.past
    assert not works_or_is_refused(path)

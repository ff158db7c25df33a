"""Runs whose files somebody edited: refused with a typed error, or read as they were meant."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy.core import CheckpointError, QuickstudyError
from quickstudy.runs import load_run, train_recipe
from quickstudy.storage.tensors import load_tensors, save_tensors
from quickstudy.training import CHECKPOINT, MODEL

TINY = ["data.name=digits", "data.train=all", "data.validation=all", "classes=null", "steps=2"]
TINY += ["every=2", "validation.episodes=2", "watch_episodes=2", "train.n_way=3", "channels=8"]
TINY += ["train.n_query=2", "validation.n_way=3", "validation.n_query=2"]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)
FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_recipe("glyphs-few", TINY, out=tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture
def edited(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "edited"))


def leaves(document: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every value in a document, and of every object and list."""
    if path:
        yield path
    if isinstance(document, (dict, list)):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for name, value in list(items):
            yield from leaves(value, (*path, name))


def change(document: Any, path: tuple, value: Any) -> None:
    for name in path[:-1]:
        document = document[name]
    document[path[-1]] = value


def read_or_refuse(folder: Path, *files: str) -> list[str]:
    """Load the run, or go on with it; return the errors, all of which are ours."""
    errors = []
    for attempt in (
        *([lambda: load_run(folder)] if MODEL in files else []),
        *([lambda: train_recipe(None, out=folder, resume=True)] if CHECKPOINT in files else []),
    ):
        try:
            attempt()
        except QuickstudyError as error:
            errors.append(str(error))
    return errors


@FEW
@given(data=st.data())
def test_any_value_of_the_recipe_may_be_anything(data, edited, run):
    document = json.loads((run / "recipe.json").read_text())
    change(document, data.draw(st.sampled_from(list(leaves(document)))), data.draw(JSON))
    (edited / "recipe.json").write_text(json.dumps(document))
    if not read_or_refuse(edited, MODEL):
        # another text in the summary, 3.0 for 3, a setting that is another learner's
        read, meant = (load_run(folder).recipe for folder in (edited, run))
        assert read.model_copy(update={"summary": meant.summary}) == meant


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"recipe": 3}', "{" * 100_000, "\xff", '{"format": 1, "recipe": {}}'],
)
def test_what_is_no_document_is_refused(text, edited):
    (edited / "recipe.json").write_text(text, encoding="latin-1")
    assert len(read_or_refuse(edited, MODEL, CHECKPOINT)) == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("train", "outer_lr"), 0.5),
        (("train", "steps"), 4),
        (("train", "seed"), 7),
        (("train", "validation", "n_way"), 2),
        (("data", "classes"), 5),
        (("encoder", "norm"), "group"),
        (("learner", "temperature"), 9.0),
        (("name",), "another"),
    ],
)
def test_a_recipe_that_does_not_describe_the_weights_is_refused(path, value, edited):
    document = json.loads((edited / "recipe.json").read_text())
    change(document["recipe"], path, value)
    (edited / "recipe.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=f"(?s){'.*'.join(path)}.*in the weights, .* now"):
        load_run(edited)


def test_hashes_of_the_data_belong_to_the_weights(edited):
    document = json.loads((edited / "recipe.json").read_text())
    document["training data"] = "0" * 64
    (edited / "recipe.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="training data"):
        load_run(edited)


@FEW
@given(data=st.data())
def test_any_value_beside_the_tensors_may_be_anything(data, edited, run):
    """Somebody who edits a file of tensors can also write its checksum anew."""
    name = data.draw(st.sampled_from([MODEL, CHECKPOINT]))
    tensors, meta = load_tensors(run / name)
    place = data.draw(st.sampled_from([p for p in leaves(meta) if p[0] != "training"]))
    value = data.draw(JSON)
    change(meta, place, value)
    save_tensors(edited / name, tensors, meta)
    read_or_refuse(edited, name)


@FEW
@given(data=st.data())
def test_any_tensor_may_have_any_shape_or_be_missing(data, edited, run):
    name = data.draw(st.sampled_from([MODEL, CHECKPOINT]))
    tensors, meta = load_tensors(run / name)
    which = data.draw(st.sampled_from(sorted(tensors)))
    how = data.draw(st.sampled_from(["missing", "renamed", "longer", "flat", "empty", "scalar"]))
    old = tensors.pop(which)
    if how == "renamed":
        tensors[data.draw(st.sampled_from(["x", "weights/x", "optimiser/0.99.step", "/"]))] = old
    if how != "missing" and how != "renamed":
        shapes = {
            "longer": (3, *old.shape),
            "flat": (old.numel(), 1, 1),
            "empty": (0,),
            "scalar": (),
        }
        tensors[which] = torch.ones(shapes[how], dtype=old.dtype)
    save_tensors(edited / name, tensors, meta)
    assert read_or_refuse(edited, name) or tuple(old.shape) == () or "optimiser/" in which


def test_damaged_bytes_are_refused(edited):
    for name in (MODEL, CHECKPOINT):
        data = bytearray((edited / name).read_bytes())
        data[-5] ^= 255
        (edited / name).write_bytes(data)
    assert len(read_or_refuse(edited, MODEL, CHECKPOINT)) == 2

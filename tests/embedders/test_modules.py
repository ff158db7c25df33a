"""Encoders that the user brings: functions, and embeddings that are there already."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from quickstudy.core import ConfigError, DataError
from quickstudy.embedders.networks import module_output
from quickstudy.estimators import Embedder, Item, get_embedder

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def lengths(rows: list[str]) -> list[list[float]]:
    return [[len(row), 1.0] for row in rows]


class Counting:
    """A function that knows how often it was asked."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, rows):
        self.seen.append(len(rows))
        return np.asarray(rows, dtype=np.float64)[:, :2]


def test_functions_get_what_the_user_gave(tmp_path):
    given = []

    def watch(rows):
        given.append(rows)
        return np.ones((len(rows), 2))

    one = get_embedder(watch)
    image = Image.new("L", (3, 2))
    image.save(tmp_path / "a.png")
    cases = [
        (ROWS, np.ndarray),
        (torch.from_numpy(ROWS), np.ndarray),
        (pd.DataFrame(ROWS), np.ndarray),
        (ROWS.tolist(), np.ndarray),
        (["a", "b"], list),
        (pd.Series(["c", "d"]), list),
        ([image], list),
        ([tmp_path / "a.png"], list),
        ([b"bytes"], list),
    ]
    for X, kind in cases:
        z = one.embed(one.read(X))
        assert isinstance(given[-1], kind)
        assert z.shape[1] == 2
    assert any(rows[0] is image for rows in given)
    assert one.dim == 2
    assert one.modality == "array"


def test_equal_content_is_embedded_once():
    function = Counting()
    one = get_embedder(function)
    z = one.embed(one.read(ROWS[[0, 1, 0, 0]]))
    assert function.seen == [2]
    np.testing.assert_array_equal(z, ROWS[[0, 1, 0, 0], :2])
    np.testing.assert_array_equal(one.embed(one.read(ROWS)), ROWS[:, :2])
    assert function.seen == [2, 1]
    # another function of the same name starts anew
    other = Counting()
    two = get_embedder(other)
    two.embed(two.read(ROWS))
    assert other.seen == [3]


def test_many_come_in_parts():
    function = Counting()
    one = get_embedder(function)
    X = np.random.default_rng(0).normal(size=(150, 3))
    np.testing.assert_allclose(one.embed(one.read(X), progress=True), X[:, :2], rtol=1e-6)
    assert max(function.seen) <= 64
    assert one.embed([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda rows: ROWS[0], "shape"),
        (lambda rows: np.zeros((len(rows) + 1, 2)), r"\[3, D\]"),
        (lambda rows: np.zeros((len(rows), 0)), r"\[3, D\]"),
        (lambda rows: None, "numbers|shape"),
        (lambda rows: [["a"]] * len(rows), "not numbers"),
        (lambda rows: [[1], [1, 2], [3]], "not numbers"),
        (lambda rows: np.where(ROWS[:, :2] > 4, np.inf, 0), "row 1: .*not finite"),
    ],
)
def test_faults_of_functions(function, says):
    one = get_embedder(function)
    with pytest.raises(DataError, match=says):
        one.embed(one.read(ROWS))


def test_a_function_keeps_to_one_length():
    one = get_embedder(lambda rows: np.ones((len(rows), len(rows[0]))))
    one.embed(one.read(["ab"]))
    with pytest.raises(DataError, match="3 numbers after 2"):
        one.embed(one.read(["abc"]))


def test_what_a_function_cannot_be_given():
    one = get_embedder(lengths)
    for X, says in (
        ([{}], "dict"),
        (["a", 3], "int, str"),
        (["a", ""], "row 1"),
        (ROWS * np.nan, "row 0"),
        ([], "no examples"),
        (3, "int"),
    ):
        with pytest.raises(DataError, match=says):
            one.read(X)
    with pytest.raises(ConfigError, match="embedded nothing"):
        one.dim  # noqa: B018
    with pytest.raises(ConfigError, match=r"test_modules\.lengths.*no file brings back"):
        get_embedder(json.loads(json.dumps(one.config())))


def test_rows_as_they_are():
    one = get_embedder("array")
    with pytest.raises(ConfigError, match="fit"):
        one.dim  # noqa: B018
    fitted = one.fit(one.read(ROWS))
    np.testing.assert_array_equal(fitted.embed(fitted.read(ROWS.astype(np.float64))), ROWS)
    assert get_embedder(fitted.config()).dim == 4
    for X, says in (
        (ROWS[:, :3], r"\[N, 4\]"),
        (ROWS[0], r"\[N, \.\.\.\]"),
        (ROWS.astype(np.float64) * 1e300, "NaN or inf"),
        ([["a"]], "numbers"),
    ):
        with pytest.raises(DataError, match=says):
            fitted.read(X)


def test_what_can_be_named(tmp_path: Path):
    one = get_embedder("array")
    assert get_embedder(one) is one
    assert isinstance(one, Embedder)
    for bad, says in (
        ("imgae", "Did you mean 'image'"),
        (tmp_path / "none", "no such folder"),
        (Counting, "no encoder"),
        ({"encoder": None}, "the user's own"),
        ({"encoder": "array"}, "is not what it was"),
    ):
        with pytest.raises((ConfigError, DataError), match=says):
            get_embedder(bad)
    with pytest.raises(ConfigError, match="abacus"):
        get_embedder("image", device="abacus")


def test_where_an_example_stands():
    assert Item(1, "k").where(3) == "row 3"
    assert Item(1, "k", "a.png").where(3) == "row 3 (a.png)"


def test_many_threads_may_embed_with_a_module_in_training_mode():
    """Each batch is embedded in evaluation mode, and the module is left as it was."""
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 3)).train()
    x = torch.ones(2, 4)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: module_output(net, x, "net"), range(400)))
    assert all(torch.equal(z, found[0]) for z in found)
    assert net.training
    assert net[1].training

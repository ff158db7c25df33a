"""The error tree, and what every room says it exports."""

import importlib
import inspect
import re
from typing import get_args

import pytest

import quickstudy
from quickstudy.cli.output import guarded
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


def subclasses(kind=errors.QuickstudyError):
    """Walk the tree as it is in this process, other rooms' errors included."""
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def test_every_error_declares_whose_fault_it_is():
    for kind in (errors.QuickstudyError, *subclasses()):
        assert vars(kind).get("fault") in get_args(errors.Fault), kind


def test_the_drawn_tree_says_whose_fault_each_error_is():
    drawn = dict(re.findall(r"(\w+Error) +(input|data|file|ours) ", errors.__doc__))
    here = {kind for kind in subclasses() if kind.__module__ == errors.__name__}
    assert drawn == {kind.__name__: kind.fault for kind in (errors.QuickstudyError, *here)}
    for fault in get_args(errors.Fault):
        assert f"``{fault}``: " in errors.__doc__


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (errors.ConfigError("no such name"), "input"),
        (errors.TaskError("too few examples"), "input"),
        (errors.ChecksumError("another file"), "data"),
        (errors.CheckpointError("disk full"), "file"),
        (errors.MissingExtraError("onnx", "onnx"), "ours"),
        (errors.QuickstudyError("standard output is closed"), "ours"),
        (ValueError("a bug"), "ours"),
        (OSError("disk full"), "ours"),
        (MemoryError(), "ours"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_whose_fault_an_exception_is(error, fault):
    assert errors.fault_of(error) == fault


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)])
def test_a_request_to_stop_is_nobodys_fault(stop):
    with pytest.raises(TypeError, match="request to stop"):
        errors.fault_of(stop)


@pytest.mark.parametrize("kind", sorted({*subclasses()}, key=lambda kind: kind.__name__))
def test_only_an_unforeseen_error_is_called_a_fault_of_ours_at_the_command_line(kind, capsys):
    error = kind("onnx", "onnx") if kind is errors.MissingExtraError else kind("what, got, do.")

    def action(error=error):
        raise error

    assert guarded(action, debug=False) == (2 if kind is errors.ConfigError else 1)
    assert "fault of Quickstudy" not in capsys.readouterr().err
    assert guarded(lambda: action(RuntimeError("a bug")), debug=False) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: RuntimeError: a bug. This is a fault of Quickstudy's; run again")


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

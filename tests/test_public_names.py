"""No public name answers a wrong type with a raw error: it is refused at the door, in our words."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from torch import nn

import quickstudy
from quickstudy.core import QuickstudyError
from quickstudy.core.arguments import accepts

WRONG: tuple[Any, ...] = (None, -1, 1.5, "x", b"x", True, [], ["x"], {}, object(), int, np.zeros(2))
# Called for every class, row or inner step: they check what they are given themselves, or are
# called by ours alone. The second test holds those of them that a user may call to our errors.
UNCHECKED = {
    "check_state": "for every batch of tasks",
    "descend": "for every inner loop",
    "fault_of": "errors: the check itself needs them",
    "held_out_together": "for every task that is fitted",
    "generator": "for every random draw",
    "held_out_in": "for every task that is fitted",
    "held_out_logits": "for every task that is fitted",
    "keys": "for every random draw",
    "n_tasks": "for every batch of tasks",
    "nearest_names": "errors: the check itself needs them",
    "normals": "for every random draw",
    "sample_index": "for every episode",
    "slice_tasks": "for every batch of tasks",
    "uniforms": "for every random draw",
    "Episode": "for every episode: checks itself",
    "EpisodeSpec": "for every episode: checks itself",
    "Examples": "for every episode: checks itself",
    "FewShotClassifier": "scikit-learn wants no check before fit",
    "TabularInContextClassifier": "scikit-learn wants no check before fit",
    "predict_files": "checks itself, in words of its own",
}


def rooms() -> Iterator[Any]:
    """Yield the rooms and their families: what they export is public."""
    yield quickstudy
    for found in pkgutil.walk_packages(quickstudy.__path__, "quickstudy."):
        if found.ispkg and not found.name.startswith("quickstudy.cli"):
            yield importlib.import_module(found.name)


def public_callables() -> dict[str, Callable[..., Any]]:
    """Return what can be called: functions, and classes that make themselves."""
    found: dict[str, Callable[..., Any]] = {}
    for room in rooms():
        for name in getattr(room, "__all__", []):
            value = getattr(room, name)
            if inspect.isfunction(value) or (inspect.isclass(value) and makes_itself(value)):
                found[name] = value
    return found


def makes_itself(kind: type) -> bool:
    """Return whether a class is made by its own ``__init__``, and not only by ours.

    Errors, protocols and records of plain values take everything; pydantic checks its models.
    """
    if issubclass(kind, BaseException | pydantic.BaseModel) or getattr(kind, "_is_protocol", False):
        return False
    if dataclasses.is_dataclass(kind):
        return hasattr(kind, "__post_init__")
    return "__init__" in vars(kind)


def call_of(value: Callable[..., Any]) -> Callable[..., Any]:
    return value.__init__ if inspect.isclass(value) else value  # type: ignore[misc]


def hints_of(value: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotation of each parameter that says something."""
    names = vars(sys.modules[value.__module__])
    hints = {}
    for parameter in inspect.signature(call_of(value)).parameters.values():
        hint = parameter.annotation
        if parameter.name == "self" or hint is inspect.Parameter.empty:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hints[parameter.name] = eval(hint, names) if isinstance(hint, str) else hint
    return {name: hint for name, hint in hints.items() if hint is not Any}


def made(value: Any) -> Any:
    """Return an abstract class as one that can be made, everything else as it is."""
    if not inspect.isabstract(value):
        return value
    concrete = type(value.__name__, (value,), {})
    concrete.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    return concrete


def example(hint: Any) -> Any:
    """Return a value of an annotation: right by type, whatever it means."""
    candidates: list[Any] = [None, 1, 0.5, "a", b"a", False, Path("a"), len, int]
    candidates += [(), [], {}, set(), frozenset()]
    candidates += [torch.zeros(1), np.zeros(1), torch.device("cpu"), nn.Identity()]
    for value in candidates:
        if accepts(hint, value):
            return value
    for one in (hint, *typing.get_args(hint)):
        if inspect.isclass(one):
            # an object of the class that was never made: enough to be of its type
            concrete = type(one.__name__, (one,), {"__init__": lambda self: None})
            concrete.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
            return object.__new__(concrete)
        if typing.get_origin(one) is typing.Literal:
            return typing.get_args(one)[0]
        if typing.get_origin(one) is tuple:
            return tuple(example(part) for part in typing.get_args(one))
    raise AssertionError(f"no example of {hint}")


PUBLIC = public_callables()
CHECKED = {n: v for n, v in PUBLIC.items() if n not in UNCHECKED and hints_of(v)}


def test_every_public_callable_is_checked_or_excepted() -> None:
    bare = [n for n, v in CHECKED.items() if not getattr(call_of(v), "checked", False)]
    assert bare == [], "put @checked on them, or write down in UNCHECKED why not"
    assert sorted(set(UNCHECKED) - set(PUBLIC) - {"predict_files"}) == [], "no such names any more"


@pytest.mark.parametrize("name", CHECKED)
def test_a_wrong_type_is_refused_with_the_name_of_the_argument(name: str) -> None:
    function, hints = made(CHECKED[name]), hints_of(CHECKED[name])
    good = {parameter: example(hint) for parameter, hint in hints.items()}
    signature = inspect.signature(call_of(function)).parameters.values()
    good |= {
        p.name: None
        for p in signature
        if p.name not in (*hints, "self") and p.default is p.empty and p.kind in (1, 3)
    }
    refused = 0
    for parameter, hint in hints.items():
        for wrong in WRONG:
            if accepts(hint, wrong):
                continue
            with pytest.raises(QuickstudyError) as caught:
                function(**good | {parameter: wrong})
            assert f"{parameter} needs" in str(caught.value)
            refused += 1
    assert refused or all(accepts(hint, wrong) for hint in hints.values() for wrong in WRONG)

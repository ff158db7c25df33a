"""Arguments are refused at the door: by type, with their name, what they need and what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from quickstudy.core import ConfigError
from quickstudy.core.arguments import accepts, checked, in_words

GOOD_AND_BAD: list[tuple[Any, list[Any], list[Any]]] = [
    (int, [3, np.int64(3)], [True, 1.5, "3", None, [3]]),
    (float, [3, 1.5, np.float32(1)], [True, "1.5", None, 1j]),
    (bool, [True, np.bool_(False)], [1, "yes", None]),
    (str, ["a"], [b"a", 1, None, ["a"]]),
    (int | None, [3, None], ["3"]),
    (str | Path, ["a", Path("a")], [b"a", 1, None]),
    (Literal["mean", 1], ["mean", 1], ["sum", True, None]),
    (Sequence[str], [["a"], ("a",), []], ["a", [1], None, {"a": 1}]),
    (Sequence[str] | str, ["a", ["a"]], [[1], 1]),
    (list[int], [[1], []], [(1,), [1.5], "1"]),
    (tuple[int, ...], [(1, 2, 3), ()], [[1], (1.5,)]),
    (tuple[int, str], [(1, "a")], [(1,), ("a", 1), None]),
    (Mapping[str, int], [{"a": 1}, {}], [{1: 1}, {"a": "b"}, [("a", 1)]]),
    (Callable[[int], str], [len, int], ["len", None]),
    (type, [int], [1, "int"]),
    (torch.Tensor, [torch.zeros(1)], [np.zeros(1), [0.0], None]),
    (Iterable[int], [[1], iter([1])], [1, None, "12"]),
    (Any, [1, None, object()], []),
]


@pytest.mark.parametrize(("hint", "good", "bad"), GOOD_AND_BAD, ids=lambda v: str(v)[:30])
def test_an_annotation_accepts_its_values_and_no_others(
    hint: Any, good: list[Any], bad: list[Any]
) -> None:
    assert all(accepts(hint, value) for value in good)
    assert [value for value in bad if accepts(hint, value)] == []


def test_annotations_are_said_in_words() -> None:
    assert in_words(int | None) == "a whole number or None"
    assert in_words(None | str | Path) == "a text, a path or None"
    assert in_words(Literal["mean", "sum"]) == "'mean' or 'sum'"
    assert in_words(Sequence[str]) == "a list of texts"
    assert in_words(torch.Tensor) == "a Tensor"


@checked
def repeat(text: str, times: int = 2, *more: float, **named: bool) -> str:
    return text * times + str(more) * len(named)


@checked
@dataclass(frozen=True)
class Point:
    x: float
    name: str = "p"


class Later:
    def method(self, other: Unborn) -> bool:  # its annotation exists when it is called
        return isinstance(other, Unborn)

    method = checked(method)


class Unborn:
    pass


def test_a_wrong_argument_is_named_with_what_it_needs_and_what_it_is() -> None:
    assert repeat("ab") == "abab"
    with pytest.raises(ConfigError, match=r"^repeat: text needs a text; got 5 \(int\)\.$"):
        repeat(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"times needs a whole number; got 'a' \(str\)"):
        repeat("ab", times="a")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="more needs a tuple of numbers"):
        repeat("ab", 1, 2.5, "c")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="named needs a dict"):
        repeat("ab", loud=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Point: x needs a number; got None"):
        Point(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Later\.method: other needs an Unborn; got an object"):
        Later().method(object())  # type: ignore[arg-type]
    assert Later().method(Unborn())


def test_what_is_missing_or_unknown_is_said_by_python() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'text'"):
        repeat()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        Point(1.0, z=3)  # type: ignore[call-arg]

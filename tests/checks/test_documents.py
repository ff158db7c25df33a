"""Documents that are checked may hold anything: wrong types are a typed error or a finding."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quickstudy.checks.findings import Finding
from quickstudy.checks.suite import check_file
from quickstudy.core import DataError

EVALUATED: dict[str, Any] = {
    "command": "evaluate",
    "accuracy": {"mean": 0.5, "ci95": 1.2706204736},
    "protocol": {"episodes": 2, "n_way": 5, "trained_on": False, "transductive": False},
    "calibration_error": 0.1,
    "scores": [0.4, 0.6],
}
ONE = {k: v for k, v in EVALUATED.items() if k != "command"}
COMPARED: dict[str, Any] = {
    "command": "compare",
    "results": [
        {**ONE, "tasks": "t", "learner": "a"},
        {**ONE, "tasks": "t", "learner": "b"},
    ],
    "paired": [{"tasks": "t", "first": "a", "second": "b", "mean": 0.0, "p": 1.0}],
}
HOSTILE: list[Any] = [
    *(None, True, "x", "", -1, 7, 1e308, 10**400, float("nan"), float("inf")),
    *([], {}, [1], ["x"], [[0.4, 0.6]], [None], {"x": 1}, [{}]),
]


def places(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield before
    inner = document.items() if isinstance(document, dict) else ()
    inner = enumerate(document) if isinstance(document, list) else inner
    for key, value in inner:
        yield from places(value, (*before, key))


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    whole = copy.deepcopy(document)
    inside: Any = whole
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return whole


@pytest.mark.parametrize("document", [EVALUATED, COMPARED], ids=["evaluate", "compare"])
def test_the_documents_are_sound_as_they_are(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(document))
    assert not [o for o in check_file(path).outcomes if isinstance(o, Finding)]


@pytest.mark.parametrize("document", [EVALUATED, COMPARED], ids=["evaluate", "compare"])
def test_any_value_in_any_place_is_told_or_refused(
    document: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    for place in places(document):
        for value in HOSTILE:
            path.write_text(json.dumps(changed(document, place, value)))
            try:
                report = check_file(path)
            except DataError:
                continue
            json.dumps(report.to_dict(), allow_nan=False)
            assert report.text(), (place, value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("accuracy",), [0.5]),
        (("accuracy", "mean"), True),
        (("accuracy", "mean"), "high"),
        (("accuracy", "ci95"), True),
        (("accuracy", "ci95"), [0.1]),
        (("accuracy", "ci95"), {"low": 0}),
        (("protocol",), [1]),
        (("protocol", "episodes"), "two"),
        (("scores",), 3),
        (("scores",), "x"),
        (("scores",), {"a": 1}),
        (("scores",), [[0.4, 0.6]]),
        ((), [1]),
        ((), None),
    ],
)
def test_wrong_types_are_a_fault_of_the_data(
    place: tuple[Any, ...], value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(changed(EVALUATED, place, value)))
    with pytest.raises(DataError, match="document"):
        check_file(path)

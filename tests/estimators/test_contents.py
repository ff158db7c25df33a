"""What a task holds, as numbers, and its page: few and many classes, doubtful examples by name."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.answers import Suspect
from quickstudy.estimators.contents import count_confusion, odds_in_words, task_contents
from quickstudy.estimators.page import write_page
from quickstudy.estimators.support import Support


def classifier(n_way: int, each: int = 6, wrong: int = 1) -> FewShotClassifier:
    """Return a task of classes far apart, of which the first ``wrong`` examples are mislabelled."""
    rng = np.random.default_rng(0)
    centres = 8 * rng.normal(size=(n_way, 16))
    y = np.repeat(np.arange(n_way), each)
    x = (centres[y] + rng.normal(size=(len(y), 16))).astype(np.float32)
    labels = [f"class <{c:03}> & co" for c in y]
    for row in range(wrong):
        labels[row * each] = f"class <{(row + 1) % n_way:03}> & co"
    return FewShotClassifier("array").fit(x, labels)


def page_of(clf: FewShotClassifier, folder: Path) -> str:
    write_page(clf.version_, folder / "p.html", title="t")
    return (folder / "p.html").read_text(encoding="utf-8")


def test_the_confusion_is_counted_by_label_and_answer() -> None:
    items = FewShotClassifier("array").fit(np.eye(4), ["a", "a", "b", "c"]).support_.items
    support = Support(("a", "b", "c"), items, np.array([0, 0, 1, 2]), np.eye(4, dtype=np.float32))
    ranked = [
        Suspect(0, "a", "c", 2.0, None),
        Suspect(1, "a", "b", -1.0, None),
        Suspect(3, "c", "a", 0.5, None),
    ]
    found = count_confusion(support, ranked)
    assert found.counts.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert (found.judged, found.right) == (3, 1)
    assert [(p.label, p.answer, p.count, p.examples) for p in found.pairs()] == [
        ("c", "a", 1, 1),
        ("a", "c", 1, 2),
    ]


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (0.001, "about even"),
        (np.log(2), "2 to 1"),
        (np.log(19), "19 to 1"),
        (np.log(1001), "more than 1,000 to 1"),
        (1e6, "more than 1,000 to 1"),
    ],
)
def test_odds_in_words(evidence: float, words: str) -> None:
    assert odds_in_words(evidence) == words


def test_the_contents_are_those_of_the_task() -> None:
    clf = classifier(4)
    found: dict[str, Any] = task_contents(clf.version_)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [c["label"] for c in found["classes"]] == list(clf.classes_)
    assert sum(c["examples"] for c in found["classes"]) == len(found["examples"]) == 24
    assert found["expected_accuracy"]["mean"] == clf.version_.estimate_accuracy().mean
    assert [s["row"] for s in found["suspects"]] == [0]
    assert found["suspects"][0]["suggestion"] == "class <000> & co"
    assert found["confusion"]["held_out"] - found["confusion"]["right"] == 1
    assert sum(c["right"] for c in found["classes"]) == found["confusion"]["right"] == 23


@pytest.mark.parametrize("n_way", [1, 2, 12, 13, 77])
def test_a_page_of_any_number_of_classes(n_way: int, tmp_path: Path) -> None:
    clf = classifier(n_way, each=3, wrong=0 if n_way == 1 else 1)
    page = page_of(clf, tmp_path)
    assert page.count("class &lt;000&gt; &amp; co") >= 1
    assert "<000>" not in page  # every label is escaped
    legend = re.search(r'<ul class="legend">(.*?)</ul>', page)
    assert legend is not None
    entries = legend[1].count("<li>")
    assert entries == (n_way if n_way <= 10 else 11)
    assert ("all other classes" in legend[1]) is (n_way > 10)
    colours = set(re.findall(r'fill="(#\w+)"', page))
    assert len(colours) == entries
    assert ("<details>" in page) is (n_way > 20)
    assert ('aria-label="Confusion"' in page) is (1 < n_way <= 12)
    assert ("taken for <b>" in page) is (n_way > 12)


def test_a_doubtful_example_is_named_and_its_odds_are_words(tmp_path: Path) -> None:
    page = page_of(classifier(3), tmp_path)
    doubt = re.search(r'<ul class="doubts">(.*?)</ul>', page)
    assert doubt is not None
    text = html.unescape(re.sub("<[^>]*>", "", doubt[1]))
    assert text.startswith("labelled class <001> & co, looks like class <000> & co: ")
    assert text.endswith(" to 1example 0")
    assert "log-odds" not in page


def test_every_doubt_is_on_the_page_or_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(2200) % 2
    x = (rng.normal(size=(2200, 4)) + 6 * np.eye(4)[y]).astype(np.float32)
    # one label in nine is wrong
    clf = FewShotClassifier("array", head="prototype").fit(
        x, np.where(np.arange(2200) % 9, y, 1 - y)
    )
    n = len(clf.version_.suspects())
    page = page_of(clf, tmp_path)
    shown = page.count("looks like <b>")
    more = re.search(r"and (\d+) more; quickstudy show --json", page)
    assert n > 200  # or the limit is not met
    assert more is not None
    assert shown + int(more[1]) == n

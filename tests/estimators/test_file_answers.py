"""Answers for files: an input that cannot be used costs no other its answer, and all is told."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quickstudy.core import ConfigError, DataError
from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.agreement import agreement
from quickstudy.estimators.embedding import embed_each
from quickstudy.estimators.files import fit_files, predict_files
from quickstudy.tasks.labelled import LabelledFiles

CLASSES = "abc"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stroke(kind: int, at: int) -> Image.Image:
    paper = np.full((40, 40), 255, np.uint8)
    if kind != 1:
        paper[6:34, at - 2 : at + 1] = 0
    if kind != 0:
        paper[at - 2 : at + 1, 6:34] = 0
    return Image.fromarray(paper)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A task of three kinds of strokes, and new ones in folders of the same names."""
    for part, places in (("old", (10, 15, 20, 25)), ("new", (12, 18, 23))):
        for c, name in enumerate(CLASSES):
            (tmp_path / part / name).mkdir(parents=True)
            for at in places:
                stroke(c, at).save(tmp_path / part / name / f"{at}.png")
    clf = FewShotClassifier("characters", head="prototype")
    paths = sorted((tmp_path / "old").glob("*/*"))
    clf.fit(paths, [path.parent.name for path in paths]).save(tmp_path / "t.task")
    return tmp_path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = ["id,a,b,label"]
    for i in range(12):
        a, b = draw.normal(0, 0.1, 2) + (3 if i % 2 else 0)
        rows.append(f"00{i},{a:.4f},{b:.4f},{'high' if i % 2 else 'low'}")
    (tmp_path / "points.csv").write_text("\n".join(rows) + "\n")
    slim = ["a,b,label", *(row.split(",", 1)[1] for row in rows[1:])]
    (tmp_path / "fit.csv").write_text("\n".join(slim) + "\n")
    fit_files(tmp_path / "fit.csv", tmp_path / "p.task")
    return tmp_path / "points.csv"


def bad_inputs(folder: Path) -> dict[str, str]:
    """Return inputs that are no pictures, with a word of the reason."""
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "new/a/12.png").read_bytes()[:60])
    (folder / "page.jpg").write_text("<html>")
    (folder / "data.csv").write_text("a,b\n1,2\n")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return {
        str(folder / "empty.png"): "0 bytes",
        str(folder / "cut.png"): "truncated",
        str(folder / "page.jpg"): "cannot be read as an image",
        str(folder / "data.csv"): "cannot be read as an image",
        str(folder / "pipe.png"): "a pipe",
        str(folder / "loop.png"): "cannot be read",
        str(folder / "gone.png"): "no such file",
        "/dev/zero": "a device",
    }


def test_bad_pictures_cost_no_other_its_answer(pictures: Path):
    bad = bad_inputs(pictures)
    good = sorted(map(str, (pictures / "new").glob("*/*.png")))
    mixed = [name for pair in zip(good, [*bad, good[0]], strict=True) for name in pair]
    found = predict_files(pictures / "t.task", mixed)
    alone = predict_files(pictures / "t.task", good)
    assert [row["input"] for row in found.rows()] == mixed
    kept = [row for row in found.rows() if "error" not in row]
    assert kept[:-1] == alone.rows()  # the last is the one that fills up
    errors = {row["input"]: row["error"] for row in found.rows() if "error" in row}
    assert errors.keys() == bad.keys()
    for name, reason in errors.items():
        assert bad[name] in reason
        assert "row" not in reason
    assert found.to_dict()["errors"] == len(found.errors) == len(bad)
    json.dumps(found.to_dict(), allow_nan=False)
    assert f"{len(bad)} without an answer" in found.text()


def test_nothing_but_bad_inputs_is_told_row_by_row(pictures: Path):
    found = predict_files(pictures / "t.task", list(bad_inputs(pictures)))
    assert found.answers == (None,) * 8
    assert found.accuracy is None
    assert found.counts == {}
    assert "8 inputs: 8 without an answer" in found.text(each=False)


def test_pictures_in_open_files_and_a_folder_with_other_things(pictures: Path):
    data = io.BytesIO((pictures / "new/b/12.png").read_bytes())
    for given in (data, [data], [data, pictures / "new/b/12.png"]):
        found = predict_files(pictures / "t.task", given)
        assert {row["label"] for row in found.rows()} == {"b"}
    assert found.inputs.names[0] == "input 0"
    (pictures / "new/notes.txt").write_text("x")
    heard: list[str] = []
    predict_files(pictures / "t.task", pictures / "new", say=heard.append)
    assert len(heard) == 1
    assert "1 file was not read: 1 .txt" in heard[0]
    (pictures / "none").mkdir()
    with pytest.raises(DataError, match="no images"):
        predict_files(pictures / "t.task", pictures / "none")


def test_folders_named_as_classes_are_the_right_labels(pictures: Path):
    found = predict_files(pictures / "t.task", pictures / "new")
    assert found.accuracy == 1.0
    assert found.text().endswith("accuracy against the names of the folders: 100.00 % of 9")
    (pictures / "new/a/18.png").rename(pictures / "new/b/moved.png")
    (pictures / "new/z").mkdir()
    stroke(0, 14).save(pictures / "new/z/0.png")
    found = predict_files(pictures / "t.task", pictures / "new")
    assert found.agreement is not None
    assert found.accuracy == 8 / 10
    assert found.agreement.confusions == {("b", "a"): 1}
    assert found.agreement.strange == 1
    text = found.text()
    assert "1 of 4 'b' was taken for 'a'" in text
    assert "1 input has a label that is no class of the task" in text
    assert "'z'" in text
    # folders of other names say nothing about labels
    (pictures / "new").rename(pictures / "x")
    for name in CLASSES:
        (pictures / "x" / name).rename(pictures / "x" / f"day {name}")
    assert predict_files(pictures / "t.task", pictures / "x").accuracy is None


def test_the_most_likely_classes(pictures: Path):
    path = pictures / "new/a/12.png"
    clf = FewShotClassifier.load(pictures / "t.task")
    p = clf.predict_proba([path])[0]
    order = np.argsort(-p)
    for top in (1, 2, 3, 99):
        (row,) = predict_files(pictures / "t.task", path, top=top).rows()
        assert [one["label"] for one in row["top"]] == [clf.classes_[c] for c in order[:top]]
        assert [one["probability"] for one in row["top"]] == [
            pytest.approx(p[c], abs=1e-4) for c in order[:top]
        ]
    assert "top" not in predict_files(pictures / "t.task", path).rows()[0]


def test_a_cell_that_cannot_be_read_costs_one_row(table: Path):
    lines = table.read_text().splitlines()
    lines[3] = "002,,0.1,low"
    lines[5] = "004,word,0.1,low"
    table.write_text("\n".join(lines) + "\n")
    found = predict_files(table.parent / "p.task", table)
    assert set(found.errors) == {2, 4}
    assert "'a'" in found.errors[2]
    assert "'word'" in found.errors[4]
    assert sum(answer is not None for answer in found.answers) == 10
    assert found.accuracy == 1.0
    assert found.agreement is not None
    assert found.agreement.n == 10


def test_a_fault_of_the_whole_table_is_said_once(table: Path):
    table.write_text(table.read_text().replace("id,a,b", "id,a,q"))
    with pytest.raises(DataError, match="'b'"):
        predict_files(table.parent / "p.task", table)


def test_texts_that_are_none_cost_no_other_its_answer():
    clf = FewShotClassifier(lambda texts: [[len(t), t.count("a")] for t in texts])
    clf.fit(["a", "aa", "bbbbbb", "bbbbbbb"], ["a", "a", "b", "b"])
    texts = ["a", None, "", "bbbbbb", 5, " ", "aa", "lone \udce9"]
    read = LabelledFiles(texts, None, "text", list(map(str, texts)))
    z, good, errors = embed_each(clf.version_, read)
    assert good == [0, 3, 6]
    assert len(z) == 3
    assert set(errors) == {1, 2, 4, 5, 7}
    assert all("row 0" not in reason for reason in errors.values())


@pytest.mark.parametrize("bad", [[0], [99], [0, 99], [63, 64], list(range(40)), list(range(1, 99))])
def test_every_answer_stays_with_its_input(bad: list[int]):
    texts: list[str | None] = ["x" * (i + 1) for i in range(100)]
    for i in bad:
        texts[i] = None
    clf = FewShotClassifier(lambda texts: [[len(t)] for t in texts]).fit(["x", "xx"], ["a", "b"])
    read = LabelledFiles(texts, None, "image", list(map(str, texts)))  # in parts of 64
    z, good, errors = embed_each(clf.version_, read)
    assert sorted(errors) == bad
    assert good == [i for i in range(100) if i not in bad]
    assert z[:, 0].tolist() == [i + 1 for i in good]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"coverage": "x"}, "coverage"),
        ({"coverage": 1.0}, "coverage must lie between 0 and 1"),
        ({"coverage": True}, "coverage"),
        ({"top": -1}, "top"),
        ({"top": 1.5}, "top"),
        ({"inputs": None}, "give inputs"),
        ({"inputs": 5}, "inputs"),
        ({"inputs": [5]}, "inputs"),
        ({"inputs": ""}, "empty path"),
        ({"inputs": (), "texts": 5}, "texts"),
        ({"texts": ["both"]}, "one kind"),
    ],
)
def test_wrong_arguments_are_named(table: Path, arguments: dict[str, Any], says: str):
    given = {"inputs": [table], **arguments}
    with pytest.raises(ConfigError, match=says) as caught:
        predict_files(table.parent / "p.task", **given)
    assert "--" not in str(caught.value)


# ---------------------------------------------------------------- answers beside right labels


def test_agreement_by_hand():
    answers = ["a", "a", "b", "b", "c", None, "a", "none"]
    labels = ["a", "b", "b", "b", "zebra", "a", None, "none"]
    found = agreement(answers, labels, ["a", "b", "c"], "none")
    assert (found.n, found.right, found.strange) == (6, 4, 1)
    assert found.accuracy == 4 / 6
    rows = {one.label: (one.n, one.right, one.answered) for one in found.classes}
    assert rows == {"a": (1, 1, 2), "b": (3, 2, 2), "c": (0, 0, 1), "none": (1, 1, 1)}
    by_name = {one.label: one for one in found.classes}
    assert by_name["b"].recall == 2 / 3
    assert by_name["a"].precision == 1 / 2
    assert by_name["c"].recall is None
    assert found.confusions == {("b", "a"): 1}
    assert agreement([None], ["a"], ["a"]).accuracy is None


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        ([True, False], ["true", "False", "TRUE"]),
        ([1.0, 0.0], ["1", "0.0", "1e0"]),
        ([1, 0], [1.0, "0", "1.0"]),
        (["1", "0"], [1, 0.0, "1.0"]),
        (["2024-01-31", "x"], ["2024-01-31 00:00:00", "x", "2024-01-31"]),
        (["caf\u00e9", "tea"], ["cafe\u0301", " tea ", "caf\u00e9"]),
    ],
)
def test_another_spelling_of_the_same_value_is_right(classes: list[Any], labels: list[Any]):
    answers = [classes[0], classes[1], classes[0]]
    found = agreement(answers, labels, classes)
    assert found.accuracy == 1.0
    assert found.strange == 0


def test_many_classes_stay_a_readable_table():
    classes = [f"{'long name ' * 9}{i}" for i in range(200)]
    found = agreement(classes, [*classes[1:], classes[0]], classes)
    lines = found.text().splitlines()
    assert len(lines) < 45
    assert max(map(len, lines)) < 120


def test_a_line_names_its_input_once(tmp_path):
    rows = [{"a": n, "b": n % 3, "label": "low" if n < 4 else "high"} for n in range(8)]
    fit_files(rows, tmp_path / "t.task")
    (tmp_path / "new.csv").write_text("a,b\n1,2\nnone,2\n")
    found = predict_files(tmp_path / "t.task", tmp_path / "new.csv")
    line = found.text().splitlines()[1]
    assert "no answer: column 'a'" in line
    assert "line 3" in found.rows()[1]["error"]

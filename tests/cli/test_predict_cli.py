"""``quickstudy predict``: its files, exit codes and summary; ``quickstudy cache``."""

from __future__ import annotations

import csv
import json
import os
import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from quickstudy.cli import main
from quickstudy.cli.rows import beside, write_columns
from quickstudy.core import ConfigError
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.storage.cached import CACHE_KINDS, cache_parts, clear_cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "quickstudy"


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture
def points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A task of points, and a table with an id, odd texts and a column named as one of ours."""
    draw = np.random.default_rng(0)
    rows: list[list[Any]] = []
    for i in range(10):
        a, b = draw.normal(0, 0.1, 2) + (3 if i % 2 else 0)
        rows.append([f"00{i}", f"{a:.4f}", f"{b:.3e}", ("high", "low")[i % 2], "1,5", "x"])
    for name, columns in (("fit", slice(1, 4)), ("new", slice(0, 6))):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "a", "b", "label", "note, with comma", "known"][columns])
            writer.writerows(row[columns] for row in rows)
    assert run("fit", tmp_path / "fit.csv", "--out", tmp_path / "p.task") == 0
    capsys.readouterr()
    return tmp_path / "new.csv"


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_tables_own_columns_come_along_untouched(
    points: Path, ending: str, capsys: pytest.CaptureFixture[str]
):
    out = points.parent / f"out.{ending}"
    assert run("predict", points.parent / "p.task", points, "--out", out, "--top", 2) == 0
    own, found = read(points), read(out)
    assert [{name: row[name] for name in own[0]} for row in found] == own
    assert list(found[0]) == [
        *("id", "a", "b", "label", "note, with comma", "known"),
        *("input", "predicted_label", "nearest", "probability", "predicted_known", "error"),
        *("top_1", "top_1_probability", "top_2", "top_2_probability"),
    ]
    assert [row["predicted_label"] for row in found] == [row["label"] for row in own]
    # ours is written over, and no other file
    assert run("predict", points.parent / "p.task", points, "--out", out) == 0
    before = points.read_bytes()
    assert run("predict", points.parent / "p.task", points, "--out", points) == 2
    assert points.read_bytes() == before
    assert "what is read here" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_class_and_rows_without_an_answer(
    points: Path, ending: str, capsys: pytest.CaptureFixture[str]
):
    lines = points.read_text().splitlines()
    lines[2] = "001,nothing,0.1,low,,x"
    points.write_text("\n".join(lines) + "\n")
    out = points.parent / f"out.{ending}"
    words = ("predict", points.parent / "p.task", points, "--out", out, "--all", "--json")
    assert run(*words) == 3
    heard = capsys.readouterr()
    document = json.loads(heard.out)
    assert document["errors"] == 1
    assert document["answers"][1]["label"] is None
    assert "error: 1 of 10 inputs got no answer" in heard.err
    found = read(out)
    empty = "" if ending == "csv" else None
    assert found[1]["predicted_label"] == empty
    assert "nothing" in found[1]["error"]
    assert found[0]["error"] == empty
    for row in found[:1] + found[2:]:
        total = float(row["probability_high"]) + float(row["probability_low"])
        assert total == pytest.approx(1, abs=1e-3)
    assert found[1]["probability_high"] == empty


def test_whole_numbers_with_a_word_for_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table = tmp_path / "t.jsonl"
    rows = [{"a": 9.0 * (i % 2) + i / 50, "b": float(i % 2), "label": i % 2} for i in range(24)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    far = tmp_path / "far.jsonl"
    far.write_text(json.dumps({"a": -500.0, "b": 90.0}) + "\n" + json.dumps({"a": 0.1, "b": 0.0}))
    task = tmp_path / "t.task"
    assert run("fit", table, "--unknown", "none", "--out", task) == 0
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"out.{ending}"
        assert run("predict", task, far, "--out", out) == 0
        labels = [row["label"] for row in read(out)]
        assert list(map(str, labels)) == ["none", "0"]
    assert "1 none, 1 0; 1 far from every class" in capsys.readouterr().out


def test_columns_of_any_type_are_written(tmp_path: Path):
    odd = {
        "mixed": [1, "one", None],
        "truth": [True, 2, None],
        "huge": [10**30, 1, 2],
        "lists": [[1, 2], {"a": 1}, None],
        "lone surrogate \udce9": ["caf\udce9", "x", "y"],
        "kept": [1.5, 2.5, None],
    }
    for ending in ("csv", "jsonl", "parquet"):
        write_columns(tmp_path / f"t.{ending}", odd)
        found = read(tmp_path / f"t.{ending}")
        assert len(found) == 3
        assert str(found[0]["mixed"]) == "1"
        assert "caf\\xe9" in found[0].values()
        assert float(found[0]["kept"]) == 1.5
    with pytest.raises(ConfigError, match=r"\.csv, \.jsonl or \.parquet"):
        write_columns(tmp_path / "t.xlsx", odd)


def test_names_that_are_taken_twice():
    own = {"label": [1], "predicted_label": [2]}
    assert beside(own, {"label": [3], "error": [None]}) == {
        "label": [1],
        "predicted_label": [2],
        "predicted_label_2": [3],
        "error": [None],
    }


def test_the_answers_are_printed_where_the_file_cannot_be(
    points: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("quickstudy.cli.rows.write_atomically", full)
    out = points.parent / "out.csv"
    assert run("predict", points.parent / "p.task", points, "--out", out, "--json") == 1
    heard = capsys.readouterr()
    assert len(json.loads(heard.out)["answers"]) == 10
    assert "No space left" in heard.err


def test_a_summary_alone_and_lines_that_fit(
    points: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    long = tmp_path / f"{'x' * 120}.csv"
    long.write_bytes(points.read_bytes())
    assert run("predict", tmp_path / "p.task", long, "--label", "label", "--top", "2") == 0
    heard = capsys.readouterr()
    assert max(map(len, heard.out.splitlines())) <= 120
    assert "%|" not in heard.err  # no bar where there is no terminal
    assert run("predict", tmp_path / "p.task", points, "--label", "label", "--quiet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "10 inputs: 5 high, 5 low"
    assert lines[1].split() == ["class", "inputs", "right", "recall", "precision"]
    assert lines[-1] == "accuracy against the column of labels: 100.00 % of 10"
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--coverage", "2"], "--coverage must lie between 0 and 1"),
        (["--top", "0"], "--top must be at least 1"),
        (["--top", "2", "--all"], "--all lists every class"),
        (["--text", "both"], "give inputs of one kind"),
        (["--out", "answers.xlsx"], "--out answers.xlsx must end in"),
    ],
)
def test_misuse_is_told_in_the_words_of_options(
    points: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
):
    assert run("predict", points.parent / "p.task", points, *words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_labels_in_the_spelling_of_another_format(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    draw = np.random.default_rng(0)
    make, write = (bool, lambda c: str(bool(c)).lower()) if kind == "bool" else (float, str)
    rows = [(draw.normal(3 * c, 0.3), draw.normal(), c) for c in [0, 1] * 10]
    lines = [json.dumps({"a": a, "b": b, "label": make(c)}) for a, b, c in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    cells = "".join(f"{a},{b},{write(c)}\n" for a, b, c in rows)
    (tmp_path / "t.csv").write_text("a,b,label\n" + cells)
    assert run("fit", tmp_path / "t.jsonl", "--out", tmp_path / "t.task") == 0
    for name in ("t.jsonl", "t.csv"):
        capsys.readouterr()
        assert run("predict", tmp_path / "t.task", tmp_path / name, "--label", "label", "-q") == 0
        assert "100.00 % of 20" in capsys.readouterr().out


def test_a_file_whose_name_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for c, name in enumerate((b"caf\xe9", b"tea")):
        for i in range(3):
            path = tmp_path / "in" / os.fsdecode(name) / os.fsdecode(b"%d\xff.png" % i)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((30, 30), 255, np.uint8)
            pixels[5:25, 10 + i : 14 + i] = 0
            Image.fromarray(pixels if c else pixels.T.copy()).save(path, "PNG")
    task, images = tmp_path / "t.task", tmp_path / "in"
    assert run("fit", images, "--encoder", "characters", "--out", task) == 0
    for ending in ("csv", "jsonl", "parquet"):
        capsys.readouterr()
        out = tmp_path / f"out.{ending}"
        assert run("predict", task, images, "--out", out, "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["accuracy"] == 1.0
        assert document["answers"][0]["input"].endswith("caf\\xe9/0\\xff.png")
        assert read(out)[0]["label"] == "caf\\xe9"
    assert run("show", task, "--out", tmp_path / "t.html") == 0
    assert "caf\\xe9" in (tmp_path / "t.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the cache


def test_the_cache_is_shown_and_emptied_and_data_stay(
    own_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert run("cache") == 0
    assert "nothing there yet" in capsys.readouterr().out
    EmbeddingCache().put("space", ["a", "b"], np.ones((2, 8), np.float32))
    for name in ("pools/omniglot-0.safetensors", "checksums.json", "code.json", "images/mine.csv"):
        (own_cache / name).parent.mkdir(parents=True, exist_ok=True)
        (own_cache / name).write_bytes(b"12345")
    (own_cache / "pools" / "mine.txt").write_text("x")
    (own_cache / "images" / "pools").mkdir()
    (own_cache / "images" / "pools" / "mine.safetensors").write_text("x")
    (own_cache / "linked").symlink_to(own_cache.parent.parent)
    assert run("cache", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folder"] == str(own_cache)
    parts = {part["kind"]: part for part in document["parts"]}
    assert parts["embeddings"]["entries"] == 2
    assert (parts["images"]["bytes"], parts["checksums"]["bytes"]) == (5, 5)
    assert parts["data"]["files"] == 5
    # not without being asked, or told
    assert run("cache", "clear") == 2
    assert "--yes" in capsys.readouterr().err
    assert (own_cache / "checksums.json").exists()
    assert run("cache", "clear", "images", "--yes") == 0
    assert not (own_cache / "pools/omniglot-0.safetensors").exists()
    assert (own_cache / "checksums.json").exists()
    assert run("cache", "clear", "--yes", "--json") == 0
    left = sorted(path.name for path in own_cache.rglob("*") if path.is_file())
    assert left == ["code.json", "mine.csv", "mine.safetensors", "mine.txt"]
    assert EmbeddingCache().get("space", ["a"]) == {}
    assert run("cache", "clear", "data", "--yes") == 2
    assert "never deleted" in capsys.readouterr().err


def test_a_damaged_cache_is_listed_and_cleared(own_cache: Path):
    (own_cache / "embeddings").mkdir(parents=True)
    (own_cache / "embeddings" / "embeddings-1.sqlite3").write_bytes(b"no database" * 100)
    assert {part.kind: part.entries for part in cache_parts()}["embeddings"] == 0
    assert clear_cache() == 1100
    assert clear_cache(["embeddings"]) == 0
    assert set(CACHE_KINDS) == {"embeddings", "images", "checksums"}
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(f"file:{own_cache}/embeddings/embeddings-1.sqlite3?mode=ro", uri=True)
    assert re.search("quickstudy$", str(own_cache))

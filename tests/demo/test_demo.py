"""The demonstration, from three training steps on a small pool to a page that stands alone."""

from __future__ import annotations

import json
import re
import urllib.request
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quickstudy.core import ConfigError, DataError, uniforms
from quickstudy.demo import DemoData, DemoResult, find_data, run_demo
from quickstudy.demo import data as demo_data
from quickstudy.recipes import get_recipe
from quickstudy.runs.folder import load_run
from quickstudy.tasks import Pool, PoolSource
from quickstudy.tasks.datasets import DatasetStatus

VOID = {"meta", "img", "br"}


def blobs(name: str, split: str, n_classes: int, *, names: str = "class <{}> & co") -> PoolSource:
    """Classes of noisy copies of a random pattern."""
    pattern = uniforms(3, len(name), np.arange(n_classes)[:, None, None], np.arange(784)[None])
    noise = uniforms(
        4, len(name), np.arange(n_classes)[:, None, None], np.arange(20)[:, None], np.arange(784)
    )
    pixels = (255 * (0.6 * (pattern > 0.8) + 0.4 * noise)).astype(np.uint8)
    x = torch.from_numpy(pixels.reshape(n_classes * 20, 1, 28, 28))
    labels = [names.format(c) for c in range(n_classes) for _ in range(20)]
    return PoolSource(Pool.build(x, labels, name=name, split=split))


def fake_data() -> DemoData:
    recipe = get_recipe("glyphs-protonet")
    train = recipe.train.model_copy(update={"steps": 3, "n_way": 8, "log_every": 1})
    return DemoData(
        recipe=recipe.model_copy(update={"train": train}),
        trained_on="patterns <of> a test",
        train=blobs("a", "train", 12),
        train_classes=12,
        validation=blobs("bb", "val", 20),
        unseen=blobs("ccc", "test", 22),
        unseen_what="unseen patterns",
        digits=blobs("dddd", "test", 10, names="{}"),
        facts={"training data": "none"},
    )


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> DemoResult:
    out = tmp_path_factory.mktemp("demo") / "deep" / "page.html"
    return run_demo(
        out=out, device="cpu", progress=False, say=said.append, data=fake_data(), episodes=20
    )


class Page(HTMLParser):
    """Checks that tags are balanced and collects what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(result: DemoResult) -> Page:
    page = Page()
    page.feed(result.report.read_text(encoding="utf-8"))
    page.close()
    return page


def test_results_keep_the_contract(result: DemoResult) -> None:
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["command"] == "demo"
    assert document["report"] == str(result.report)
    assert document["trained_on"] == "patterns <of> a test"
    assert document["seconds"] > 0
    kinds = [
        (r["what"], r["protocol"]["n_way"], r["protocol"]["k_shot"]) for r in document["results"]
    ]
    assert kinds == [
        ("unseen patterns", 20, 1),
        ("unseen patterns", 5, 1),
        ("unseen patterns", 5, 5),
        ("handwritten digits", 5, 1),
        ("handwritten digits", 5, 5),
    ]
    for r in document["results"]:
        assert r["command"] == "demo"
        assert r["run"] == str(result.run)
        assert r["data"] in ("ccc", "dddd")
        assert {
            "split",
            "n_way",
            "k_shot",
            "n_query",
            "episodes",
            "seed",
            "transductive",
            "episodes_sha256",
        } <= set(r["protocol"])
        assert r["protocol"]["transductive"] is False
        assert r["protocol"]["episodes"] == 20
        assert 0 <= r["accuracy"]["mean"] <= 1
        assert r["accuracy"]["ci95"] >= 0
        assert r["seconds"] > 0


def test_the_floor_is_paired(result: DemoResult) -> None:
    for r in result.results:
        assert r["floor"]["learner"] == "pixel nearest neighbour"
        gap = r["accuracy"]["mean"] - r["floor"]["accuracy"]["mean"]
        assert r["paired"]["mean"] == pytest.approx(gap, abs=1e-9)
        assert r["paired"]["ci95"] >= 0


def test_page_loads_nothing(result: DemoResult) -> None:
    page = parsed(result)
    assert page.open == []
    text = result.report.read_text(encoding="utf-8")
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href", "srcset", "data", "poster"):
            value = attributes.get(name) or "data:"
            assert value.startswith(("data:", "#")), (tag, name, value[:60])
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "prefers-color-scheme: dark" in style[1]
    assert result.report.stat().st_size < 3_000_000


def test_page_is_accessible(result: DemoResult) -> None:
    page = parsed(result)
    assert ("html", {"lang": "en"}) in page.tags
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    text = "".join(page.text)
    assert "✓" in text  # right and wrong are told apart by more than colour


def test_page_has_every_number(result: DemoResult) -> None:
    text = "".join(parsed(result).text).replace("\N{NO-BREAK SPACE}", " ")
    for r in result.results:
        for a in (r["accuracy"], r["floor"]["accuracy"]):
            assert f"{100 * a['mean']:.2f} ± {100 * a['ci95']:.2f} %" in text
        assert f"{100 * r['paired']['mean']:+.2f} ± {100 * r['paired']['ci95']:.2f}" in text
        low, high = r["accuracy"]["class_bootstrap95"]
        assert f"{100 * low:.1f} to {100 * high:.1f} %" in text
        assert f"{100 * r['calibration_error']:.2f} %" in text
        assert r["protocol"]["episodes_sha256"][:12] in text
    # names are escaped in the page and whole for the reader
    assert "patterns <of> a test" in text
    assert "class <" in text


def test_summary_is_for_people(result: DemoResult) -> None:
    lines = result.summary().splitlines()
    assert len(lines) == 10
    assert len({len(line) for line in lines[:6]}) == 1
    assert "handwritten digits, 5-way 5-shot" in lines[5]
    assert str(result.report) in result.summary()


def test_run_folder_can_be_used(result: DemoResult) -> None:
    run = load_run(result.run)
    assert run.recipe.train.steps == 3
    assert 1 <= run.meta["step"] <= 3


def test_words_on_the_way(result: DemoResult, said: list[str]) -> None:
    assert result.report.exists()
    assert len(said) >= 3
    assert all("\n" not in line for line in said)


def test_same_seed_same_numbers(result: DemoResult, tmp_path: Path) -> None:
    again = run_demo(
        out=tmp_path / "page.html",
        device="cpu",
        progress=False,
        say=lambda _: None,
        data=fake_data(),
        episodes=20,
    )

    def numbers(r: DemoResult) -> list[Any]:
        return [(d["accuracy"], d["paired"], d["protocol"]) for d in r.results]

    assert numbers(again) == numbers(result)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "at least 1"),
        ({"episodes": 1}, "at least 2"),
        ({"device": "nowhere"}, "there is no device"),
        ({"out": Path("/")}, "folder"),
    ],
)
def test_misuse_is_found_before_training(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"out": tmp_path / "page.html", "say": pytest.fail}
    with pytest.raises(ConfigError, match=words):
        run_demo(**{**arguments, **changes})


class TestFindData:
    @pytest.fixture(autouse=True)
    def _no_loading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo_data, "_load", self.load)

    @staticmethod
    def load(name: str) -> Any:
        data = fake_data()
        return replace(data, trained_on=name)

    def status(self, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
        found = DatasetStatus("omniglot", state, None, "")
        monkeypatch.setattr(demo_data, "dataset_status", lambda _: found)

    def test_takes_what_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.status(monkeypatch, "found")
        assert find_data(lambda _: None).trained_on == "omniglot-protonet"

    def test_no_network_falls_back_quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise OSError("unreachable")

        self.status(monkeypatch, "downloadable")
        monkeypatch.setattr(urllib.request, "urlopen", refuse)
        said: list[str] = []
        assert find_data(said.append).trained_on == "glyphs-protonet"
        assert any("cannot be reached" in line for line in said)

    def test_a_silent_network_is_not_waited_for(self) -> None:
        assert not demo_data._answers("http://192.0.2.1/", 0.2)

    def test_failed_download_falls_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(name: str) -> None:
            raise DataError(f"{name}: half of it is missing.")

        self.status(monkeypatch, "downloadable")
        monkeypatch.setattr(demo_data, "_answers", lambda *_: True)
        monkeypatch.setattr(demo_data, "get_dataset", fail)
        said: list[str] = []
        assert find_data(said.append).trained_on == "glyphs-protonet"
        assert any("half of it" in line for line in said)

    def test_damaged_data_is_said_and_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load(name: str) -> Any:
            if name == "omniglot-protonet":
                raise DataError("omniglot.parquet: damaged.")
            return self.load(name)

        self.status(monkeypatch, "found")
        monkeypatch.setattr(demo_data, "_load", load)
        said: list[str] = []
        assert find_data(said.append).trained_on == "glyphs-protonet"
        assert any("damaged" in line for line in said)

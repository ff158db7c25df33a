"""Ink: the same drawing on other paper is the same drawing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from quickstudy.embedders.images import Transform
from quickstudy.embedders.ink import ink_on_white
from quickstudy.tasks.images import read_image

INK = Transform(28, 1, ink=True)


def drawing(size: int = 300, width: int = 12) -> np.ndarray:
    """Return a ring with a bar, bright on black."""
    image = Image.new("L", (size, size))
    pen = ImageDraw.Draw(image)
    a, b = size // 5, size - size // 5
    pen.ellipse((a, a, b, b), outline=255, width=width)
    pen.line((a, a, b, b), fill=255, width=width)
    return np.asarray(image)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def photo(ink: np.ndarray, *, paper=150.0, contrast=0.6, shade=0.5, noise=8.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    across = np.linspace(-1, 1, len(ink))
    light = 1 + shade * (across[:, None] + across[None]) / 4
    values = paper * light * (1 - contrast * ink / 255.0) + rng.normal(0, noise, ink.shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def test_clean_drawings_are_what_the_network_was_trained_on():
    ink = drawing(105, 4)
    want = 255 - np.asarray(Image.fromarray(255 - ink).resize((28, 28), Image.Resampling.LANCZOS))
    for given in (ink, 255 - ink):
        np.testing.assert_array_equal(INK.pixels(given, "x")[0], want)
    small = np.asarray(Image.fromarray(ink).resize((28, 28)))
    np.testing.assert_array_equal(INK.pixels(small, "x")[0], small)
    out = io.BytesIO()
    Image.fromarray(255 - ink).save(out, "PNG")
    pool = read_image(out.getvalue(), size=28, channels=1, what="x", invert=True)
    np.testing.assert_array_equal(INK.pixels(out.getvalue(), "x"), pool.numpy())


@pytest.mark.parametrize(
    "make",
    [
        lambda ink: photo(ink),
        lambda ink: photo(ink, paper=100, shade=0),
        lambda ink: photo(ink, paper=220, shade=0.8, contrast=0.5),
        lambda ink: 255 - photo(ink),  # chalk on a board
        lambda ink: np.where(ink > 128, 200, 255).astype(np.uint8),  # pencil
        lambda ink: np.pad(255 - ink, 300, constant_values=255),  # a corner of the sheet
        lambda ink: photo(np.pad(ink, ((100, 500), (300, 300)))),
        lambda ink: photo(ink)[:, 20:-20],  # not square
    ],
)
def test_another_sheet_is_the_same_drawing(make):
    got, want = (framed(INK.pixels(x, "x")[0]) for x in (make(drawing()), drawing()))
    assert likeness(got, want) > 0.85


def framed(pixels: np.ndarray) -> np.ndarray:
    """Return the drawing without its margin, at one size and a little blurred."""
    assert np.median(pixels) < 10
    rows, columns = (np.flatnonzero((pixels > 60).any(axis)) for axis in (1, 0))
    assert min(np.ptp(rows), np.ptp(columns)) > 14
    part = Image.fromarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return np.asarray(part.resize((24, 24)).filter(ImageFilter.GaussianBlur(1)), dtype=float)


@pytest.mark.parametrize("value", [0, 3, 127, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (40, 200), (500, 300)])
def test_a_blank_sheet_stays_blank(value, size):
    pixels = INK.pixels(np.full(size, value, np.uint8), "x")
    assert pixels.shape == (1, 28, 28)
    assert pixels.max() == 0


@pytest.mark.parametrize("seed", range(5))
def test_anything_else_is_survived(seed):
    rng = np.random.default_rng(seed)
    for size in ((3, 700), (200, 200), (2, 2)):
        x = rng.integers(0, 256, size, dtype=np.uint8)
        got = ink_on_white(Image.fromarray(x))
        assert got.mode == "L"
        assert got.width == got.height

"""Every form in which people hold their examples, and every fault, with its row."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from quickstudy.core import DataError
from quickstudy.embedders.images import Transform
from quickstudy.embedders.inputs import content_key, numeric_rows, read_texts
from quickstudy.embedders.pictures import read_images

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


def png(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


# ---------------------------------------------------------------- images


@pytest.mark.parametrize(
    "batch",
    [
        COLOUR[None],
        COLOUR.transpose(2, 0, 1)[None],
        torch.from_numpy(COLOUR.transpose(2, 0, 1).copy())[None],
        (COLOUR / 255)[None],
        (COLOUR / 255)[None].astype(np.float32),
        COLOUR[None].astype(np.int64),
        COLOUR[None].astype(np.uint16) * 257,
        np.dstack([COLOUR, np.full_like(GREY, 255)])[None],
        [COLOUR],
        [Image.fromarray(COLOUR)],
        [torch.from_numpy(COLOUR.transpose(2, 0, 1).copy())],
        pd.Series([COLOUR], index=["a"]),
        ({"bytes": png(COLOUR), "path": "a.png"},),
        iter([png(COLOUR)]),
        np.array([png(COLOUR)], dtype=object),
    ],
)
def test_colour_images_in_any_form(batch):
    (item,) = read_images(batch)
    pixels = Transform(6, 3).pixels(item.value, "row 0")
    want = np.asarray(Image.fromarray(COLOUR).resize((6, 6), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(pixels, want.transpose(2, 0, 1))
    assert len(item.key) == 64


@pytest.mark.parametrize(
    "batch", [GREY[None], GREY[None, None], GREY[None, :, :, None], [GREY], [Image.fromarray(GREY)]]
)
def test_grey_images_in_any_form(batch):
    (item,) = read_images(batch)
    np.testing.assert_array_equal(item.value, GREY)


def test_equal_content_has_an_equal_key(tmp_path):
    data = png(COLOUR)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(data)
    a, b, c = read_images([tmp_path / "a.png", str(tmp_path / "b.png"), data])
    assert a.key == b.key == c.key
    assert a.source == str(tmp_path / "a.png")
    pixels, same, other = read_images([COLOUR, Image.fromarray(COLOUR), 255 - COLOUR])
    assert pixels.key == same.key != other.key
    # the same bytes as another shape, or as a text, are other content
    (turned,) = read_images([COLOUR.reshape(8, 6, 3)])
    assert turned.key != pixels.key
    assert content_key("text", b"a") != content_key("file", b"a")
    assert content_key("text", b"ab", b"c") != content_key("text", b"a", b"bc")


def test_what_the_user_changes_later_changes_nothing():
    mine = COLOUR.copy()
    (item,) = read_images([mine])
    mine[:] = 0
    np.testing.assert_array_equal(item.value, COLOUR)


def test_a_folder_is_all_its_images_in_order(tmp_path):
    for name in ("b/2.png", "a/1.jpg", "b/1.PNG", ".hidden/3.png", "notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(png(COLOUR) if file.suffix != ".txt" else b"none")
    names = [Path(item.source).relative_to(tmp_path).as_posix() for item in read_images(tmp_path)]
    assert names == ["a/1.jpg", "b/1.PNG", "b/2.png"]
    assert len(read_images(str(tmp_path / "b/2.png"))) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in this folder"):
        read_images(tmp_path / "empty")


def test_camera_orientation_transparency_animation_and_depth():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, :15] = 255
    turned = Image.fromarray(wide)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    turned.save(out, "PNG", exif=exif)
    deep = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    frames = [Image.new("L", (4, 4), v) for v in (255, 0)]
    gif = io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    turn, *white = (
        Transform(4, 1).pixels(item.value, "x")
        for item in read_images([out.getvalue(), deep, clear, gif.getvalue()])
    )
    assert turn[0, 0].min() > 200 > turn[0, 3].max()  # the bright half has gone from left to top
    assert all((pixels == 255).all() for pixels in white)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "no images"),
        (np.zeros((0, 4, 4)), "no images"),
        (GREY, r"list"),
        (COLOUR, "one colour image, or 6 grey"),
        (np.zeros((40, 60, 3), np.uint8), "one colour image"),
        (torch.zeros(3, 40, 60), "one colour image"),
        (np.zeros((2, 3, 4, 5, 6)), r"\[2, 3, 4, 5, 6\]"),
        ([GREY, np.zeros((4, 4, 2))], "row 1: an array of shape"),
        ([GREY, np.zeros((4, 4, 7))], "row 1: an array of shape"),
        ([GREY, np.zeros((0, 4))], "row 1: an array of shape"),
        ([GREY, GREY * 1.0], r"row 1: floating pixels.*0 \.\.\. 235"),
        ([GREY, np.full((4, 4), np.nan)], "row 1: .*NaN"),
        ([GREY, GREY.astype(int) - 1], "row 1: .*-1"),
        ([GREY, GREY.astype(complex)], "row 1: complex128"),
        ([GREY, 7], "row 1: int 7 is not an image"),
        ([GREY, [1, 2]], "row 1: list is not an image"),
        ([GREY, None], "row 1: the image is missing"),
        ([GREY, b""], "row 1: the image is empty"),
        ([GREY, "no such\0file"], "row 1 .*cannot be read"),
        ([GREY, os.curdir], "row 1 .*this is a folder"),
        ("no/such/file.png", "no such file"),
        ({"a": GREY}, "one image"),
        (3, "int 3"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "2 columns"),
    ],
)
def test_faults_of_images(given, says):
    with pytest.raises(DataError, match=says):
        read_images(given)


def test_broken_files_are_named_when_they_are_decoded(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(png(np.tile(COLOUR, (9, 9, 1)), "JPEG")[:200])
    (tmp_path / "page.svg").write_text("<svg/>")
    for name in ("cut.jpg", "page.svg"):
        (item,) = read_images(tmp_path / name)
        with pytest.raises(DataError, match=name):
            Transform(8).pixels(item.value, item.where(0))
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match="0 bytes"):
        read_images([tmp_path / "empty.png"])


def test_a_truncated_pil_image_names_its_row(tmp_path):
    file = tmp_path / "cut.png"
    rng = np.random.default_rng(0)
    file.write_bytes(png(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))[:3000])
    with Image.open(file) as image, pytest.raises(DataError, match="row 0"):
        read_images([image])


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    "given",
    [
        ["a b", "ü 中文 🙂"],
        ("a b", "ü 中文 🙂"),
        np.array(["a b", "ü 中文 🙂"]),
        np.array([["a b"], ["ü 中文 🙂"]], dtype=object),
        pd.Series(["a b", "ü 中文 🙂"]),
        pd.Series(["a b", "ü 中文 🙂"], dtype="string"),
        pd.Series(["a b", "ü 中文 🙂"], dtype="category"),
        pd.DataFrame({"text": ["a b", "ü 中文 🙂"]}),
        (text for text in ("a b", "ü 中文 🙂")),
    ],
)
def test_texts_in_any_form(given):
    first, second = read_texts(given)
    assert (first.value, second.value) == ("a b", "ü 中文 🙂")
    assert type(first.value) is str
    assert first.preview == "a b"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("one text", r"\[text\]"),
        ([], "no texts"),
        (["a", ""], "row 1: the text is empty"),
        (["a", " \t\n\u3000"], "row 1: the text is empty"),
        (["a", None], "row 1: the text is missing"),
        (["a", float("nan")], "row 1: the text is missing"),
        (pd.Series(["a", None], index=["x", "y"]), r"row 1 \(y\): the text is missing"),
        (pd.Series(["a", pd.NA], dtype="string"), "row 1: the text is missing"),
        (["a", 3], "row 1: int 3 is not a text"),
        (["a", b"b"], "row 1: bytes is not a text"),
        (["a", "b\ud800"], "row 1: .*not valid Unicode.*character 1"),
        ({"a": 1}, "dict"),
        ({"a", "b"}, "set"),
        (np.zeros((2, 2)), r"\[2, 2\]"),
    ],
)
def test_faults_of_texts(given, says):
    with pytest.raises(DataError, match=says):
        read_texts(given)


def test_previews_are_short():
    (item,) = read_texts(["word " * 1000])
    assert len(item.preview) < 400
    assert item.value == "word " * 1000


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([[1, 2], [3]], "different lengths"),
        ([["a"]], "must hold numbers"),
        (np.zeros(3), r"\[N, \.\.\.\]"),
        (np.zeros((0, 3)), "hold nothing"),
        (np.zeros((2, 2), complex), "complex"),
        (np.array([[1, "x"]], dtype=object), "must hold numbers"),
    ],
)
def test_faults_of_arrays(given, says):
    with pytest.raises(DataError, match=says):
        numeric_rows(given, what="rows")


def test_arrays_keep_their_type():
    assert numeric_rows(np.zeros((2, 3), np.uint8), what="rows").dtype == np.uint8
    assert numeric_rows(torch.zeros(2, 3), what="rows").dtype == np.float32
    assert numeric_rows(pd.DataFrame({"a": [1], "b": [2.5]}), what="rows").tolist() == [[1, 2.5]]
    assert numeric_rows(np.array([[1, 2]], dtype=object), what="rows").dtype == np.float64

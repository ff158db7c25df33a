"""The same picture in every form: path, bytes, open file, PIL image, Parquet's struct, pool."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from quickstudy.core import DataError
from quickstudy.embedders.images import Transform
from quickstudy.embedders.pictures import read_images
from quickstudy.tasks.folders import pool_from_folder
from quickstudy.tasks.images import decode_many, open_image, without_pillow_warnings
from quickstudy.tasks.parquet import pool_from_parquet

ORIENTATION = 0x0112
DRAW = np.random.default_rng(0)


def noise(*shape: int, top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    # coarse, so that lossy formats keep most of it and a turn cannot be overlooked
    coarse = DRAW.integers(0, top, (6, 9, *shape)).astype(dtype)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


RGB = Image.fromarray(noise(3))
RGBA = Image.fromarray(noise(4))
GREY = Image.fromarray(noise())
PALETTE = RGB.quantize(32)
FRAMES = {"save_all": True, "append_images": [RGB.rotate(180).quantize(16)]}

# ways to store a picture: image, format, options of saving
STORED: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    "jpeg": (RGB, "JPEG", {"quality": 90}),
    "grey jpeg": (GREY, "JPEG", {}),
    "cmyk jpeg": (RGB.convert("CMYK"), "JPEG", {}),
    "png": (RGB, "PNG", {}),
    "alpha": (RGBA, "PNG", {}),
    "grey alpha": (RGBA.convert("LA"), "PNG", {}),
    "palette": (PALETTE, "PNG", {}),
    "palette, one colour clear": (PALETTE, "PNG", {"transparency": 3}),
    "palette, several clear": (PALETTE, "PNG", {"transparency": bytes(range(0, 256, 8))}),
    "rgb, one colour clear": (RGB, "PNG", {"transparency": RGB.getpixel((0, 0))}),
    "one bit": (GREY.convert("1"), "PNG", {}),
    "16 bit": (Image.fromarray(noise(top=65536, dtype=np.uint16)), "PNG", {}),
    "16 bit tiff": (Image.fromarray(noise(top=65536, dtype=np.uint16)), "TIFF", {}),
    "float tiff": (Image.fromarray(noise().astype(np.float32) / 255), "TIFF", {}),
    "int tiff": (Image.fromarray(noise(top=100_000, dtype=np.int32)), "TIFF", {}),
    "cmyk tiff": (RGB.convert("CMYK"), "TIFF", {}),
    "lab tiff": (Image.merge("LAB", RGB.split()), "TIFF", {}),
    "ycbcr tiff": (RGB.convert("YCbCr"), "TIFF", {}),
    "gif": (PALETTE, "GIF", FRAMES),
    "clear gif": (PALETTE, "GIF", {"transparency": 2, **FRAMES}),
    "webp": (RGBA, "WEBP", {"lossless": True}),
    "apng": (RGBA, "PNG", {"save_all": True, "append_images": [RGBA.rotate(180)]}),
    "mpo": (RGB, "MPO", {"save_all": True, "append_images": [RGB.rotate(180)]}),
    "profile": (RGB, "PNG", {"icc_profile": b"no real profile"}),
}
TURNED = ("jpeg", "png", "grey alpha", "palette, one colour clear", "16 bit tiff", "webp")


def stored(kind: str, orientation: int | None = None) -> bytes:
    image, form, options = STORED[kind]
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options = {**options, "exif": exif}
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def in_every_form(data: bytes, folder: Path) -> dict[str, Any]:
    """Return the same picture as people hold it."""
    path = folder / "picture"
    path.write_bytes(data)
    read_already = io.BytesIO(data)
    read_already.seek(0, os.SEEK_END)  # as after writing it
    decoded = Image.open(io.BytesIO(data))
    decoded.load()
    return {
        "path": path,
        "text": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "BytesIO": io.BytesIO(data),
        "BytesIO at its end": read_already,
        "open file": path.open("rb"),
        "PIL": Image.open(io.BytesIO(data)),
        "PIL, decoded": decoded,
        "PIL of a file": Image.open(path),
        "PIL, copied": Image.open(io.BytesIO(data)).copy(),
        "struct": {"bytes": data, "path": "somewhere.png"},
        "struct without bytes": {"bytes": None, "path": str(path)},
        "struct of a path": {"path": str(path)},
    }


CASES = [(kind, None) for kind in STORED] + [(k, turn) for k in TURNED for turn in range(1, 9)]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("kind", "orientation"), CASES)
def test_a_picture_is_the_same_in_every_form(kind: str, orientation: int | None, tmp_path: Path):
    data = stored(kind, orientation)
    for channels in (1, 3):
        transform, found = Transform(32, channels=channels), {}
        for form, value in in_every_form(data, tmp_path).items():
            (item,) = read_images([value])
            found[form] = transform.pixels(item.value, form)
        for form, pixels in found.items():
            np.testing.assert_array_equal(pixels, found["path"], err_msg=f"{form}, {channels}")
        # and to the readers of meta-training
        (pooled, _) = decode_many([("a", data)], size=32, channels=channels)
        np.testing.assert_array_equal(pooled[0].numpy(), found["path"])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_upright(orientation: int, tmp_path: Path):
    back = {  # what a camera held that way stores of the upright picture
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    image = RGB
    for step in back:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    out = io.BytesIO()
    image.save(out, "PNG", exif=exif)
    want = Transform(32).pixels(np.asarray(RGB), "")
    for form, value in in_every_form(out.getvalue(), tmp_path).items():
        if form == "open file":
            value.close()
            continue
        (item,) = read_images([value])
        np.testing.assert_array_equal(Transform(32).pixels(item.value, form), want, err_msg=form)


def test_a_folder_and_a_parquet_file_give_the_same_pools(tmp_path: Path):
    rows = []
    for number, kind in enumerate(TURNED):
        data = stored(kind, 6)
        label = "ab"[number % 2]
        path = tmp_path / "folder" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        rows.append({"image": {"bytes": data, "path": None}, "label": label})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    one = pool_from_folder(tmp_path / "folder", size=24)
    other = pool_from_parquet(tmp_path / "t.parquet", size=24)
    assert torch.equal(one.x, other.x)
    # a column of Arrow, as datasets of the Hub give it
    column = pq.read_table(tmp_path / "t.parquet").column("image")
    assert len(read_images(column)) == len(rows)


def test_a_pil_image_is_not_changed_by_reading(tmp_path: Path):
    image = Image.open(io.BytesIO(stored("jpeg", 6)))
    size = image.size
    read_images([image])
    assert image.size == size
    assert image.getexif()[ORIENTATION] == 6
    stream = io.BytesIO(stored("png"))
    stream.seek(7)
    read_images([stream, stream])
    assert stream.tell() == 7


class Text(io.StringIO):
    pass


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: io.StringIO("x"), "open as text"),
        (lambda p: closed(), "open file cannot be read"),
        (lambda p: io.BytesIO(b""), "0 bytes"),
        (lambda p: pipe(p), "a pipe"),
        (lambda p: Path("/dev/zero"), "a device"),
        (lambda p: loop(p), "cannot be read"),
        (lambda p: p, "this is a folder"),
        (lambda p: "nul\0byte", "cannot be read"),
        (lambda p: {"bytes": None, "path": None}, "missing"),
        (lambda p: Image.new("L", (30_000, 2_000)), "more than the limit"),
        (lambda p: 5, "not an image"),
    ],
)
def test_what_is_no_picture_is_named(make: Callable[[Path], Any], says: str, tmp_path: Path):
    with pytest.raises(DataError, match=says) as caught:
        read_images([stored("png"), make(tmp_path)])
    assert "row 1" in str(caught.value)


def closed() -> io.BytesIO:
    stream = io.BytesIO(b"x")
    stream.close()
    return stream


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def loop(folder: Path) -> Path:
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder / "loop.png"


def test_a_name_that_is_not_utf8_is_read_and_shown_escaped(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(stored("png"))
    for given in ([path], [str(path)], path, tmp_path):
        (item,) = read_images(given)
        assert item.source is not None
        assert item.source.endswith("caf\\xe9.png")
        item.source.encode()
        Transform(8).pixels(item.value, "")


# ---------------------------------------------------------------- warnings of Pillow


def noisy() -> bytes:
    """Return a palette image with clear colours as bytes: Pillow warns about it."""
    return stored("palette, several clear")


def test_pillow_does_not_warn_and_the_filters_stay_as_they_were():
    before = list(warnings.filters)
    inside = threading.Barrier(4)

    def work() -> None:
        with without_pillow_warnings():
            inside.wait(timeout=30)
            open_image(noisy(), mode="RGB", what="x", max_pixels=10**6)
            inside.wait(timeout=30)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_other_warnings_are_still_heard_while_pictures_are_read():
    with without_pillow_warnings(), pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)

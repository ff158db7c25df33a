"""Image decoding: every mode arrives as the right greys, and nothing damaged gets through."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.core import ConfigError, DataError
from quickstudy.tasks.images import decode_many, read_image


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def read(data: bytes | Path, size: int = 4, channels: int = 1, **options: bool) -> torch.Tensor:
    return read_image(data, size=size, channels=channels, what="cat.png", **options)


def test_same_size_is_untouched_and_inverted_exactly() -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    data = encode(Image.fromarray(pixels))
    assert np.array_equal(read(data)[0], pixels)
    assert np.array_equal(read(data, invert=True)[0], 255 - pixels)
    assert read(data, channels=3).shape == (3, 4, 4)


def test_resampling_is_lanczos() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (105, 105), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = 255 - np.asarray(image.resize((28, 28), Image.Resampling.LANCZOS))
    assert np.array_equal(read(encode(image), 28, invert=True)[0], expected)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (4, 4), 1), 255),
        (Image.new("L", (4, 4), 100), 100),
        (Image.new("LA", (4, 4), (0, 0)), 255),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 255),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 255)), 0),
        (Image.new("RGB", (4, 4), (50, 50, 50)), 50),
        (Image.fromarray(np.full((4, 4), 65535, np.uint16)), 255),
        (Image.fromarray(np.full((4, 4), 257 * 7, np.uint16)), 7),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_modes(image: Image.Image, expected: int) -> None:
    assert read(encode(image)).unique().tolist() == [expected]
    assert read(encode(image), channels=3).unique().tolist() == [expected]


def test_palette_cmyk_and_float() -> None:
    palette = Image.new("RGB", (4, 4), (255, 0, 0)).convert("P")
    assert read(encode(palette), channels=3)[:, 0, 0].tolist() == [255, 0, 0]
    transparent = Image.new("P", (4, 4), 0)
    transparent.putpalette([0, 0, 0])
    assert read(encode(transparent, transparency=0)).unique().tolist() == [255]
    cmyk = Image.new("CMYK", (8, 8), (0, 0, 0, 255))
    assert int(read(encode(cmyk, "JPEG")).max()) <= 5
    real = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    assert read(encode(real, "TIFF")).unique().tolist() == [128]
    whole = Image.fromarray(np.array([[-100, 100]], np.int32))
    assert read(encode(whole, "TIFF"), size=2).flatten().unique().tolist()[0] == 0


def test_animation_gives_the_first_frame() -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    for format in ("GIF", "PNG"):
        data = encode(frames[0], format, save_all=True, append_images=frames[1:])
        assert read(data).unique().tolist() == [10]


def test_orientation_tag() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 255  # bright left half; "rotate 90 clockwise" brings it to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read(encode(Image.fromarray(pixels), exif=exif), 8)[0]
    assert int(turned[:4].min()) == 255
    assert int(turned[4:].max()) == 0


def test_damaged_files_name_themselves(tmp_path: Path) -> None:
    good = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)))
    jpeg = encode(Image.fromarray(np.zeros((64, 64), np.uint8)), "JPEG")
    cases = [b"", b"not an image", good[: len(good) // 2], good[:20], jpeg[: len(jpeg) // 2]]
    cases.append(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # would start a program
    for data in cases:
        with pytest.raises(DataError, match=r"cat\.png"):
            read(data)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "gone.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match="empty"):
        read(tmp_path / "empty.png")


def giant(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 10_000, 60_000])
def test_giants_are_refused_from_the_header(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"cat\.png.*50,000,000"):
            read(giant(side, side))


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="channels"):
        read(b"x", channels=2)
    with pytest.raises(ConfigError, match="size"):
        read(b"x", size=0)
    with pytest.raises(ConfigError, match="on_error"):
        decode_many([], size=4, channels=1, on_error="ignore")


def test_decode_many_keeps_order_and_skips(tmp_path: Path) -> None:
    items: list[tuple[str, bytes | Path]] = []
    for i in range(300):
        items.append((f"{i}.png", encode(Image.new("L", (2, 2), i % 251))))
    path = tmp_path / "file.png"
    Image.new("L", (2, 2), 99).save(path)
    items[7] = ("7.png", path)
    x, kept = decode_many(items, size=2, channels=1)
    assert kept == list(range(300))
    assert x[:, 0, 0, 0].tolist() == [99 if i == 7 else i % 251 for i in range(300)]
    items[200] = ("broken.png", b"?")
    with pytest.raises(DataError, match=r"broken\.png"):
        decode_many(items, size=2, channels=1)
    x, kept = decode_many(items, size=2, channels=1, on_error="skip")
    assert kept == [i for i in range(300) if i != 200]
    assert int(x[200, 0, 0, 0]) == 201

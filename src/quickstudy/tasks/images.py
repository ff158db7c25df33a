"""Safe image decoding: bytes or a file in, a square uint8 tensor out.

A file's name and type are not trusted: its header decides. Only common raster formats are accepted
(no format whose decoder runs another program), and giant images are refused before any pixel is
decoded.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from quickstudy.core import ConfigError, DataError

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "as_mode", "decode_many", "open_image", "read_image"]

IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp", ".avif"}
    | {".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
"""File name endings that count as images, in lower case."""

MAX_PIXELS = 50_000_000
"""Images with more pixels than this are refused."""

_SAFE_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF")
_IMAGES_PER_CHUNK = 128

Bytes = npt.NDArray[np.uint8]


def read_image(
    data: bytes | Path,
    *,
    size: int,
    channels: int,
    what: str,
    invert: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Return one image as a square of 8-bit values.

    The camera's orientation (EXIF) is honoured; transparency is laid on white; of an animation
    (GIF, APNG, WebP) the first frame is taken; 16-bit and floating images are scaled by their
    range. Images of another size are resized to the square with an antialiased Lanczos filter; the
    aspect ratio is not kept.

    Args:
        data: the encoded image, or the file that holds it.
        size: height and width of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        what: name of the image for errors, for example its path.
        invert: whether to swap dark and bright, for ink on paper.
        max_pixels: refuse images with more pixels.

    Returns:
        uint8 ``[channels, size, size]``.

    Raises:
        DataError: if the image is missing, empty, damaged, too large or of an unknown format.
        ConfigError: if ``size`` or ``channels`` is not usable.
    """
    _check_shape(size, channels)
    # Pillow warns about large, truncated or oddly tagged files; here they are errors or harmless
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(_decode(data, size, channels, what, invert, max_pixels))


def decode_many(
    items: Sequence[tuple[str, bytes | Path]],
    *,
    size: int,
    channels: int,
    invert: bool = False,
    label: str = "images",
    on_error: str = "raise",
    max_pixels: int = MAX_PIXELS,
) -> tuple[Tensor, list[int]]:
    """Decode many images with threads; a bar shows on stderr if it takes more than two seconds.

    Args:
        items: a name for errors, and the encoded image or its file, for each of ``M`` images.
        size: height and width of the results.
        channels: 1 (grey) or 3 (RGB).
        invert: whether to swap dark and bright.
        label: what the progress bar says.
        on_error: ``"raise"`` stops at the first image that cannot be read, ``"skip"`` leaves it
            out.
        max_pixels: refuse images with more pixels.

    Returns:
        uint8 ``[K, channels, size, size]`` and the positions in ``items`` of the ``K`` images that
        were read; ``K = M`` unless images were skipped.

    Raises:
        DataError: as :func:`read_image`.
        ConfigError: if an argument is not usable.
    """
    _check_shape(size, channels)
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error must be 'raise' or 'skip'; got {on_error!r}.")
    out = np.zeros((len(items), channels, size, size), np.uint8)
    good = np.ones(len(items), bool)

    def decode_chunk(first: int) -> int:
        chunk = items[first : first + _IMAGES_PER_CHUNK]
        for i, (what, data) in enumerate(chunk, start=first):
            try:
                out[i] = _decode(data, size, channels, what, invert, max_pixels)
            except DataError:
                if on_error == "raise":
                    raise
                good[i] = False
        return len(chunk)

    # Python's warning filter is global to the process: set once here, not in the threads
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(items), desc=label, unit="img", delay=2, disable=None) as bar,
    ):
        warnings.simplefilter("ignore")
        for done in pool.map(decode_chunk, range(0, len(items), _IMAGES_PER_CHUNK)):
            bar.update(done)
    kept = np.flatnonzero(good)
    pixels = out if len(kept) == len(items) else out[kept]
    return torch.from_numpy(pixels), [int(i) for i in kept]


def _check_shape(size: int, channels: int) -> None:
    if channels not in (1, 3):
        raise ConfigError(f"channels must be 1 (grey) or 3 (RGB); got {channels}.")
    if not 1 <= size <= 4096:
        raise ConfigError(f"size must lie between 1 and 4096 pixels; got {size}.")


def open_image(data: bytes | Path, *, mode: str, what: str, max_pixels: int) -> Image.Image:
    """Return one decoded image at its own size, upright, as ``"L"`` or ``"RGB"``.

    Orientation, transparency, animations and depth are handled as in :func:`read_image`. Pillow
    warns about large, truncated or oddly tagged files. Callers may silence that; this function does
    not, as Python's warning filter must not be changed in several threads.

    Raises:
        DataError: if the image is missing, empty, damaged, too large or of an unknown format.
    """
    if isinstance(data, bytes) and not data:
        raise DataError(f"{what}: the image is empty (0 bytes). Replace or remove it.")
    try:
        if isinstance(data, Path) and data.stat().st_size == 0:
            raise DataError(f"{what}: the file is empty (0 bytes). Replace or remove it.")
        with Image.open(
            io.BytesIO(data) if isinstance(data, bytes) else data, formats=_readable_formats()
        ) as im:
            _check_header(im, what, max_pixels)
            im.load()
            return as_mode(_upright(im), mode)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{what}: the image has far more than {max_pixels:,} pixels. Make it smaller first."
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{what}: there is no such file. Check the path.") from error
    except PermissionError as error:
        raise DataError(f"{what}: no permission to read this file. Change its rights.") from error
    except Exception as error:  # a decoder can raise anything on damaged bytes
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"{what}: cannot be read as an image ({reason}). Replace or remove it."
        ) from error


def _decode(
    data: bytes | Path, size: int, channels: int, what: str, invert: bool, max_pixels: int
) -> Bytes:
    """Return uint8 ``[channels, size, size]``; any failure is a DataError with the image's name."""
    mode = "L" if channels == 1 else "RGB"
    image = open_image(data, mode=mode, what=what, max_pixels=max_pixels)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    pixels: Bytes = np.array(image, dtype=np.uint8)
    pixels = 255 - pixels if invert else pixels
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _readable_formats() -> list[str]:
    """Return the accepted formats that this build of Pillow can read."""
    Image.init()
    return [name for name in _SAFE_FORMATS if name in Image.OPEN]


def _check_header(image: Image.Image, what: str, max_pixels: int) -> None:
    """Refuse an image without pixels or with too many, before it is decoded."""
    width, height = image.size
    if width < 1 or height < 1:
        raise DataError(
            f"{what}: the image has no pixels ({width}x{height}). Replace or remove it."
        )
    if width * height > max_pixels:
        raise DataError(
            f"{what}: the image has {width}x{height} pixels, more than the limit of "
            f"{max_pixels:,}. Make it smaller first."
        )


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its orientation tag says; a damaged tag is ignored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return the image as ``"L"`` or ``"RGB"``, 8 bits a channel, with transparency made white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if transparent:
        # premultiplied alpha: Pillow converts these modes only to their straight forms
        if image.mode in ("La", "RGBa"):
            image = image.convert("LA" if image.mode == "La" else "RGBA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a 16-bit, 32-bit or floating grey image as 8 bits.

    16-bit modes and values up to 65,535 are divided by 257, values in [0, 1] multiplied by 255,
    values in [0, 255] kept, anything else stretched from its own minimum and maximum.
    """
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and 255 < high <= 65535):
        values = values / 257.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255.0
    elif low < 0 or high > 255:
        values = (values - low) * (255.0 / (high - low))
    return Image.fromarray(np.rint(values).astype(np.uint8))

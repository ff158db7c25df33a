"""Safe image decoding: bytes or a file in, a square uint8 tensor out.

A file's name and type are not trusted: its header decides. Only common raster formats are accepted
(no format whose decoder runs another program), and giant images are refused before any pixel is
decoded.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from quickstudy.core import ConfigError, DataError
from quickstudy.core.words import printable

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "as_mode",
    "begins_as_image",
    "decode_many",
    "open_image",
    "read_image",
    "special_file",
    "unreadable_images",
    "upright_image",
    "without_pillow_warnings",
]

IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp", ".avif"}
    | {".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
"""File name endings that count as images, in lower case."""

MAX_PIXELS = 50_000_000
"""Images with more pixels than this are refused."""

MAX_FILE_BYTES = 1 << 30
"""Larger files are refused: no image of :data:`MAX_PIXELS` needs as much."""

_SAFE_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF")
_IMAGES_PER_CHUNK = 128
_BYTES_OF_PREFIX = 16  # Pillow tells formats apart by as many
_GREY_MODES = ("1", "L", "F")  # and those that begin with I

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

    with (
        without_pillow_warnings(),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(items), desc=label, unit="img", delay=2, disable=None) as bar,
    ):
        for done in pool.map(decode_chunk, range(0, len(items), _IMAGES_PER_CHUNK)):
            bar.update(done)
    kept = np.flatnonzero(good)
    pixels = out if len(kept) == len(items) else out[kept]
    return torch.from_numpy(pixels), [int(i) for i in kept]


def unreadable_images(files: Sequence[Path]) -> dict[int, str]:
    """Return which files cannot be decoded, by position, and why.

    Args:
        files: of images; each is decoded, with threads.
    """

    def fault(path: Path) -> str | None:
        try:
            open_image(path, mode="RGB", what=printable(path), max_pixels=MAX_PIXELS)
        except DataError as error:
            return str(error)
        return None

    with without_pillow_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return {i: why for i, why in enumerate(pool.map(fault, files)) if why is not None}


def _check_shape(size: int, channels: int) -> None:
    if channels not in (1, 3):
        raise ConfigError(f"channels must be 1 (grey) or 3 (RGB); got {channels}.")
    if not 1 <= size <= 4096:
        raise ConfigError(f"size must lie between 1 and 4096 pixels; got {size}.")


def open_image(data: bytes | Path, *, mode: str, what: str, max_pixels: int) -> Image.Image:
    """Return one decoded image at its own size, upright, as ``"L"`` or ``"RGB"``.

    Orientation, transparency, animations and depth are handled as in :func:`read_image`. May be
    called in several threads.

    Raises:
        DataError: if the image is missing, empty, damaged, too large or of an unknown format.
    """
    if isinstance(data, bytes) and not data:
        raise DataError(f"{what}: the image is empty (0 bytes). Replace or remove it.")
    try:
        if isinstance(data, Path):
            _check_file(data, what)
        with (
            without_pillow_warnings(),
            io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as stream,
            Image.open(stream, formats=_readable_formats()) as im,
        ):
            return as_mode(upright_image(im, what=what, max_pixels=max_pixels), mode)
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
        raise DataError(
            f"{what}: cannot be read as an image ({_reason(error)}). Replace or remove it."
        ) from error


def upright_image(image: Image.Image, *, what: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return an image of Pillow as ``"L"`` or ``"RGB"``, 8 bits a channel, upright, on white.

    Every form in which a picture can be given comes through here, so all forms of one picture have
    the same pixels. Colour profiles are not applied.

    Args:
        image: of any mode, decoded or not yet. It is not changed.
        what: name of the image for errors.
        max_pixels: refuse an image with more pixels, before it is decoded.

    Raises:
        DataError: if it has no or too many pixels, or cannot be decoded.
    """
    _check_header(image, what, max_pixels)
    grey = image.mode in _GREY_MODES or image.mode.startswith("I")
    try:
        with without_pillow_warnings():
            _load(image)
            return as_mode(_turned(image), "L" if grey else "RGB")
    except Exception as error:
        raise DataError(
            f"{what}: cannot be read as an image ({_reason(error)}). Replace or remove it."
        ) from error


def _load(image: Image.Image) -> None:
    """Decode an image.

    Pillow maps a TIFF that was opened by its path into memory, and then takes its rows to be as
    long as those of the turned picture: what an orientation tag turns sideways is scrambled.
    """
    name = getattr(image, "filename", "")
    if image.format != "TIFF" or not name:
        image.load()
        return
    image.filename = ""  # type: ignore[attr-defined]  # without a name nothing is mapped
    try:
        image.load()
    finally:
        image.filename = name  # type: ignore[attr-defined]


def begins_as_image(prefix: bytes) -> bool:
    """Return whether a file's first 16 bytes are those of a format that is read.

    The rest of the file may be damaged all the same.
    """
    # some formats' functions need all 16 bytes
    prefix = prefix[:_BYTES_OF_PREFIX].ljust(_BYTES_OF_PREFIX, b"\0")
    accepts = (Image.OPEN[name][1] for name in _readable_formats())
    # the functions answer with a warning where the format is right and cannot be read
    return any(accept is None or accept(prefix) for accept in accepts)


def special_file(path: Path) -> str | None:
    """Return what a path leads to if that is neither a file nor a folder, as ``"a pipe"``.

    Reading a pipe or a device may never end. ``None`` for files, folders and what is not there.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def _check_file(path: Path, what: str) -> None:
    """Refuse what is no file, and empty or giant files, before any byte is read."""
    if (kind := special_file(path)) is not None:
        raise DataError(f"{what}: this is {kind}, not a file. Give the file of an image.")
    if path.is_dir():
        raise DataError(f"{what}: this is a folder, not a file. Give its images.")
    size = path.stat().st_size
    if not size:
        raise DataError(f"{what}: the file is empty (0 bytes). Replace or remove it.")
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"{what}: the file has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}. "
            "Save the image smaller."
        )


def _reason(error: Exception) -> str:
    """Return what a decoder says, on one line."""
    if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
        return "no format that is known"
    return " ".join(str(error).split())[:120] or type(error).__name__


class _PillowWarnings:
    """Counts who wants Pillow's warnings ignored: the first adds a filter, the last removes it.

    ``warnings.catch_warnings`` replaces the whole list of filters of the process and puts the old
    one back, so two threads in it at once can leave it changed for good.
    """

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._filter = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                warnings.filters.insert(0, self._filter)  # type: ignore[attr-defined]

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                with contextlib.suppress(ValueError):  # someone else has replaced the list
                    warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


_PILLOW_WARNINGS = _PillowWarnings()


@contextlib.contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Ignore the warnings of Pillow while the block runs; may be used in several threads at once.

    It warns about large, truncated or oddly tagged files. Here these are errors or do no harm.
    """
    _PILLOW_WARNINGS.enter()
    try:
        yield
    finally:
        _PILLOW_WARNINGS.leave()


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


def _turned(image: Image.Image) -> Image.Image:
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

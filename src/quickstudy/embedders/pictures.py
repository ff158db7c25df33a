"""Reads pictures, in whatever form people hold them, as rows; errors name the row."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from quickstudy.core import DataError
from quickstudy.core.values import is_missing
from quickstudy.core.words import printable
from quickstudy.embedders.base import Item
from quickstudy.embedders.inputs import content_key, described, row_name, rows_of
from quickstudy.tasks.images import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    as_mode,
    special_file,
    upright_image,
)
from quickstudy.tasks.listing import folder_contents

__all__ = ["read_images"]

Bytes = npt.NDArray[np.uint8]
_BYTES_READ_AT_ONCE = 1 << 20


@runtime_checkable
class _Stream(Protocol):
    """An open file, or ``io.BytesIO``."""

    def read(self, size: int, /) -> Any: ...


def read_images(X: Any) -> list[Item]:
    """Return images as items; image files are not decoded yet.

    The same picture has the same pixels in every form: the orientation that a camera noted is
    honoured in files, bytes and PIL images; of an animation the first frame is taken (of a PIL
    image the one that it shows); transparency is laid on white; colour profiles are not applied.

    The key is the hash of a file's bytes, or of pixels and their shape: so the embedding of a known
    file is found without decoding it. The value is a ``Path``, ``bytes``, or uint8 ``[H, W]`` or
    ``[H, W, 3]``.

    Args:
        X: a folder (all images below it, sorted), one image file, or a list, an array or a column
            of paths, encoded bytes, open files (``io.BytesIO``), ``{"bytes": ..., "path": ...}``,
            PIL images, arrays and tensors; or one array or tensor ``[N, H, W]``, ``[N, H, W, C]``
            or ``[N, C, H, W]``. Whole numbers are 0 ... 255 (16-bit: 0 ... 65,535), floats 0 ... 1;
            ``C`` is 1 or 3, or 4 if it is last (transparent pixels become white). Where both orders
            are possible, an array has its channels last and a tensor first. Sizes and modes may
            differ in a list.

    Raises:
        DataError: if there are none, or one cannot be used; the message names its row.
    """
    if isinstance(X, str | os.PathLike):
        path = Path(X)
        if path.is_dir():
            contents = folder_contents(path)
            if not (files := contents.by_ending):
                raise DataError(
                    f"{printable(path)}: there are no images in this folder. {contents.note()} "
                    "Check the path."
                )
            return [_file(path / file, printable(path / file)) for file in files]
        return [_file(path, printable(path))]
    if isinstance(X, Image.Image | bytes | Mapping | _Stream):
        raise DataError(f"got one image ({type(X).__name__}). Put it in a list: [image].")
    if callable(as_list := getattr(X, "to_pylist", None)):  # a column of pyarrow
        X = as_list()
    if isinstance(X, torch.Tensor) or (isinstance(X, np.ndarray) and X.dtype.kind not in "OSU"):
        rows: list[Any] = _split_batch(X)
        names: list[str | None] = [None] * len(rows)
    else:
        rows, names = rows_of(X, what="images")
    return [
        _image(value, row, name) for row, (value, name) in enumerate(zip(rows, names, strict=True))
    ]


def _split_batch(X: npt.NDArray[Any] | torch.Tensor) -> list[Any]:
    """Return the images of an array or tensor; refuse one that could be a single colour image."""
    shape = list(X.shape)
    if len(shape) not in (3, 4):
        raise DataError(
            f"got an array of shape {shape}; images need [N, H, W], [N, H, W, C] or [N, C, H, W]."
            + (" Put a single image in a list." if len(shape) == 2 else "")
        )
    if not shape[0]:
        raise DataError("got no images. Give at least one.")
    places = (2, 0) if isinstance(X, torch.Tensor) else (2,)
    for place in places if len(shape) == 3 else ():
        if shape[place] in (3, 4) and min(shape[:place] + shape[place + 1 :]) > 4:
            raise DataError(
                f"an array of shape {shape} is one colour image, or {shape[0]} grey ones. Give "
                "[image], or X[:, None] for grey images."
            )
    return list(X)


def _image(value: Any, row: int, name: str | None) -> Item:
    where = row_name(row, name)
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        # the form of images in Parquet files
        name = name or value.get("path") or None
        data = value.get("bytes")
        value = value.get("path") if data is None else data
    if is_missing(value):
        raise DataError(f"{where}: the image is missing. Leave the row out.")
    if isinstance(value, str | os.PathLike):
        return _file(Path(value), f"{where} ({printable(value)})" if name is None else where)
    if isinstance(value, _Stream) and not isinstance(value, Image.Image):
        value = _stream_bytes(value, where)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        if not data:
            raise DataError(f"{where}: the image is empty (0 bytes). Replace or remove it.")
        return Item(data, content_key("file", sha256(data).digest()), name)
    if isinstance(value, Image.Image):
        pixels: Bytes = np.array(upright_image(value, what=where), dtype=np.uint8)
    elif isinstance(value, np.ndarray | torch.Tensor):
        pixels = _from_array(value, where)
    else:
        raise DataError(
            f"{where}: {described(value)} is not an image. Give a path, bytes, an open file, a PIL "
            "image or an array."
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise DataError(
            f"{where}: the image has more than {MAX_PIXELS:,} pixels. Make it smaller first."
        )
    shape = f"{pixels.shape}".encode()
    return Item(pixels, content_key("pixels", shape, pixels.tobytes()), name)


def _stream_bytes(stream: Any, where: str) -> bytes:
    """Return all that an open file holds, from its beginning, and leave it where it stood."""
    try:
        if seekable := bool(getattr(stream, "seekable", lambda: False)()):
            place = stream.tell()
            stream.seek(0)
        data = stream.read(MAX_FILE_BYTES + 1)
        if seekable:
            stream.seek(place)
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise DataError(f"{where}: the open file cannot be read ({error}). Open it again.") from (
            error
        )
    if not isinstance(data, bytes):
        raise DataError(
            f"{where}: the file is open as text, and an image is bytes. Open it with mode 'rb'."
        )
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{where}: the image has more than {MAX_FILE_BYTES:,} bytes.")
    return data


def _file(path: Path, where: str) -> Item:
    if (kind := special_file(path)) is not None:
        raise DataError(f"{where}: this is {kind}, not a file. Give the file of an image.")
    try:
        hasher = sha256()
        size = 0
        with path.open("rb") as stream:
            while (block := stream.read(_BYTES_READ_AT_ONCE)) and size <= MAX_FILE_BYTES:
                hasher.update(block)
                size += len(block)
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{where}: there is no such file. Check the path.") from error
        if isinstance(error, IsADirectoryError):
            raise DataError(
                f"{where}: this is a folder. Give its images, or the folder itself as X."
            ) from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{where}: cannot be read ({reason}). Check the path.") from error
    if not size:
        raise DataError(f"{where}: the file is empty (0 bytes). Replace or remove it.")
    if size > MAX_FILE_BYTES:
        raise DataError(f"{where}: the file has more than {MAX_FILE_BYTES:,} bytes.")
    return Item(path, content_key("file", hasher.digest()), printable(path))


def _from_array(value: npt.NDArray[Any] | torch.Tensor, where: str) -> Bytes:
    is_tensor = isinstance(value, torch.Tensor)
    array = np.asarray(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value)
    if array.ndim == 3:
        last_fits, first_fits = array.shape[2] in (1, 3, 4), array.shape[0] in (1, 3)
        if first_fits and (is_tensor or not last_fits):
            array = array.transpose(1, 2, 0)
    if (
        array.size == 0
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3, 4))
    ):
        raise DataError(
            f"{where}: an array of shape {list(value.shape)} is not an image. It needs [H, W], "
            "[H, W, C] with C = 1, 3 or 4, or [C, H, W] with C = 1 or 3."
        )
    pixels = _eight_bits(array, where)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = np.asarray(as_mode(Image.fromarray(pixels), "RGB"))
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return np.ascontiguousarray(pixels)


def _eight_bits(array: npt.NDArray[Any], where: str) -> Bytes:
    """Return pixels as uint8.

    The scale follows from the dtype, not from the values: a dark image must not be read on another
    scale than a bright one.
    """
    if array.dtype == np.uint8:
        return np.array(array)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: {array.dtype} is no type of pixels. Give uint8, or floats in [0, 1]."
        )
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    low, high = float(array.min()), float(array.max())  # NaN if there is one
    if array.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            what = "NaN" if np.isnan(low + high) else f"{low:g} ... {high:g}"
            raise DataError(
                f"{where}: floating pixels must lie in [0, 1]; got {what}. Divide by 255, or give "
                "uint8."
            )
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    top = 65535 if array.dtype == np.uint16 else 255
    if low < 0 or high > top:
        raise DataError(
            f"{where}: {array.dtype} pixels must lie in 0 ... {top}; got {low:g} ... {high:g}. "
            "Scale them to uint8."
        )
    return np.rint(array / (top / 255)).astype(np.uint8)

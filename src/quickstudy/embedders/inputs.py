"""Reads what users give, lists, arrays and tables, as rows; errors name the row."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from quickstudy.core import DataError
from quickstudy.core.values import is_frame, is_missing
from quickstudy.embedders.base import Item
from quickstudy.tasks.folders import find_images
from quickstudy.tasks.images import MAX_PIXELS, as_mode

__all__ = [
    "content_key",
    "numeric_rows",
    "read_images",
    "read_texts",
    "rows_of",
]

Bytes = npt.NDArray[np.uint8]
_MOST_CHARACTERS_IN_ERROR = 40  # of a value that is quoted
_BYTES_READ_AT_ONCE = 1 << 20


def rows_of(X: Any, *, what: str) -> tuple[list[Any], list[str | None]]:
    """Return the rows of a list, an array, a Series or a column, and their names.

    Args:
        X: list, tuple, iterator, array ``[N]`` or ``[N, 1]``, pandas Series or DataFrame of one
            column.
        what: the examples in the plural, for errors: ``"texts"``.

    Returns:
        The rows, and for each its label in the index of pandas, or ``None`` where rows have no
        labels but numbers.

    Raises:
        DataError: if it is something else or empty.
    """
    names: list[str | None] | None = None
    if is_frame(X):
        if X.shape[1] != 1:
            raise DataError(
                f"got a table of {X.shape[1]} columns; {what} are in one. Give that column: "
                f"X[{str(X.columns[0]) if X.shape[1] else '...'!r}]."
            )
        X = X.iloc[:, 0]
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(X, pandas.Series):
        plain = isinstance(X.index, pandas.RangeIndex)
        names = None if plain else [str(label) for label in X.index]
        rows = X.tolist()
    elif isinstance(X, np.ndarray):
        if X.ndim != 1 and not (X.ndim == 2 and X.shape[1] == 1):
            raise DataError(f"got an array of shape {list(X.shape)}; {what} need [N] or [N, 1].")
        rows = X.reshape(-1).tolist()
    elif isinstance(X, list | tuple | Iterator):
        rows = list(X)
    else:
        raise DataError(
            f"got {_described(X)}; give a list of {what}, an array or a column of a table."
        )
    if not rows:
        raise DataError(f"got no {what}. Give at least one.")
    return rows, names or [None] * len(rows)


def content_key(kind: str, *parts: bytes) -> str:
    """Return the sha256 of an example's content.

    Args:
        kind: of content, so that a text and a picture of the same bytes have two keys.
        parts: of the content; their lengths are hashed too, so another division is another key.
    """
    hasher = sha256(kind.encode())
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.hexdigest()


def _described(value: Any) -> str:
    """Return the type of a value, and the value if it is short, for errors."""
    text = repr(value) if isinstance(value, str | int | float | bool) else ""
    most = _MOST_CHARACTERS_IN_ERROR
    shown = f" {text[:most]}{'...' if len(text) > most else ''}" if text else ""
    return f"{type(value).__name__}{shown}"


def _where(row: int, name: str | None) -> str:
    """Return the name of a row in errors."""
    return f"row {row}" if name is None else f"row {row} ({name})"


# ---------------------------------------------------------------- texts


def read_texts(X: Any, *, preview: int = 300) -> list[Item]:
    """Return texts as items; the key is the hash of the text, not stripped or lowercased.

    Args:
        X: see :func:`rows_of`.
        preview: number of characters kept to show to people.

    Raises:
        DataError: if a row is missing, empty, blank or no text; the message names the row.
    """
    if isinstance(X, str | bytes):
        raise DataError(f"got one text ({_described(X)}). Put it in a list: [text].")
    rows, names = rows_of(X, what="texts")
    items = []
    for row, (text, name) in enumerate(zip(rows, names, strict=True)):
        if is_missing(text):
            raise DataError(
                f"{_where(row, name)}: the text is missing. Fill it in or leave it out."
            )
        if not isinstance(text, str):
            raise DataError(
                f"{_where(row, name)}: {_described(text)} is not a text. Convert it to str first."
            )
        if not text.strip():
            raise DataError(f"{_where(row, name)}: the text is empty. Fill it in or leave it out.")
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{_where(row, name)}: the text is not valid Unicode ({error.reason}, at character "
                f"{error.start}). Decode it again, with errors='replace' if need be."
            ) from error
        short = text if len(text) <= preview else text[:preview] + " ..."
        items.append(Item(str(text), content_key("text", data), name, short))
    return items


# ---------------------------------------------------------------- images


def read_images(X: Any) -> list[Item]:
    """Return images as items; image files are not decoded yet.

    The key is the hash of a file's bytes, or of pixels and their shape: so the embedding of a known
    file is found without decoding it. The value is a ``Path``, ``bytes``, or uint8 ``[H, W]`` or
    ``[H, W, 3]``.

    Args:
        X: a folder (all images below it, sorted), one image file, or a list, an array or a column
            of paths, encoded bytes, ``{"bytes": ..., "path": ...}``, PIL images, arrays and
            tensors; or one array or tensor ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]``.
            Whole numbers are 0 ... 255 (16-bit: 0 ... 65,535), floats 0 ... 1; ``C`` is 1 or 3, or
            4 if it is last (transparent pixels become white). Where both orders are possible, an
            array has its channels last and a tensor first. Sizes and modes may differ in a list.

    Raises:
        DataError: if there are none, or one cannot be used; the message names its row.
    """
    if isinstance(X, str | os.PathLike):
        path = Path(X)
        if path.is_dir():
            files, _ = find_images(path)
            if not files:
                raise DataError(f"{path}: there are no images in this folder. Check the path.")
            return [_file(path / file, f"{path / file}") for file in files]
        return [_file(path, f"{path}")]
    if isinstance(X, Image.Image | bytes | dict):
        raise DataError(f"got one image ({type(X).__name__}). Put it in a list: [image].")
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
    where = _where(row, name)
    if isinstance(value, dict) and "bytes" in value:  # the form of images in Parquet files
        name = name or value.get("path") or None
        value = value["bytes"] if value["bytes"] is not None else value.get("path")
    if is_missing(value):
        raise DataError(f"{where}: the image is missing. Leave the row out.")
    if isinstance(value, str | os.PathLike):
        return _file(Path(value), f"{where} ({value})" if name is None else where)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        if not data:
            raise DataError(f"{where}: the image is empty (0 bytes). Replace or remove it.")
        return Item(data, content_key("file", sha256(data).digest()), name)
    if isinstance(value, Image.Image):
        pixels = _from_pil(value, where)
    elif isinstance(value, np.ndarray | torch.Tensor):
        pixels = _from_array(value, where)
    else:
        raise DataError(
            f"{where}: {_described(value)} is not an image. Give a path, bytes, a PIL image or an "
            "array."
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise DataError(
            f"{where}: the image has more than {MAX_PIXELS:,} pixels. Make it smaller first."
        )
    shape = f"{pixels.shape}".encode()
    return Item(pixels, content_key("pixels", shape, pixels.tobytes()), name)


def _file(path: Path, where: str) -> Item:
    try:
        hasher = sha256()
        size = 0
        with path.open("rb") as stream:
            while block := stream.read(_BYTES_READ_AT_ONCE):
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
    return Item(path, content_key("file", hasher.digest()), str(path))


def _from_pil(image: Image.Image, where: str) -> Bytes:
    try:
        image.load()
        grey = image.mode in ("1", "L", "F") or image.mode.startswith("I")
        return np.array(as_mode(image, "L" if grey else "RGB"), dtype=np.uint8)
    except Exception as error:  # decoders raise errors of many kinds on damaged bytes
        raise DataError(
            f"{where}: cannot be read as an image ({error}). Replace or remove it."
        ) from error


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


# ---------------------------------------------------------------- arrays


def numeric_rows(X: Any, *, what: str) -> npt.NDArray[Any]:
    """Return inputs as a numeric array ``[N, ...]`` of their own dtype.

    Args:
        X: array, tensor, DataFrame or list of rows.
        what: the examples in the plural, for errors: ``"embeddings"``.

    Raises:
        DataError: if it is not numeric, has no second axis, or is empty.
    """
    if is_frame(X):
        X = X.to_numpy()
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise DataError(f"the rows of {what} have different lengths. Make them equal.") from error
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{what} must hold numbers: {error}.") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} must hold numbers; got {array.dtype}.")
    if array.ndim < 2:
        raise DataError(
            f"{what} must have shape [N, ...]; got {list(array.shape)}. A single example is "
            "X[None], a single column X[:, None]."
        )
    if 0 in array.shape:
        raise DataError(f"{what} of shape {list(array.shape)} hold nothing. Give at least one.")
    return array

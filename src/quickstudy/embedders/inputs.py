"""Reads what users give, lists, arrays and tables, as rows; errors name the row."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quickstudy.core import DataError
from quickstudy.core.values import is_frame, is_missing
from quickstudy.embedders.base import Item

__all__ = [
    "content_key",
    "described",
    "numeric_rows",
    "read_texts",
    "row_name",
    "rows_of",
]

_MOST_CHARACTERS_IN_ERROR = 40  # of a value that is quoted


def rows_of(X: Any, *, what: str) -> tuple[list[Any], list[str | None]]:
    """Return the rows of a list, an array, a Series or a column, and their names.

    Args:
        X: list, tuple, iterator, array ``[N]`` or ``[N, 1]``, a column or an index of pandas, a
            DataFrame of one column, a column of Arrow.
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
    elif isinstance(X, list | tuple | Iterator) and not hasattr(X, "read"):
        rows = list(X)
    elif _is_column(X):
        # a column of pandas, Arrow, polars: their own list has plain Python objects
        own = getattr(X, "to_pylist", None) or getattr(X, "tolist", None)
        rows = list(own()) if own is not None else list(X)
    else:
        raise DataError(
            f"got {described(X)}; give a list of {what}, an array or a column of a table."
        )
    if not rows:
        raise DataError(f"got no {what}. Give at least one.")
    return rows, names or [None] * len(rows)


def _is_column(X: Any) -> bool:
    """Return whether this is a sequence of examples: in order, and no text, record or file."""
    if isinstance(X, str | bytes | bytearray | Mapping | set | frozenset):
        return False
    return hasattr(X, "__len__") and hasattr(X, "__iter__") and getattr(X, "ndim", 1) == 1


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


def described(value: Any) -> str:
    """Return the type of a value, and the value if it is short, for errors."""
    text = repr(value) if isinstance(value, str | int | float | bool) else ""
    most = _MOST_CHARACTERS_IN_ERROR
    shown = f" {text[:most]}{'...' if len(text) > most else ''}" if text else ""
    return f"{type(value).__name__}{shown}"


def row_name(row: int, name: str | None) -> str:
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
        raise DataError(f"got one text ({described(X)}). Put it in a list: [text].")
    rows, names = rows_of(X, what="texts")
    items = []
    for row, (text, name) in enumerate(zip(rows, names, strict=True)):
        if is_missing(text):
            raise DataError(
                f"{row_name(row, name)}: the text is missing. Fill it in or leave it out."
            )
        if not isinstance(text, str):
            raise DataError(
                f"{row_name(row, name)}: {described(text)} is not a text. Convert it to str first."
            )
        if not text.strip():
            raise DataError(
                f"{row_name(row, name)}: the text is empty. Fill it in or leave it out."
            )
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{row_name(row, name)}: the text is not valid Unicode ({error.reason}, at "
                f"character {error.start}). Decode it again, with errors='replace' if need be."
            ) from error
        short = text if len(text) <= preview else text[:preview] + " ..."
        items.append(Item(str(text), content_key("text", data), name, short))
    return items


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

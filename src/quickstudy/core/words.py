"""Text for people: counted nouns, what is long made short, and a silent reporting function."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["count", "printable", "quiet", "shortened", "some"]


def count(number: int, noun: str) -> str:
    """Return ``1 task`` or ``1,000 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(name: str | Path | os.PathLike[str]) -> str:
    """Return a name that any report can hold.

    The name of a file is bytes, which need not be valid UTF-8; Python then keeps them as lone
    surrogates, which no JSON, CSV or Parquet file accepts. Here they are shown as ``\\xe9``.
    """
    text = os.fspath(name)
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(text).decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:  # a surrogate that no name of a file has
            return text.encode("utf-8", "backslashreplace").decode()
    return text


def quiet(text: str) -> None:
    """Print nothing: the default where a function takes another one to report its progress."""
    del text


def shortened(text: str, most: int) -> str:
    """Return a text on one line with at most ``most`` characters: its middle becomes ``...``.

    Line breaks and other characters that a terminal would obey are shown as escapes.
    """
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(text) <= most:
        return text
    kept = max(most - 3, 2)
    start = kept // 2
    return f"{text[:start]}...{text[len(text) - (kept - start) :]}"


def some(names: Sequence[str], most: int) -> str:
    """Return the first ``most`` names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")

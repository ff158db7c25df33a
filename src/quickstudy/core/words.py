"""Text for people: counted nouns, and a reporting function that is silent."""

from __future__ import annotations

__all__ = ["count", "quiet"]


def count(number: int, noun: str) -> str:
    """Return ``1 task`` or ``1,000 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quiet(text: str) -> None:
    """Print nothing: the default where a function takes another one to report its progress."""
    del text

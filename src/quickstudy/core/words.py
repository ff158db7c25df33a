"""Words for people."""

from __future__ import annotations

__all__ = ["count", "quiet"]


def count(number: int, noun: str) -> str:
    """Return ``1 task`` or ``1,000 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quiet(text: str) -> None:
    """Say nothing: the default where a function would tell a person what it does."""
    del text

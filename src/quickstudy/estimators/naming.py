"""Finds the example that a person means: by its file, its line, its text."""

from __future__ import annotations

from pathlib import PurePath

from quickstudy.core import ConfigError, nearest_names
from quickstudy.estimators.support import Support

__all__ = ["example_rows"]

_LONGEST_NAME = 80  # longer texts are no help among the names on offer


def example_rows(support: Support, name: str) -> list[int]:
    """Return the rows of the example that is meant: several if it was given more than once.

    Args:
        support: the examples.
        name: the whole name of an example (``koala/4.jpg``, ``s.csv, line 4``), the end of its
            path (``4.jpg``), the number of its line in the table (``4``), or its text.

    Raises:
        ConfigError: if there is no such example, or it may be one of several.
    """
    wanted = name.strip()
    sources = [item.source or "" for item in support.items]
    texts = [i.preview if isinstance(i.preview, str) else "" for i in support.items]
    for found in (
        [row for row, source in enumerate(sources) if source == wanted],
        [row for row, text in enumerate(texts) if text and text == wanted],
        [row for row, source in enumerate(sources) if _ends(source, wanted)],
    ):
        if not found:
            continue
        if len({support.items[row].key for row in found}) > 1:
            shown = ", ".join(repr(sources[row] or texts[row]) for row in found[:3])
            raise ConfigError(f"{name!r} may be any of {shown}. Write the whole name.")
        return found
    known = {n for n in (*sources, *texts) if 0 < len(n) <= _LONGEST_NAME}
    near = nearest_names(wanted, known) if known else ""
    raise ConfigError(
        f"the task has no example {name!r}. Name it by its file, by its line in the table, or by "
        f"its text. {near}".rstrip()
    )


def _ends(source: str, wanted: str) -> bool:
    """Return whether a name is the end of a path, or a number that of a line."""
    if wanted.isdigit():
        return source.endswith((f", line {wanted}", f", row {wanted}", f", record {wanted}"))
    parts, end = PurePath(source).parts, PurePath(wanted).parts
    return (bool(end) and parts[-len(end) :] == end) or source.endswith(f", {wanted}")

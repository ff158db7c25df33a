"""The error tree. Every error says what was wrong, what was given, and what to do.

::

    QuickstudyError
    ├── ConfigError        a setting, a name or an argument is not usable (also ValueError)
    ├── DataError          a file or folder cannot be read or is not what it says (also ValueError)
    │   └── ChecksumError  a file's sha256 is not the expected one
    ├── TaskError          the data cannot give the episode asked for (also ValueError)
    ├── ProtocolError      results cannot be compared, or a split is misused (also ValueError)
    ├── DivergenceError    an inner loop or a training has left the finite numbers
    ├── CheckpointError    a run cannot be written, read or resumed
    └── MissingExtraError  an optional dependency is not installed (also ImportError)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ChecksumError",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "MissingExtraError",
    "ProtocolError",
    "QuickstudyError",
    "TaskError",
    "nearest_names",
]

_SHOWN = 40


class QuickstudyError(Exception):
    """Base of every error that Quickstudy raises on purpose."""


class ConfigError(QuickstudyError, ValueError):
    """A setting, a name or an argument is not usable."""


class DataError(QuickstudyError, ValueError):
    """A file or folder cannot be read, or does not hold what it should."""


class ChecksumError(DataError):
    """A file's sha256 is not the expected one."""


class TaskError(QuickstudyError, ValueError):
    """The data cannot give the episode that was asked for."""


class ProtocolError(QuickstudyError, ValueError):
    """Two results cannot be compared, or a split is used for what it is not for."""


class DivergenceError(QuickstudyError):
    """An inner loop or a meta-training has left the finite numbers."""


class CheckpointError(QuickstudyError):
    """A run cannot be written, read or resumed."""


class MissingExtraError(QuickstudyError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed. Install it with: pip install 'quickstudy[{extra}]'"
        )


def nearest_names(given: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the names nearest to ``given``, or all of them.

    Args:
        given: what the user wrote.
        known: the names that exist.

    Returns:
        For example ``"Did you mean 'omniglot'?"`` or ``"Known names: a, b."``.
    """
    names, wanted = sorted(known), given.lower()
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    # "lr" is near "outer_lr" for people
    close = close or sorted((name for name in names if wanted and wanted in name), key=len)[:3]
    if close:
        return "Did you mean " + " or ".join(repr(name) for name in close) + "?"
    shown = sorted(sorted(names, key=len)[:_SHOWN])
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return "Known names: " + ", ".join(shown) + more + "."

"""The error tree. Every error says what was wrong, what was given, and what to do.

The second column is the class's ``fault``: who can mend it. A service answers "input" and "data"
with 4xx, as the client sent something else next time; "file" and "ours" with 5xx, as only its
operator or its authors can do something about it.

::

    QuickstudyError        ours   what no other class describes
    ├── ConfigError        input  a setting, a name or an argument is not usable (also ValueError)
    ├── DataError          data   a file is unreadable, or not what it should be (also ValueError)
    │   └── ChecksumError  data   a file's sha256 is not the expected one
    ├── TaskError          input  the data cannot give the episode asked for (also ValueError)
    ├── ProtocolError      input  results do not compare, or a split is misused (also ValueError)
    ├── DivergenceError    input  a loss of an inner loop or of a training is no longer finite
    ├── CheckpointError    file   a run cannot be written, read or resumed
    └── MissingExtraError  ours   an optional dependency is not installed (also ImportError)

``input``: what was asked for is impossible, and another request or setting helps. ``data``: the
examples given are damaged or are not what they should be. ``file``: a file that Quickstudy keeps
cannot be written or read. ``ours``: the installation or the code; every exception that is not a
:class:`QuickstudyError` counts as ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar, Literal

__all__ = [
    "CheckpointError",
    "ChecksumError",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "Fault",
    "MissingExtraError",
    "ProtocolError",
    "QuickstudyError",
    "TaskError",
    "fault_of",
    "nearest_names",
]

Fault = Literal["input", "data", "file", "ours"]
"""Whose fault an error is: what the user asked for, the examples given, a file that Quickstudy
keeps, or Quickstudy itself and its installation."""

_NAMES_SHOWN = 40


class QuickstudyError(Exception):
    """Base of every error that Quickstudy raises on purpose.

    Example::

        try:
            EpisodeSpec(n_way=0, k_shot=1)
        except QuickstudyError as error:
            print(error, error.fault)
    """

    fault: ClassVar[Fault] = "ours"
    """Whose fault errors of this class are; every subclass declares its own."""


class ConfigError(QuickstudyError, ValueError):
    """A setting, a name or an argument is not usable."""

    fault = "input"


class DataError(QuickstudyError, ValueError):
    """A file or folder cannot be read, or does not hold what it should."""

    fault = "data"


class ChecksumError(DataError):
    """A file's sha256 is not the expected one."""

    fault = "data"


class TaskError(QuickstudyError, ValueError):
    """The data cannot give the episode that was asked for."""

    # the examples are sound: a request for fewer of them succeeds
    fault = "input"


class ProtocolError(QuickstudyError, ValueError):
    """Two results cannot be compared, or a split is used for what it is not for."""

    fault = "input"


class DivergenceError(QuickstudyError):
    """A loss of an inner loop or of a meta-training is no longer finite."""

    # the remedy is a setting: a lower rate, a clipped gradient, fewer steps
    fault = "input"


class CheckpointError(QuickstudyError):
    """A run cannot be written, read or resumed."""

    fault = "file"


class MissingExtraError(QuickstudyError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    # the client of a service cannot install anything on it
    fault = "ours"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed. Install it with: pip install 'quickstudy[{extra}]'"
        )


def fault_of(error: BaseException) -> Fault:
    """Return whose fault any exception is.

    Args:
        error: what was raised. ``KeyboardInterrupt`` and ``SystemExit`` are requests to stop and
            nobody's fault: handle them first.

    Returns:
        The ``fault`` of a :class:`QuickstudyError`; ``"ours"`` for everything else, ``MemoryError``
        and ``OSError`` included: an error that was not foreseen is ours.

    Raises:
        TypeError: if ``error`` is a request to stop.
    """
    if not isinstance(error, Exception):
        raise TypeError(
            f"{type(error).__name__} is a request to stop, which is nobody's fault. Handle it "
            "before asking."
        )
    return error.fault if isinstance(error, QuickstudyError) else "ours"


def nearest_names(given: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the names nearest to ``given``, or all of them.

    Args:
        given: what the user wrote; never offered itself.
        known: the names that exist. Of ``learner.lr`` and ``lr``, the shorter one is offered.

    Returns:
        For example ``"Did you mean 'omniglot'?"`` or ``"Known names: a, b."``.
    """
    names, wanted = sorted(set(known) - {given}), given.lower()
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    # difflib finds "lr" far from "outer_lr", people do not: names that contain the text count too
    close = close or sorted((name for name in names if wanted and wanted in name), key=len)[:3]
    # the same setting by its path and by its last part
    close = [name for name in close if name.rpartition(".")[2] not in {*close} - {name}]
    if close:
        return "Did you mean " + " or ".join(repr(name) for name in close) + "?"
    shown = sorted(sorted(names, key=len)[:_NAMES_SHOWN])
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return "Known names: " + ", ".join(shown) + more + "."

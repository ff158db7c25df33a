"""Episodes, task states, seeding and errors: what every other room builds on."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickstudy.core.episode import Episode, EpisodeSpec, Examples
    from quickstudy.core.errors import (
        CheckpointError,
        ChecksumError,
        ConfigError,
        DataError,
        DivergenceError,
        Fault,
        MissingExtraError,
        ProtocolError,
        QuickstudyError,
        TaskError,
        fault_of,
        nearest_names,
    )
    from quickstudy.core.seeding import generator, keys, normals, uniforms
    from quickstudy.core.state import TaskState, check_state, n_tasks, slice_tasks

__all__ = [
    "CheckpointError",
    "ChecksumError",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "Episode",
    "EpisodeSpec",
    "Examples",
    "Fault",
    "MissingExtraError",
    "ProtocolError",
    "QuickstudyError",
    "TaskError",
    "TaskState",
    "check_state",
    "fault_of",
    "generator",
    "keys",
    "n_tasks",
    "nearest_names",
    "normals",
    "slice_tasks",
    "uniforms",
]

_MODULES = {
    "episode": ("Episode", "EpisodeSpec", "Examples"),
    "errors": (
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
    ),
    "seeding": ("generator", "keys", "normals", "uniforms"),
    "state": ("TaskState", "check_state", "n_tasks", "slice_tasks"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module of a name when it is asked for.

    Errors are wanted where episodes are not, and episodes need PyTorch, which takes seconds.
    """
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Episodes, task states, seeding and errors: what every other room builds on."""

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

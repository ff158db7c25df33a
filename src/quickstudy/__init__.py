"""Quickstudy: learn from many tasks, master a new one from a handful of examples."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickstudy.core import Episode, EpisodeSpec, Examples, QuickstudyError, TaskState

__all__ = [
    "Episode",
    "EpisodeSpec",
    "Examples",
    "FewShotClassifier",
    "QuickstudyError",
    "TaskState",
    "TaskVersion",
    "__version__",
]

__version__ = "0.1.0"

_ESTIMATORS = ("FewShotClassifier", "TaskVersion")

# PyTorch's threads wait for each other by spinning. On a core that another process wants as well
# that made training 20 times slower (measured on 2 cores); waking a sleeping thread costs 4 % when
# nobody else is there. libgomp reads this once, when PyTorch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    """Import PyTorch when it is needed, not before."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _ESTIMATORS:
        # by name: an import statement would put the whole package above its lowest rooms
        return getattr(importlib.import_module("quickstudy.estimators"), name)
    from quickstudy import core

    return getattr(core, name)

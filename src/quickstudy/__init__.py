"""Quickstudy: learn from many tasks, master a new one from a handful of examples."""

from quickstudy.core import Episode, EpisodeSpec, Examples, QuickstudyError, TaskState

__all__ = ["Episode", "EpisodeSpec", "Examples", "QuickstudyError", "TaskState", "__version__"]

__version__ = "0.1.0"

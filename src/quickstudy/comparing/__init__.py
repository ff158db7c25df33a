"""Comparisons: many learners and plain baselines on the same episodes."""

from quickstudy.comparing.result import Approach, Cell, Comparison, Difference, Role

__all__ = ["Approach", "Cell", "Comparison", "Difference", "Role"]

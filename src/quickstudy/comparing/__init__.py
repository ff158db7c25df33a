"""Comparisons: many learners and plain baselines on the same episodes.

::

    from quickstudy.comparing import compare_runs

    compared = compare_runs(["runs/a", "runs/b"], ["omniglot"], out="compared")
    print(compared.text())
"""

from quickstudy.comparing.compare import Compared, compare_runs
from quickstudy.comparing.learners import compare_learners
from quickstudy.comparing.result import Approach, Cell, Comparison, Difference, Role

__all__ = [
    "Approach",
    "Cell",
    "Compared",
    "Comparison",
    "Difference",
    "Role",
    "compare_learners",
    "compare_runs",
]

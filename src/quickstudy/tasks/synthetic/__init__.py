"""Made-up tables: random mechanisms, drawn in batches, as a source of tasks."""

from quickstudy.tasks.synthetic.columns import (
    ColumnForms,
    MissingAtRandom,
    MissingByColumn,
    MissingByValue,
    MissingValues,
)
from quickstudy.tasks.synthetic.draws import Draws
from quickstudy.tasks.synthetic.gaussian import LinearGaussian
from quickstudy.tasks.synthetic.graphs import RandomGraph
from quickstudy.tasks.synthetic.make import TableMaker
from quickstudy.tasks.synthetic.rules import RuleTarget
from quickstudy.tasks.synthetic.source import SyntheticTables
from quickstudy.tasks.synthetic.trees import TreeTarget

__all__ = [
    "ColumnForms",
    "Draws",
    "LinearGaussian",
    "MissingAtRandom",
    "MissingByColumn",
    "MissingByValue",
    "MissingValues",
    "RandomGraph",
    "RuleTarget",
    "SyntheticTables",
    "TableMaker",
    "TreeTarget",
]

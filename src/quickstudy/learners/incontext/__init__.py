"""In-context learners: a network reads the support and answers, without a gradient."""

from quickstudy.learners.incontext.table_weights import load_table_learner
from quickstudy.learners.incontext.tables import TableInContext

__all__ = ["TableInContext", "load_table_learner"]

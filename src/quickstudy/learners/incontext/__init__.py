"""In-context learners: a transformer, meta-trained on many tasks, reads the support set of another
in one pass."""

from quickstudy.learners.incontext.sets import InContextHead, InContextTransformer

__all__ = ["InContextHead", "InContextTransformer"]

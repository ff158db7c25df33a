"""Gradient-based learners."""

from quickstudy.learners.gradient.inner import Params, SupportLoss, descend

__all__ = ["Params", "SupportLoss", "descend"]

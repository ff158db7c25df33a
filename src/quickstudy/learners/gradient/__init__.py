"""Gradient-based learners: a few gradient steps from a meta-learned start."""

from quickstudy.learners.gradient.base import GradientLearner
from quickstudy.learners.gradient.implicit import IMAML, proximal_minimum
from quickstudy.learners.gradient.inner import Params, SupportLoss, descend
from quickstudy.learners.gradient.maml import ANIL, FOMAML, MAML, MetaSGD, ProtoMAML
from quickstudy.learners.gradient.options import InnerLoop
from quickstudy.learners.gradient.reptile import Reptile
from quickstudy.learners.gradient.starts import LinearHead, PrototypeStart, SharedHead
from quickstudy.learners.gradient.taskwise import (
    TaskModule,
    check_module,
    without_running_statistics,
)

__all__ = [
    "ANIL",
    "FOMAML",
    "IMAML",
    "MAML",
    "GradientLearner",
    "InnerLoop",
    "LinearHead",
    "MetaSGD",
    "Params",
    "ProtoMAML",
    "PrototypeStart",
    "Reptile",
    "SharedHead",
    "SupportLoss",
    "TaskModule",
    "check_module",
    "descend",
    "proximal_minimum",
    "without_running_statistics",
]

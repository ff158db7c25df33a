"""How a gradient learner adapts: the inner loop, and the arguments that learners pass on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypedDict

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.learners.gradient.taskwise import Engine

__all__ = ["GradientOptions", "InnerLoop", "NetOptions", "StartOptions"]


@checked
@dataclass(frozen=True, slots=True)
class InnerLoop:
    """How a task is learned: by how many gradient steps, of what size.

    Args:
        steps: gradient steps while meta-training.
        eval_steps: gradient steps outside meta-training; ``None`` = as many as ``steps``.
        lr: inner learning rate; where rates are learned, their value at the start.
        clip: a task's inner gradient is shortened to this norm; ``None`` = never.
        memory: ``"unrolled"`` keeps the graph of every step: fastest. ``"flat"`` keeps the graph of
            one step and computes the others again; what grows with the steps is one copy of the
            adapted parameters for each task and step.

    Raises:
        ConfigError: if a number is out of range.

    Example::

        inner = InnerLoop(steps=5, eval_steps=10, lr=0.1, memory="flat")
        learner = MAML(Conv4(norm="support"), inner=inner)
        learner.inner_steps_at_test()  # 10
        same_weights = learner.with_inner_steps(0)
    """

    steps: int = 1
    eval_steps: int | None = None
    lr: float = 0.4
    clip: float | None = None
    memory: Literal["unrolled", "flat"] = "unrolled"

    def __post_init__(self) -> None:
        for name in ("steps", "eval_steps"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} must be at least 0; got {value}.")
        if not 0 < self.lr < math.inf:
            raise ConfigError(
                f"lr, the inner learning rate, must be a number greater than 0; got {self.lr}."
            )
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ConfigError(f"clip must be greater than 0, or None; got {self.clip}.")
        if self.memory not in ("flat", "unrolled"):
            raise ConfigError(f"memory must be 'flat' or 'unrolled'; got {self.memory!r}.")


class NetOptions(TypedDict, total=False):
    """The arguments of :class:`GradientLearner` that have nothing to do with its head."""

    features: int | None
    inner: InnerLoop | None
    query_statistics: Literal["support", "query"]
    engine: Engine


class StartOptions(NetOptions, total=False):
    """The arguments of a learner whose head has a learned start."""

    head: Literal["linear", "shared", "prototype"] | None
    n_way: int


class GradientOptions(StartOptions, total=False):
    """All arguments of :class:`GradientLearner`."""

    temperature: float | None

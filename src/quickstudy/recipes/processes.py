"""Neural processes in recipes.

quickstudy train sinusoid-cnp        quickstudy train gp-anp -s learner.floor=0.02
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from quickstudy.learners.base import Family, Learner
from quickstudy.learners.incontext import AttentiveNeuralProcess, ConditionalNeuralProcess
from quickstudy.nets import Encoder
from quickstudy.recipes.base import LearnerConfig, given

__all__ = ["ANPConfig", "CNPConfig", "ProcessConfig"]


class ProcessConfig(LearnerConfig):
    """What the neural processes share. ``None`` = the learner's own default.

    Args:
        width: of all hidden layers of the head.
        depth: number of layers that read a pair, and of layers that answer a query.
        floor: smallest standard deviation of an answer, in the unit of the targets.

    Example::

        from quickstudy.recipes import LEARNERS, ProcessConfig
        kinds = [kind for kind, one in LEARNERS.items() if issubclass(one, ProcessConfig)]
        encoder = EncoderConfig(kind="mlp", in_features=1)
        learner = build_learner(encoder, LEARNERS["cnp"](width=64), seed=0)
    """

    family: ClassVar[Family] = "in-context"
    family_settings: ClassVar[dict[str, Any]] = {
        "kind": None,
        "width": None,
        "depth": None,
        "floor": None,
        "heads": None,
        "blocks": None,
    }

    width: int | None = Field(None, ge=1, le=4096)
    depth: int | None = Field(None, ge=1, le=64)
    floor: float | None = Field(None, gt=0, allow_inf_nan=False)


class CNPConfig(ProcessConfig):
    """Conditional neural process, see :class:`quickstudy.learners.ConditionalNeuralProcess`.

    Example::

        config = CNPConfig(width=64, floor=0.05)
        encoder = EncoderConfig(kind="mlp", in_features=1, channels=64)
        learner = build_learner(encoder, config, seed=0)
        recipe = override(get_recipe("sinusoid-cnp"), ["learner.width=64"])
    """

    kind: Literal["cnp"] = "cnp"

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner; it is for regression, which has no classes."""
        del n_way
        return ConditionalNeuralProcess(net, **given(self, "width", "depth", "floor"))


class ANPConfig(ProcessConfig):
    """Attentive neural process, see :class:`quickstudy.learners.AttentiveNeuralProcess`.

    Args:
        heads: number of heads of each attention, a divisor of ``width``.
        blocks: number of blocks of self-attention among the pairs of the support; 0 = none.

    Example::

        config = ANPConfig(width=64, heads=4, blocks=1)
        encoder = EncoderConfig(kind="mlp", in_features=1, channels=64)
        learner = build_learner(encoder, config, seed=0)
        recipe = override(get_recipe("sinusoid-anp"), ["blocks=1"])
    """

    kind: Literal["anp"] = "anp"
    heads: int | None = Field(None, ge=1)
    blocks: int | None = Field(None, ge=0, le=64)

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner; it is for regression, which has no classes."""
        del n_way
        settings = given(self, "width", "depth", "floor", "heads", "blocks")
        return AttentiveNeuralProcess(net, **settings)

"""Gradient-based learners in recipes.

quickstudy train omniglot-maml        quickstudy train sinusoid-maml -s inner_lr=0.02
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from quickstudy.learners.base import Family, Learner
from quickstudy.learners.gradient import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    GradientLearner,
    MetaSGD,
    ProtoMAML,
    Reptile,
)
from quickstudy.nets import Encoder
from quickstudy.recipes.base import LearnerConfig, given

__all__ = [
    "ANILConfig",
    "FOMAMLConfig",
    "GradientConfig",
    "IMAMLConfig",
    "MAMLConfig",
    "MetaSGDConfig",
    "ProtoMAMLConfig",
    "ReptileConfig",
]

Head = Literal["linear", "shared", "prototype"]
Rates = Literal["fixed", "layer", "layer-step", "parameter"]

_LOOP = {
    "steps": "inner_steps",
    "eval_steps": "eval_steps",
    "lr": "inner_lr",
    "clip": "inner_clip",
    "memory": "memory",
}
"""Settings of :class:`~quickstudy.learners.InnerLoop`, by their names there."""


class GradientConfig(LearnerConfig):
    """What the gradient learners share. ``None`` = the learner's own default.

    Args:
        inner_steps: gradient steps while meta-training.
        eval_steps: gradient steps afterwards; ``None`` = as many.
        inner_lr: inner learning rate, or where learned ones start.
        inner_clip: largest norm of a task's inner gradient; ``None`` = any.
        memory: ``"unrolled"`` or ``"flat"``.
        query_statistics: ``"support"`` (inductive) or ``"query"`` (transductive).
        engine: ``"auto"``, ``"batched"`` or ``"loop"``.
    """

    family: ClassVar[Family] = "gradient"
    adapts_encoder: ClassVar[bool] = True
    learner: ClassVar[Callable[..., GradientLearner]]
    family_settings: ClassVar[dict[str, Any]] = {
        "kind": None,
        "head": None,
        "inner_steps": None,
        "eval_steps": None,
        "inner_lr": None,
        "inner_clip": None,
        "memory": None,
        "query_statistics": "support",
        "engine": "auto",
        "rates": None,
        "multi_step": None,
        "first_order_until": None,
        "temperature": None,
        "optimiser": None,
        "minibatches": None,
        "strength": None,
        "solver_steps": None,
    }

    inner_steps: int | None = Field(None, ge=0)
    eval_steps: int | None = Field(None, ge=0)
    inner_lr: float | None = Field(None, gt=0)
    inner_clip: float | None = Field(None, gt=0)
    memory: Literal["unrolled", "flat"] | None = None
    query_statistics: Literal["support", "query"] = "support"
    engine: Literal["auto", "batched", "loop"] = "auto"

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner; ``n_way`` is how many classes a linear head has a start for."""
        kind: Any = self.learner
        loop = {name: v for name, own in _LOOP.items() if (v := getattr(self, own)) is not None}
        own = type(self).model_fields.keys() - {"kind", *_LOOP.values()}
        options = given(self, *own) | self._head_options(n_way)
        made: GradientLearner = kind(net, inner=replace(kind.default_inner, **loop), **options)
        return made

    def _head_options(self, n_way: int) -> dict[str, Any]:
        return {"n_way": n_way}

    @property
    def transductive(self) -> bool:
        """Whether queries are normalised together in training."""
        return self.query_statistics == "query"


class _WithHead(GradientConfig):
    head: Head | None = None


class _WithPrototypes(_WithHead):
    temperature: float | None = Field(None, gt=0)


class MAMLConfig(_WithPrototypes):
    """MAML with the options of MAML++, see :class:`quickstudy.learners.MAML`.

    Args:
        head: ``"linear"``, ``"shared"`` or ``"prototype"``.
        temperature: of a head of prototypes.
        rates: inner rates: ``"fixed"``, ``"layer"``, ``"layer-step"``, ``"parameter"``.
        multi_step: share of the training in which the loss after every inner step counts.
        first_order_until: share of the training in which second derivatives are left out.
    """

    learner: ClassVar[Callable[..., GradientLearner]] = MAML
    kind: Literal["maml"] = "maml"
    rates: Rates | None = None
    multi_step: float | None = Field(None, ge=0, le=1)
    first_order_until: float | None = Field(None, ge=0, le=1)


class FOMAMLConfig(_WithPrototypes):
    """First-order MAML, see :class:`quickstudy.learners.FOMAML`."""

    learner: ClassVar[Callable[..., GradientLearner]] = FOMAML
    kind: Literal["fomaml"] = "fomaml"


class MetaSGDConfig(_WithPrototypes):
    """Meta-SGD, see :class:`quickstudy.learners.MetaSGD`."""

    learner: ClassVar[Callable[..., GradientLearner]] = MetaSGD
    kind: Literal["metasgd"] = "metasgd"


class ANILConfig(_WithPrototypes):
    """ANIL, see :class:`quickstudy.learners.ANIL`."""

    learner: ClassVar[Callable[..., GradientLearner]] = ANIL
    kind: Literal["anil"] = "anil"


class ProtoMAMLConfig(GradientConfig):
    """Proto-MAML, see :class:`quickstudy.learners.ProtoMAML`: its head is made from the support.

    Args:
        temperature: of the prototypes.
        rates: as in :class:`MAMLConfig`.
        multi_step: as in :class:`MAMLConfig`.
        first_order_until: as in :class:`MAMLConfig`.
    """

    learner: ClassVar[Callable[..., GradientLearner]] = ProtoMAML
    kind: Literal["protomaml"] = "protomaml"
    temperature: float | None = Field(None, gt=0)
    rates: Rates | None = None
    multi_step: float | None = Field(None, ge=0, le=1)
    first_order_until: float | None = Field(None, ge=0, le=1)

    def _head_options(self, n_way: int) -> dict[str, Any]:
        del n_way
        return {}


class ReptileConfig(_WithHead):
    """Reptile, see :class:`quickstudy.learners.Reptile`.

    Args:
        optimiser: of the inner loop, ``"sgd"`` or ``"adam"``.
        minibatches: into how many a training task is cut.
    """

    learner: ClassVar[Callable[..., GradientLearner]] = Reptile
    kind: Literal["reptile"] = "reptile"
    optimiser: Literal["sgd", "adam"] | None = None
    minibatches: int | None = Field(None, ge=1)


class IMAMLConfig(_WithPrototypes):
    """MAML with implicit gradients, see :class:`quickstudy.learners.IMAML`.

    Args:
        strength: how strongly the start holds.
        solver_steps: of conjugate gradients.
    """

    learner: ClassVar[Callable[..., GradientLearner]] = IMAML
    kind: Literal["imaml"] = "imaml"
    strength: float | None = Field(None, gt=0)
    solver_steps: int | None = Field(None, ge=1)

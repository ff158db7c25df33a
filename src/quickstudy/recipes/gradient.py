"""Gradient-based learners in recipes.

quickstudy train omniglot-maml        quickstudy train sinusoid-maml -s inner_lr=0.02
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

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

_SETTING_OF_LOOP_ARGUMENT = {
    "steps": "inner_steps",
    "eval_steps": "eval_steps",
    "lr": "inner_lr",
    "clip": "inner_clip",
    "memory": "memory",
}
"""Our settings by the name of the argument of :class:`~quickstudy.learners.InnerLoop`."""


class GradientConfig(LearnerConfig):
    """What the gradient learners share. ``None`` = the learner's own default.

    Args:
        inner_steps: inner gradient steps in meta-training.
        eval_steps: inner gradient steps in validation and test.
        inner_lr: inner learning rate; where rates are learned, their initial value.
        inner_clip: largest norm of a task's inner gradient; a larger one is scaled down.
        memory: ``"unrolled"`` or ``"flat"``, see :class:`~quickstudy.learners.InnerLoop`.
        query_statistics: statistics that normalise the queries: ``"support"`` (inductive) or
            ``"query"`` (transductive).
        engine: how tasks are computed: ``"auto"``, ``"batched"`` or ``"loop"``.

    Example::

        from quickstudy.recipes import LEARNERS, GradientConfig
        kinds = [kind for kind, one in LEARNERS.items() if issubclass(one, GradientConfig)]
        config = LEARNERS["maml"](inner_steps=3, inner_lr=0.1)
        learner = build_learner(EncoderConfig(norm="support"), config, seed=0, n_way=5)
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
        """Return the learner; ``n_way`` = number of classes for which a linear head has initial
        weights."""
        kind: Any = self.learner
        loop = {
            name: v
            for name, own in _SETTING_OF_LOOP_ARGUMENT.items()
            if (v := getattr(self, own)) is not None
        }
        own = type(self).model_fields.keys() - {"kind", *_SETTING_OF_LOOP_ARGUMENT.values()}
        options = given(self, *own) | self._head_options(n_way)
        made: GradientLearner = kind(net, inner=replace(kind.default_inner, **loop), **options)
        return made

    def _head_options(self, n_way: int) -> dict[str, Any]:
        return {"n_way": n_way}

    def _refuse_memory(self) -> Self:
        """Refuse a setting that would change nothing: no graph of the inner steps is kept."""
        if self.memory is not None:
            raise ValueError(
                f"memory={self.memory} would change nothing: {type(self).kind_name()} keeps no "
                "graph of its inner steps. Leave memory out."
            )
        return self

    @property
    def transductive(self) -> bool:
        """Whether training normalises the queries of a task by their own statistics."""
        return self.query_statistics == "query"


class _WithHead(GradientConfig):
    head: Head | None = None


class _WithPrototypes(_WithHead):
    temperature: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check_temperature(self) -> Self:
        """Refuse a temperature where there are no prototypes to divide the logits of."""
        if self.temperature is not None and self.head != "prototype":
            raise ValueError(
                f"temperature={self.temperature} would change nothing: it belongs to "
                "head=prototype. Leave it out, or set that head."
            )
        return self


class MAMLConfig(_WithPrototypes):
    """MAML with the options of MAML++, see :class:`quickstudy.learners.MAML`.

    Args:
        head: initial weights of the head: ``"linear"`` (learned, one row for each label),
            ``"shared"`` (learned, the same row for all labels), ``"prototype"`` (from the support).
        temperature: of a head that starts from prototypes.
        rates: how many inner learning rates: ``"fixed"`` (one, not learned), ``"layer"``,
            ``"layer-step"`` or ``"parameter"`` (learned, one for each of these).
        multi_step: share of the training in which the loss after every inner step counts.
        first_order_until: share of the training in which second derivatives are left out.

    Example::

        config = MAMLConfig(inner_steps=3, inner_lr=0.1, head="shared")
        learner = build_learner(EncoderConfig(norm="support"), config, seed=0, n_way=5)
        recipe = override(get_recipe("omniglot-maml"), ["inner_steps=3", "head=shared"])
    """

    learner: ClassVar[Callable[..., GradientLearner]] = MAML
    kind: Literal["maml"] = "maml"
    rates: Rates | None = None
    multi_step: float | None = Field(None, ge=0, le=1)
    first_order_until: float | None = Field(None, ge=0, le=1)


class FOMAMLConfig(_WithPrototypes):
    """First-order MAML, see :class:`quickstudy.learners.FOMAML`.

    Example::

        config = FOMAMLConfig(inner_steps=5, inner_lr=0.1)
        learner = build_learner(EncoderConfig(norm="support"), config, seed=0, n_way=5)
        recipe = override(get_recipe("omniglot-fomaml"), ["inner_steps=3"])
    """

    learner: ClassVar[Callable[..., GradientLearner]] = FOMAML
    kind: Literal["fomaml"] = "fomaml"


class MetaSGDConfig(_WithPrototypes):
    """Meta-SGD, see :class:`quickstudy.learners.MetaSGD`.

    Example::

        config = MetaSGDConfig(inner_steps=1, inner_lr=0.1)
        learner = build_learner(EncoderConfig(norm="support"), config, seed=0, n_way=5)
        recipe = override(get_recipe("omniglot-metasgd"), ["inner_lr=0.1"])
    """

    learner: ClassVar[Callable[..., GradientLearner]] = MetaSGD
    kind: Literal["metasgd"] = "metasgd"


class ANILConfig(_WithPrototypes):
    """ANIL, see :class:`quickstudy.learners.ANIL`: only the head is adapted.

    Example::

        config = ANILConfig(inner_steps=5, inner_lr=0.4)
        learner = build_learner(EncoderConfig(norm="support"), config, seed=0, n_way=5)
        recipe = override(get_recipe("omniglot-anil"), ["eval_steps=10"])
    """

    learner: ClassVar[Callable[..., GradientLearner]] = ANIL
    kind: Literal["anil"] = "anil"


class ProtoMAMLConfig(GradientConfig):
    """Proto-MAML, see :class:`quickstudy.learners.ProtoMAML`: its head starts from prototypes.

    Args:
        temperature: of the prototypes.
        rates: as in :class:`MAMLConfig`.
        multi_step: as in :class:`MAMLConfig`.
        first_order_until: as in :class:`MAMLConfig`.

    Example::

        config = ProtoMAMLConfig(inner_steps=1, inner_lr=0.05, temperature=4)
        learner = build_learner(EncoderConfig(norm="support"), config, seed=0)
        recipe = override(get_recipe("omniglot-protomaml"), ["temperature=2"])
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
        minibatches: number of minibatches that the examples of a training task are divided into.

    Example::

        config = ReptileConfig(inner_steps=5, optimiser="sgd", minibatches=3)
        learner = build_learner(EncoderConfig(norm="support"), config, seed=0, n_way=5)
        recipe = override(get_recipe("omniglot-reptile"), ["minibatches=2"])
    """

    learner: ClassVar[Callable[..., GradientLearner]] = Reptile
    kind: Literal["reptile"] = "reptile"
    optimiser: Literal["sgd", "adam"] | None = None
    minibatches: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        return self._refuse_memory()


class IMAMLConfig(_WithPrototypes):
    """MAML with implicit gradients, see :class:`quickstudy.learners.IMAML`.

    Args:
        strength: ``lambda`` in the penalty ``lambda / 2 |phi - start|^2`` of the inner loop.
        solver_steps: steps of conjugate gradients.

    Example::

        config = IMAMLConfig(inner_steps=16, strength=2.0, solver_steps=5)
        learner = build_learner(EncoderConfig(norm="support"), config, seed=0, n_way=5)
        recipe = override(get_recipe("omniglot-maml"), ["learner.kind=imaml", "strength=2"])
    """

    learner: ClassVar[Callable[..., GradientLearner]] = IMAML
    kind: Literal["imaml"] = "imaml"
    strength: float | None = Field(None, gt=0)
    solver_steps: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        return self._refuse_memory()

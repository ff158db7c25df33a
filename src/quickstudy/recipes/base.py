"""What all configurations share: frozen, validated, written into a run whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from quickstudy.learners.base import Family, Learner
from quickstudy.nets import Encoder

__all__ = ["FamilyMember", "Frozen", "LearnerConfig", "given"]


class Frozen(BaseModel):
    """A configuration: it cannot be changed, and refuses settings that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FamilyMember(Frozen):
    """One of several configurations that are written as documents with the same keys.

    A document holds the settings of the whole family. Those that a member does not have stand
    there with the family's default: so runs of one family can be compared key by key, and a run
    stays readable when a member of its family gets a setting of its own.
    """

    family_settings: ClassVar[Mapping[str, Any]] = {}
    """Every setting of the family, in the order of the documents, with its default."""

    @model_validator(mode="before")
    @classmethod
    def _drop_defaults_of_others(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        known, others = cls.model_fields, cls.family_settings
        return {
            name: v
            for name, v in value.items()
            if name in known or name not in others or v != others[name]
        }

    @model_serializer(mode="wrap")
    def _as_document(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**self.family_settings, **handler(self)}


class LearnerConfig(FamilyMember):
    """Which learner is trained, with its settings; ``None`` = the learner's own default.

    Inherit it to train a learner of your own from a recipe, see ``examples/own_learner.py``.

    Args:
        kind: names the learner in documents; a subclass gives it as a ``Literal`` with a default.

    Example::

        class MyConfig(LearnerConfig):
            kind: Literal["mine"] = "mine"

            def build(self, net: Encoder, *, n_way: int) -> Learner:
                return MyLearner(net)
    """

    family: ClassVar[Family] = "other"
    """Of the learner that is built."""

    adapts_encoder: ClassVar[bool] = False
    """Whether the network itself is adapted to each task, so that an input has no embedding of its
    own."""

    kind: str

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner with fresh weights.

        Args:
            net: the encoder of the recipe.
            n_way: largest number of classes in a task, for a head with a start for each class.
        """
        raise NotImplementedError(f"{type(self).__name__} has no build(net, n_way).")

    @property
    def cosine(self) -> bool:
        """Whether embeddings are compared by their direction alone."""
        return False

    @property
    def transductive(self) -> bool:
        """Whether queries are normalised together in training."""
        return False

    @classmethod
    def kind_name(cls) -> str:
        """Return the name of the kind."""
        return str(cls.model_fields["kind"].default)


def given(config: BaseModel, *names: str) -> dict[str, Any]:
    """Return those of these settings that are not left to the learner."""
    return {name: v for name in names if (v := getattr(config, name)) is not None}

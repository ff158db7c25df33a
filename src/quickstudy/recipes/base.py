"""What all configurations share: they are validated, cannot change, and are saved with a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from quickstudy.core import ConfigError
from quickstudy.core.settings import Settings
from quickstudy.learners.base import Family, Learner
from quickstudy.nets import Encoder

__all__ = ["FamilyMember", "Frozen", "LearnerConfig", "given"]


class Frozen(Settings):
    """A configuration: it cannot be changed, and refuses unknown settings."""


class FamilyMember(Frozen):
    """One of several configurations whose documents have the same keys: those of the whole family.

    A setting that a member does not have is written with the family's default. So runs of one
    family can be compared key by key, and old runs stay readable when a member of the family gets
    another setting.
    """

    family_settings: ClassVar[Mapping[str, Any]] = {}
    """Every setting of the family with its default, in the order in which documents have them."""

    @model_validator(mode="before")
    @classmethod
    def _drop_defaults_of_others(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        known, others = cls.model_fields, cls.family_settings
        # a value other than the default is kept, so that pydantic refuses it as unknown
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
        kind: name of the learner in documents; a subclass declares it as a ``Literal`` with a
            default.

    Example::

        class MyConfig(LearnerConfig):
            kind: Literal["mine"] = "mine"
            temperature: float = 4.0

            def build(self, net: Encoder, *, n_way: int) -> Learner:
                return PrototypicalNetwork(net, temperature=self.temperature)

        learner = build_learner(EncoderConfig(), MyConfig(temperature=2.0), seed=0)
    """

    family: ClassVar[Family] = "other"
    """The family of the learner that is built."""

    adapts_encoder: ClassVar[bool] = False
    """Whether each task adapts the encoder, so that an input has no embedding outside a task."""

    kind: str

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner with fresh weights.

        Args:
            net: the encoder of the recipe.
            n_way: largest number of classes in a task, for a head with initial weights for each
                class.
        """
        raise NotImplementedError(f"{type(self).__name__} has no build(net, n_way).")

    @property
    def cosine(self) -> bool:
        """Whether embeddings are compared by cosine, so that their lengths do not matter."""
        return False

    @property
    def format(self) -> int:
        """Of the runs of this learner. It rises when the same weights would give other answers, so
        that an older run is refused instead of being read as something it is not."""
        return 1

    @property
    def transductive(self) -> bool:
        """Whether training normalises the queries of a task by their own statistics."""
        return False

    @classmethod
    def kind_name(cls) -> str:
        """Return the name of the kind.

        Raises:
            ConfigError: if the class gives ``kind`` no default.
        """
        name = cls.model_fields["kind"].default
        if not isinstance(name, str):
            raise ConfigError(
                f"{cls.__name__} gives its kind no name. Write kind: Literal['mine'] = 'mine'."
            )
        return name


def given(config: BaseModel, *names: str) -> dict[str, Any]:
    """Return the named settings that are not ``None``, which would be the learner's default."""
    return {name: v for name in names if (v := getattr(config, name)) is not None}

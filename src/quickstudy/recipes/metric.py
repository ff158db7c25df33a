"""Metric learners in recipes.

quickstudy train omniglot-protonet        quickstudy train omniglot-matching
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from quickstudy.learners.base import Family, Learner
from quickstudy.learners.metric import MatchingNetwork, PrototypicalNetwork
from quickstudy.nets import Encoder
from quickstudy.recipes.base import LearnerConfig, given

__all__ = ["MatchingConfig", "MetricConfig", "ProtoNetConfig"]


class MetricConfig(LearnerConfig):
    """What the metric learners share.

    Args:
        temperature: of the softmax over distances; ``None`` = the learner's own.
        learn_temperature: whether meta-training adjusts it; ``None`` = the learner's own.
    """

    family: ClassVar[Family] = "metric"
    family_settings: ClassVar[dict[str, Any]] = {
        "kind": None,
        "distance": "euclidean",
        "temperature": None,
        "learn_temperature": None,
        "full_context": False,
    }

    temperature: float | None = Field(None, gt=0)
    learn_temperature: bool | None = None


class ProtoNetConfig(MetricConfig):
    """Prototypical Networks, see :class:`quickstudy.learners.PrototypicalNetwork`.

    Args:
        distance: ``"euclidean"`` or ``"cosine"``.
    """

    kind: Literal["protonet"] = "protonet"
    distance: Literal["euclidean", "cosine"] = "euclidean"

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner; any number of classes fits it."""
        del n_way
        chosen = given(self, "temperature", "learn_temperature")
        return PrototypicalNetwork(net, distance=self.distance, **chosen)

    @property
    def cosine(self) -> bool:
        """Whether embeddings are compared by their direction alone."""
        return self.distance == "cosine"


class MatchingConfig(MetricConfig):
    """Matching Networks, see :class:`quickstudy.learners.MatchingNetwork`.

    Args:
        full_context: full-context embeddings.
    """

    kind: Literal["matching"] = "matching"
    full_context: bool = False

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner; any number of classes fits it."""
        del n_way
        chosen = given(self, "temperature", "learn_temperature")
        return MatchingNetwork(net, full_context=self.full_context, **chosen)

    @property
    def cosine(self) -> bool:
        """Matching Networks compare embeddings by their direction alone."""
        return True

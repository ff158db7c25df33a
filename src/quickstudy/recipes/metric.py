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
        temperature: of the softmax over distances; ``None`` = the learner's own default.
        learn_temperature: whether meta-training learns it; ``None`` = the learner's own default.

    Example::

        from quickstudy.recipes import LEARNERS, MetricConfig
        kinds = [kind for kind, one in LEARNERS.items() if issubclass(one, MetricConfig)]
        config = LEARNERS["protonet"](temperature=4, learn_temperature=True)
        learner = build_learner(EncoderConfig(), config, seed=0)
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

    Example::

        config = ProtoNetConfig(distance="cosine", temperature=4)
        learner = build_learner(EncoderConfig(), config, seed=0)
        recipe = override(get_recipe("omniglot-protonet"), ["distance=cosine"])
    """

    kind: Literal["protonet"] = "protonet"
    distance: Literal["euclidean", "cosine"] = "euclidean"

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner, which takes any number of classes."""
        del n_way
        chosen = given(self, "temperature", "learn_temperature")
        return PrototypicalNetwork(net, distance=self.distance, **chosen)

    @property
    def cosine(self) -> bool:
        """Whether embeddings are compared by cosine, so that their lengths do not matter."""
        return self.distance == "cosine"


class MatchingConfig(MetricConfig):
    """Matching Networks, see :class:`quickstudy.learners.MatchingNetwork`.

    Args:
        full_context: whether an embedding depends on the whole support set (section 2.1.2 of
            Vinyals et al. 2016).

    Example::

        config = MatchingConfig(full_context=True)
        learner = build_learner(EncoderConfig(), config, seed=0)
        recipe = override(get_recipe("omniglot-matching"), ["full_context=true"])
    """

    kind: Literal["matching"] = "matching"
    full_context: bool = False

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner, which takes any number of classes."""
        del n_way
        chosen = given(self, "temperature", "learn_temperature")
        return MatchingNetwork(net, full_context=self.full_context, **chosen)

    @property
    def format(self) -> int:
        """2 with full context: in runs of format 1 a query read the support after each step of the
        cell, so that its first read was of nothing and its last was lost."""
        return 2 if self.full_context else 1

    @property
    def cosine(self) -> bool:
        """Matching Networks compare embeddings by cosine."""
        return True

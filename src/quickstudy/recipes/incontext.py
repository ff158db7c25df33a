"""In-context learners in recipes.

quickstudy train omniglot-protonet        quickstudy train omniglot-incontext
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from quickstudy.learners.base import Family, Learner
from quickstudy.learners.incontext import InContextTransformer
from quickstudy.nets import Encoder
from quickstudy.recipes.base import LearnerConfig, given

__all__ = ["InContextConfig"]


class InContextConfig(LearnerConfig):
    """A transformer that reads sets, see :class:`quickstudy.learners.InContextTransformer`.

    Args:
        width: numbers in a token; a multiple of ``heads``.
        layers: number of layers.
        heads: heads of attention.
        distance: ``"euclidean"`` or ``"cosine"``.
        temperature: of the nearest class mean that the transformer corrects; ``None`` = the
            learner's own default.
        dropout: share of numbers that training sets to zero.

    Example::

        config = InContextConfig(width=32, layers=1)
        learner = build_learner(EncoderConfig(), config, seed=0)
        recipe = override(get_recipe("omniglot-incontext"), ["layers=3", "dropout=0.1"])
    """

    family: ClassVar[Family] = "in-context"
    family_settings: ClassVar[dict[str, Any]] = {"kind": None}

    kind: Literal["incontext"] = "incontext"
    width: int = Field(64, ge=1, le=4096)
    layers: int = Field(2, ge=1, le=100)
    heads: int = Field(4, ge=1, le=256)
    distance: Literal["euclidean", "cosine"] = "euclidean"
    temperature: float | None = Field(None, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")
        return self

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner, which takes any number of classes."""
        del n_way
        return InContextTransformer(
            net,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            distance=self.distance,
            dropout=self.dropout,
            **given(self, "temperature"),
        )

    @property
    def cosine(self) -> bool:
        """Whether embeddings are compared by cosine, so that their lengths do not matter."""
        return self.distance == "cosine"

"""Memory learners in recipes.

quickstudy train omniglot-mann        quickstudy train omniglot-lstm        omniglot-snail
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from quickstudy.learners.base import Family, Learner
from quickstudy.learners.memory import MANN, SNAIL, LSTMLearner
from quickstudy.nets import Encoder
from quickstudy.recipes.base import LearnerConfig

__all__ = ["LSTMConfig", "MANNConfig", "MemoryConfig", "SNAILConfig"]

# far above every use, and far below what fills the memory of a machine before an error is seen
_WIDEST, _LONGEST = 10_000, 100_000


class MemoryConfig(LearnerConfig):
    """What the memory learners share: tasks have at most as many classes as they were trained with.

    Example::

        from quickstudy.recipes import LEARNERS, MemoryConfig
        kinds = [kind for kind, one in LEARNERS.items() if issubclass(one, MemoryConfig)]
        config = LEARNERS["lstm"](hidden_size=64)
        learner = build_learner(EncoderConfig(kind="pixels"), config, seed=0)
    """

    family: ClassVar[Family] = "memory"
    family_settings: ClassVar[dict[str, Any]] = {
        "kind": None,
        "protocol": "stream",
        "hidden_size": 200,
        "slots": 128,
        "width": 40,
        "heads": 4,
        "decay": 0.95,
        "key_strength": False,
        "length": 26,
        "filters": 128,
    }


class _RecurrentConfig(MemoryConfig):
    """What the recurrent learners share.

    Args:
        protocol: what training minimises: ``"stream"``, the loss of every answer in streams of
            ``train.k_shot`` examples a class, or ``"episode"``, that of the queries.
        hidden_size: cells of the LSTM.
    """

    protocol: Literal["stream", "episode"] = "stream"
    hidden_size: int = Field(200, ge=1, le=_WIDEST)


class LSTMConfig(_RecurrentConfig):
    """An LSTM that reads examples and late labels, see :class:`quickstudy.learners.LSTMLearner`.

    Example::

        config = LSTMConfig(hidden_size=64, protocol="episode")
        learner = build_learner(EncoderConfig(kind="pixels"), config, seed=0)
        recipe = override(get_recipe("omniglot-lstm"), ["hidden_size=64"])
    """

    kind: Literal["lstm"] = "lstm"

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner, which takes up to ``n_way`` classes."""
        return LSTMLearner(net, n_way=n_way, hidden_size=self.hidden_size, protocol=self.protocol)


class MANNConfig(_RecurrentConfig):
    """A memory-augmented neural network, see :class:`quickstudy.learners.MANN`.

    Args:
        slots: of the memory.
        width: of a slot.
        heads: reads and writes of a step; at most ``slots``.
        decay: of a slot's usage.
        key_strength: whether cosines are multiplied by a number that the controller emits.

    Example::

        config = MANNConfig(slots=32, heads=2)
        learner = build_learner(EncoderConfig(kind="pixels"), config, seed=0)
        recipe = override(get_recipe("omniglot-mann"), ["slots=64"])
    """

    kind: Literal["mann"] = "mann"
    slots: int = Field(128, ge=1, le=_WIDEST)
    width: int = Field(40, ge=1, le=_WIDEST)
    heads: int = Field(4, ge=1, le=_WIDEST)
    decay: float = Field(0.95, ge=0, lt=1)
    key_strength: bool = False

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner, which takes up to ``n_way`` classes."""
        return MANN(
            net,
            n_way=n_way,
            hidden_size=self.hidden_size,
            slots=self.slots,
            width=self.width,
            heads=self.heads,
            decay=self.decay,
            key_strength=self.key_strength,
            protocol=self.protocol,
        )


class SNAILConfig(MemoryConfig):
    """SNAIL, see :class:`quickstudy.learners.SNAIL`.

    Args:
        length: of the sequences that its convolutions see as a whole: the support and a query.
        filters: of each convolution.

    Example::

        config = SNAILConfig(length=6, filters=32)
        learner = build_learner(EncoderConfig(), config, seed=0)
        recipe = override(get_recipe("omniglot-snail"), ["length=101", "train.n_way=20"])
    """

    kind: Literal["snail"] = "snail"
    length: int = Field(26, ge=1, le=_LONGEST)
    filters: int = Field(128, ge=1, le=_WIDEST)

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        """Return the learner, which takes up to ``n_way`` classes."""
        return SNAIL(net, n_way=n_way, length=self.length, filters=self.filters)

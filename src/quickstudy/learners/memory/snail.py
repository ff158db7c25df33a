"""SNAIL (Mishra et al. 2018): temporal convolutions and causal attention over the support."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Episode, Examples, TaskError, TaskState, check_state
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size
from quickstudy.learners.base import EmbeddingLearner, Family, Learner, Roles
from quickstudy.learners.classes import class_weights
from quickstudy.learners.memory.sequence import check_ways, refuse_roles
from quickstudy.learners.streams import in_order
from quickstudy.nets import CausalAttention, Encoder, TemporalConvolution, as_encoder

__all__ = ["SNAIL", "SNAILHead"]

# keys and values of the three attention layers, for the paper's 128 filters
_ATTENTION = ((64, 32), (256, 128), (512, 256))


@checked
class SNAILHead(Learner):
    """Causal layers over the support, each example with its label, and a query without one.

    Attention, temporal convolution, attention, temporal convolution, attention (Mishra et al. 2018,
    appendix), and a linear map of the last element to the logits. A query is the last element
    of a sequence of its own, whose other elements are the support; all queries of a task share the
    features of the support, which are the state.

    *Differences from the paper*: an episode has several queries, each of which sees the support
    alone, instead of one. Keys have no bias, which would change no weight.

    Args:
        features: width ``D`` of an embedding.
        n_way: largest number of classes, the width of a one-hot label.
        length: of the sequences that the convolutions see as a whole: support and query, ``N * K +
            1``. Longer ones are taken too.
        filters: of each convolution; the widths of the attention grow and shrink with it.

    Raises:
        ConfigError: if a number is out of range.

    Example::

        head = SNAILHead(64, n_way=5, length=11)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "memory"
    order_sensitive = True
    label_sensitive = True

    def __init__(self, features: int, *, n_way: int, length: int = 26, filters: int = 128) -> None:
        super().__init__()
        check_size(features=features, n_way=n_way, length=length, filters=filters)
        self.features, self.n_way = features, n_way
        layers: list[CausalAttention | TemporalConvolution] = []
        width = features + n_way
        for at, (keys, values) in enumerate(_ATTENTION):
            if at:
                layers.append(TemporalConvolution(width, length=length, filters=filters))
                width = layers[-1].out_features
            keys, values = (max(1, n * filters // 128) for n in (keys, values))
            layers.append(CausalAttention(width, key_width=keys, value_width=values))
            width = layers[-1].out_features
        self.layers = nn.ModuleList(layers)
        self.out = nn.Linear(width, n_way)

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the support's features of all layers, ``features`` ``[T, S, F]``, its ``length``
        ``[T]`` and ``present`` bool ``[T, C]``."""
        support.check_labels(n_way)
        check_ways(self.n_way, n_way, type(self).__name__)
        if support.y.is_floating_point():
            raise TaskError("SNAIL learns classes; the labels are real numbers. Use y.long().")
        self._check_width(support.x)
        ordered, _ = in_order(support)
        labels = F.one_hot(ordered.y, self.n_way).to(ordered.x.dtype)
        x = torch.cat([ordered.x, labels], 2)  # [T, S, D + n_way]
        for layer in self.layers:
            x = layer(x)
        _, present = class_weights(ordered.y, ordered.mask, n_way)
        return {"features": x, "length": ordered.mask.sum(1), "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logits ``[T, Q, C]`` of queries, each the last element of its sequence."""
        self._check_width(x)
        shapes = {"features": (None, self.out.in_features), "length": (), "present": (None,)}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        history, length = state["features"], state["length"]
        x = F.pad(x, (0, self.n_way))  # a query has no label
        layers: Any = self.layers
        for layer in layers:
            # a convolution looks at its own features of the support, attention at its inputs
            seen = layer.out_features if isinstance(layer, TemporalConvolution) else x.shape[2]
            x = layer.after(history[..., :seen], length, x)
        present = state["present"]
        logits = self.out(x)[..., : present.shape[1]]
        return torch.as_tensor(logits.masked_fill(~present[:, None], -torch.inf))

    def training_loss(
        self, episode: Episode, *, progress: float, roles: Roles | None = None
    ) -> Tensor:
        """Return the mean loss of each task's queries ``[T]``.

        Raises:
            ConfigError: if support and query are to be exchanged.
        """
        refuse_roles(roles, type(self).__name__)
        return super().training_loss(episode, progress=progress)

    def _check_width(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[2] != self.features:
            raise ConfigError(
                f"SNAIL's layers were made for embeddings of features={self.features} numbers, "
                f"[T, N, {self.features}]; got {list(x.shape)}."
            )


@checked
class SNAIL(EmbeddingLearner):
    """An encoder with causal layers over the support.

    Mishra, Rohaninejad, Chen and Abbeel (2018), "A Simple Neural Attentive Meta-Learner". The
    paper's encoder for Omniglot is Conv-4 and a linear layer to 64 numbers; here the attention's
    own maps follow Conv-4 directly.

    Args:
        encoder: inputs to embeddings; another module becomes a
            :class:`~quickstudy.nets.ModuleEncoder`.
        n_way: largest number of classes of a task.
        length: of the sequences that the convolutions see as a whole, support and query.
        filters: of each convolution.

    Raises:
        ConfigError: if a number is out of range.

    Example::

        learner = SNAIL(Conv4(), n_way=5, length=6)
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    def __init__(
        self, encoder: Encoder | nn.Module, *, n_way: int, length: int = 26, filters: int = 128
    ) -> None:
        encoder = as_encoder(encoder)
        head = SNAILHead(encoder.out_features, n_way=n_way, length=length, filters=filters)
        super().__init__(encoder, head)

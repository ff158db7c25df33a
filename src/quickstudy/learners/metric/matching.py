"""Matching Networks (Vinyals et al. 2016), with and without full-context embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Examples, TaskState, check_state
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_at_least, check_size
from quickstudy.learners.base import EmbeddingLearner, Family, Learner
from quickstudy.learners.classes import class_weights, without_padding
from quickstudy.learners.metric.prototypical import set_temperature
from quickstudy.nets import Encoder, as_encoder

__all__ = ["FullContext", "MatchingHead", "MatchingNetwork"]


@checked
class FullContext(nn.Module):
    """Full-context embeddings: each embedding depends on the whole support set.

    Vinyals et al. (2016), sections 2.1.1-2.1.2 and appendix A: a bidirectional LSTM over the
    support, and an LSTM with attention over the support for each query.

    Args:
        features: width ``D`` of an embedding.
        steps: how often each query reads the support (``K`` in the paper), at least 0.

    Raises:
        ConfigError: if a number is out of range.

    Example::

        context = FullContext(64)
        mask = torch.ones(1, 10, dtype=torch.bool)
        support = context.support(torch.rand(1, 10, 64), mask)  # [1, 10, 64]
        queries = context.query(torch.rand(1, 75, 64), support, mask)  # [1, 75, 64]
    """

    def __init__(self, features: int, *, steps: int = 3) -> None:
        super().__init__()
        check_size(features=features)
        check_at_least(0, steps=steps)
        self.steps = steps
        self.forward_cell = nn.LSTMCell(features, features)
        self.backward_cell = nn.LSTMCell(features, features)
        # input: the query; hidden state: the last output, then the last readout (appendix A.1)
        self.read_cell = nn.LSTMCell(features, 2 * features)

    def support(self, z: Tensor, mask: Tensor) -> Tensor:
        """Return the support after an LSTM in both directions, ``[T, S, D] -> [T, S, D]``; padding
        is skipped."""
        steps = range(z.shape[1])
        z = z.masked_fill(~mask[..., None], 0)
        forward = self._run_cell(self.forward_cell, z, mask, list(steps))
        backward = self._run_cell(self.backward_cell, z, mask, list(reversed(steps)))
        return z + forward + backward

    @staticmethod
    def _run_cell(cell: nn.LSTMCell, z: Tensor, mask: Tensor, order: list[int]) -> Tensor:
        """Return the outputs ``[T, S, D]`` of a cell that goes over the support in an order."""
        h = c = z.new_zeros(z.shape[0], z.shape[2])
        outputs: dict[int, Tensor] = {}
        for i in order:
            new_h, new_c = cell(z[:, i], (h, c))
            valid = mask[:, i, None]  # padding leaves the state as it was
            h, c = torch.where(valid, new_h, h), torch.where(valid, new_c, c)
            outputs[i] = h
        return torch.stack([outputs[i] for i in range(len(order))], 1)

    def query(self, x: Tensor, support: Tensor, mask: Tensor) -> Tensor:
        """Return the queries after reading the support ``steps`` times, ``[T, Q, D]``.

        Every step reads first and then runs the cell on what was read, so that the result depends
        on each of the reads (appendix A.1, equations 3 to 6).

        Args:
            x: queries ``[T, Q, D]``.
            support: what :meth:`support` returned ``[T, S, D]``.
            mask: bool ``[T, S]``, ``False`` = padding.
        """
        width = x.shape[2]
        support = support.masked_fill(~mask[..., None], 0)  # a weight of 0 times NaN is NaN
        # h: output, r: readout of the support, c: cell state. Before the first cell h is the query
        # itself, as in equation 4 with an output of zero
        h, c = x, x.new_zeros(*x.shape[:2], 2 * width)
        for _ in range(self.steps):
            scores = h @ support.transpose(1, 2)  # [T, Q, S]
            attention = scores.masked_fill(~mask[:, None], -torch.inf).softmax(2)  # equation 6
            r = attention @ support  # equation 5
            state = (torch.cat([h, r], 2).flatten(0, 1), c.flatten(0, 1))
            output, c = (v.view_as(c) for v in self.read_cell(x.flatten(0, 1), state))  # equation 3
            h = output[..., :width] + x  # equation 4
        return h


@checked
class MatchingHead(Learner):
    """A query's label is the attention-weighted vote of the support examples.

    ``P(y|x, S) = sum_i a(x, x_i) y_i`` with ``a`` the softmax of cosines (equations 1 and 2). The
    logits are the logarithms of these probabilities.

    Args:
        features: width ``D`` of an embedding; needed for ``full_context``.
        temperature: cosines are divided by it.
        learn_temperature: whether meta-training adjusts the temperature.
        full_context: embed support and queries with :class:`FullContext`. Then the order of the
            support matters.

    *Difference from the paper*: the paper's softmax has temperature 1, which keeps probabilities of
    20-way tasks below 0.3; here it starts at 0.1 and is learned. ``temperature=1,
    learn_temperature=False`` is the paper's.

    Raises:
        ConfigError: if the temperature is not positive.

    Example::

        head = MatchingHead(64)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "metric"

    log_scale: Tensor

    def __init__(
        self,
        features: int,
        *,
        temperature: float = 0.1,
        learn_temperature: bool = True,
        full_context: bool = False,
    ) -> None:
        super().__init__()
        set_temperature(self, temperature, learn=learn_temperature)
        self.order_sensitive = full_context
        self.context = FullContext(features) if full_context else None

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the support itself: ``support`` ``[T, S, D]``, ``members`` bool ``[T, S, C]``."""
        support.check_labels(n_way)
        support = without_padding(support)
        z = support.x
        if self.context is not None:
            width = self.context.forward_cell.input_size
            if z.shape[2] != width:
                raise ConfigError(
                    f"the head was made for embeddings of features={width} numbers; got "
                    f"{z.shape[2]}. Give features={z.shape[2]}."
                )
            z = self.context.support(z, support.mask)
        members, present = class_weights(support.y, support.mask, n_way)
        return {"support": z, "members": members, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return log-probabilities ``[T, Q, C]``."""
        shapes = {"support": (None, x.shape[-1]), "members": (None, None), "present": (None,)}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        support, members = state["support"], state["members"]
        valid = members.any(2)  # [T, S]
        if self.context is not None:
            x = self.context.query(x, support, valid)
        cosine = F.normalize(x, dim=2) @ F.normalize(support, dim=2).transpose(1, 2)  # [T, Q, S]
        scores = cosine * self.log_scale.exp().to(cosine.dtype)
        scores = scores.masked_fill(~valid[:, None], -torch.inf)
        # log sum exp over the members of each class; the largest exponent is taken out and the sums
        # are kept above zero, so that logits and gradients stay finite
        peak = scores.detach().amax(2, keepdim=True)
        votes = (scores - peak).exp() @ members.to(
            scores.dtype
        )  # [T, Q, S] @ [T, S, C] -> [T, Q, C]
        tiny = torch.finfo(votes.dtype).tiny
        logits = votes.clamp(min=tiny).log() - votes.sum(2, keepdim=True).log()
        return logits.masked_fill(~state["present"][:, None], -torch.inf)


@checked
class MatchingNetwork(EmbeddingLearner):
    """An encoder with a matching head.

    Vinyals et al. (2016), "Matching Networks for One Shot Learning", section 2.

    Args:
        encoder: inputs to embeddings; another module becomes a
            :class:`~quickstudy.nets.ModuleEncoder`.
        temperature: see :class:`MatchingHead`.
        learn_temperature: whether meta-training adjusts the temperature.
        full_context: see :class:`MatchingHead`.

    Example::

        learner = MatchingNetwork(Conv4(), full_context=True)
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module,
        *,
        temperature: float = 0.1,
        learn_temperature: bool = True,
        full_context: bool = False,
    ) -> None:
        encoder = as_encoder(encoder)
        head = MatchingHead(
            # without full context no layer depends on the width, so it need not be known
            encoder.out_features if full_context else 1,
            temperature=temperature,
            learn_temperature=learn_temperature,
            full_context=full_context,
        )
        super().__init__(encoder, head)

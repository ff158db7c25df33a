"""Causal layers on sequences: dilated convolutions over time, and attention (Mishra et al. 2018).

Each layer returns its input with new features appended, so the features of any layer are the first
columns of those of the last one. A layer is computed for a whole sequence (:meth:`forward`), or for
further elements that each follow the same sequence (:meth:`after`); both give the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size

__all__ = ["CausalAttention", "DenseBlock", "TemporalConvolution"]


@checked
class DenseBlock(nn.Module):
    """A gated causal convolution of two steps, Mishra et al. (2018), section 3.

    ``tanh(a) * sigmoid(b)`` of the element itself and the one ``dilation`` steps before it,
    appended to the input. Before the beginning of the sequence there are zeros.

    Args:
        features: width ``D`` of an element.
        dilation: distance of the two steps.
        filters: width of what is appended.

    Raises:
        ConfigError: if a number is out of range.

    Example::

        from quickstudy.nets import DenseBlock
        block = DenseBlock(8, dilation=2, filters=16)
        history = torch.rand(1, 6, 8)
        block(history)  # [1, 6, 24]
        length = torch.tensor([6])
        block.after(history, length, torch.rand(1, 3, 8))  # [1, 3, 24]
    """

    def __init__(self, features: int, *, dilation: int, filters: int) -> None:
        super().__init__()
        check_size(features=features, dilation=dilation, filters=filters)
        self.features, self.dilation = features, dilation
        self.out_features = features + filters
        self.gates = nn.Linear(2 * features, 2 * filters)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequence ``[T, S, D]`` with new features ``[T, S, D + filters]``."""
        before = F.pad(x, (0, 0, self.dilation, 0))[:, : x.shape[1]]
        return self._joined(before, x)

    def after(self, history: Tensor, length: Tensor, x: Tensor) -> Tensor:
        """Return elements with new features, each as if it followed the sequence.

        Args:
            history: the sequence as this layer got it ``[T, S, D]``.
            length: elements of it that count ``[T]``, each task's first ones.
            x: elements ``[T, Q, D]``; none sees another.
        """
        place = length - self.dilation  # of the element that this many steps before x
        task = torch.arange(len(length), device=length.device)
        before = history[task, place.clamp(min=0)] * (place >= 0)[:, None]  # [T, D]
        return self._joined(before[:, None].expand_as(x), x)

    def _joined(self, before: Tensor, x: Tensor) -> Tensor:
        values, gates = self.gates(torch.cat([before, x], 2)).chunk(2, 2)
        return torch.cat([x, values.tanh() * gates.sigmoid()], 2)


@checked
class TemporalConvolution(nn.Module):
    """Dense blocks of dilation 1, 2, 4, ... until an element sees a whole sequence.

    The "TC block" of Mishra et al. (2018), section 3. Longer sequences are taken too; an element
    then sees the last ``2 ** blocks`` of them.

    Args:
        features: width ``D`` of an element.
        length: of the sequences that are to be seen as a whole.
        filters: width of what each block appends.

    Raises:
        ConfigError: if a number is out of range.

    Example::

        from quickstudy.nets import TemporalConvolution
        layer = TemporalConvolution(8, length=6, filters=16)
        history = torch.rand(1, 6, 8)
        layer(history)  # [1, 6, 56]
        layer.after(layer(history), torch.tensor([6]), torch.rand(1, 3, 8))  # [1, 3, 56]
    """

    def __init__(self, features: int, *, length: int, filters: int) -> None:
        super().__init__()
        check_size(features=features, length=length, filters=filters)
        count = max(1, math.ceil(math.log2(length)))
        self.blocks = nn.ModuleList(
            DenseBlock(features + i * filters, dilation=2**i, filters=filters) for i in range(count)
        )
        self.out_features = features + count * filters

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequence ``[T, S, D]`` with the features of all blocks."""
        for block in self.blocks:
            x = block(x)
        return x

    def after(self, history: Tensor, length: Tensor, x: Tensor) -> Tensor:
        """Return elements with new features, each as if it followed the sequence.

        Args:
            history: the sequence with this layer's own features ``[T, S, out_features]``, or more.
            length: elements of it that count ``[T]``.
            x: elements ``[T, Q, D]``.
        """
        blocks: Any = self.blocks
        for block in blocks:
            # what a block got are the first columns of what the last one returned
            x = block.after(history[..., : x.shape[2]], length, x)
        return x


@checked
class CausalAttention(nn.Module):
    """Attention of an element to itself and those before it, Mishra et al. (2018), section 3.

    What is read is appended to the input.

    Args:
        features: width ``D`` of an element.
        key_width: of keys and queries.
        value_width: of what is read.

    Raises:
        ConfigError: if a number is out of range.

    Example::

        from quickstudy.nets import CausalAttention
        layer = CausalAttention(8, key_width=16, value_width=4)
        history = torch.rand(1, 6, 8)
        layer(history)  # [1, 6, 12]
        layer.after(history, torch.tensor([6]), torch.rand(1, 3, 8))  # [1, 3, 12]
    """

    def __init__(self, features: int, *, key_width: int, value_width: int) -> None:
        super().__init__()
        check_size(features=features, key_width=key_width, value_width=value_width)
        self.out_features = features + value_width
        # a bias of the keys would move all scores of an element alike, which changes no weight
        self.keys = nn.Linear(features, key_width, bias=False)
        self.queries = nn.Linear(features, key_width)
        self.values = nn.Linear(features, value_width)
        self._scale = key_width**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequence ``[T, S, D]`` with what was read ``[T, S, D + value_width]``."""
        scores = self.queries(x) @ self.keys(x).transpose(1, 2) * self._scale  # [T, S, S]
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(2)
        return torch.cat([x, weights @ self.values(x)], 2)

    def after(self, history: Tensor, length: Tensor, x: Tensor) -> Tensor:
        """Return elements with what they read, each as if it followed the sequence.

        Args:
            history: the sequence as this layer got it ``[T, S, D]``.
            length: elements of it that count ``[T]``.
            x: elements ``[T, Q, D]``; none sees another.
        """
        queries = self.queries(x)
        own = (queries * self.keys(x)).sum(2, keepdim=True)  # [T, Q, 1]
        scores = torch.cat([queries @ self.keys(history).transpose(1, 2), own], 2) * self._scale
        place = torch.arange(history.shape[1], device=x.device)
        void = F.pad(place >= length[:, None], (0, 1))[:, None]  # [T, 1, S + 1]
        weights = scores.masked_fill(void, -torch.inf).softmax(2)  # [T, Q, S + 1]
        read = weights[..., :-1] @ self.values(history) + weights[..., -1:] * self.values(x)
        return torch.cat([x, read], 2)

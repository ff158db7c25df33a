"""Random draws for batches of tables: counter-based, so a table depends on its own key alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Draws", "widths"]


def _signed(word: int) -> int:
    """Return 64 bits as PyTorch's signed integer."""
    return word - 2**64 if word >= 2**63 else word


# of SplitMix64, as in quickstudy.core.seeding
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)
# an index of an axis lies below this; counters are index_1 * _AXIS + index_2, whatever the batch
_AXIS = 1 << 14


def _shifted(z: Tensor, by: int) -> Tensor:
    """Return the logical shift to the right: PyTorch's own keeps the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _mix(z: Tensor) -> Tensor:
    """Return the finaliser of SplitMix64; products of int64 wrap, as they should."""
    z = (z ^ _shifted(z, 30)) * _MIX_1
    z = (z ^ _shifted(z, 27)) * _MIX_2
    return z ^ _shifted(z, 31)


@dataclass(frozen=True, slots=True)
class Draws:
    """Random numbers of ``T`` tables.

    A number depends on the table's key, the name of the draw and its index along each axis: not on
    how long the axes are, nor on the other tables. The hash is that of
    :func:`quickstudy.core.keys`, in PyTorch, so that it runs where the tables are made.

    Args:
        key: int64 ``[T]``, one for each table.

    Example::

        from quickstudy.tasks.synthetic.draws import Draws
        draws = Draws(torch.tensor([1, 2]))
        draws.uniform(0, 5, 3)  # [2, 5, 3]
        alone = Draws(torch.tensor([2]))
        assert draws.uniform(0, 5)[1].equal(alone.uniform(0, 9)[0, :5])
    """

    key: Tensor

    def bits(self, name: int, *shape: int) -> Tensor:
        """Return random int64 words ``[T, *shape]``.

        Args:
            name: a number for each independent decision.
            *shape: at most three axes, each shorter than 16,384.
        """
        counter = torch.zeros((), dtype=torch.int64, device=self.key.device)
        for axis, length in enumerate(shape):
            index = torch.arange(length, device=self.key.device)
            counter = counter[..., None] * _AXIS + index.view(*(1,) * axis, length)
        named = _mix((self.key ^ _mix(torch.full_like(self.key, name + 1) * _GOLDEN)) + _GOLDEN)
        return _mix((named.view(-1, *(1,) * len(shape)) ^ _mix(counter * _GOLDEN)) + _GOLDEN)

    def uniform(self, name: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return uniform numbers in [low, high), float32 ``[T, *shape]``."""
        # 24 bits: as many as a float32 represents exactly
        u = _shifted(self.bits(name, *shape), 40).to(torch.float32) * 2.0**-24
        return u if (low, high) == (0.0, 1.0) else low + (high - low) * u

    def normal(self, name: int, *shape: int) -> Tensor:
        """Return standard normal numbers (Box and Muller 1958), float32 ``[T, *shape]``."""
        word = self.bits(name, *shape)
        # + 1: the logarithm of 0 is not finite
        first = (_shifted(word, 40).to(torch.float32) + 1.0) * 2.0**-24
        second = (word & 0xFFFFFF).to(torch.float32) * 2.0**-24
        return torch.sqrt(-2.0 * torch.log(first)) * torch.cos(2.0 * math.pi * second)

    def whole(self, name: int, *shape: int, below: Tensor | int) -> Tensor:
        """Return whole numbers in [0, below), int64 ``[T, *shape]``; ``below`` is one number, or
        one for each table ``[T]``."""
        if isinstance(below, Tensor):
            below = below.view(-1, *(1,) * len(shape))
        return _shifted(self.bits(name, *shape), 33) % below

    def chance(self, name: int, *shape: int, of: float) -> Tensor:
        """Return ``True`` with the probability ``of``, bool ``[T, *shape]``."""
        return self.uniform(name, *shape) < of

    def order(self, name: int, count: Tensor) -> Tensor:
        """Return the first ``count`` of some things in random order, the others behind them.

        Args:
            name: a number for the decision.
            count: of each table's things, int64 ``[T]``.

        Returns:
            Numbers of the things, int64 ``[T, most]``.
        """
        most = int(count.max())
        there = torch.arange(most, device=count.device) < count[:, None]
        key = self.uniform(name, most).masked_fill(~there, 2.0)
        return key.argsort(dim=1, stable=True)

    def of(self, tables: Tensor) -> Draws:
        """Return the draws of some of the tables."""
        return Draws(self.key[tables])


def widths(draws: Draws, columns: int | Tensor) -> Tensor:
    """Return the number of columns of each table, int64 ``[T]``."""
    return columns if isinstance(columns, Tensor) else torch.full_like(draws.key, columns)

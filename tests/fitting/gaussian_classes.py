"""Synthetic classes whose truth is known, and tasks of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core import generator
from quickstudy.fitting.draws import AuxiliaryEpisodes

DIM = 12


def world(
    n_classes: int, rows: int, *, seed: int, apart: float = 1.0, at: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Gaussian classes around an offset, with more noise in the first three directions."""
    g = generator(seed)
    means = apart * torch.randn(n_classes, DIM, generator=g) + at
    noise = torch.ones(DIM)
    noise[:3] = 3
    y = torch.arange(n_classes).repeat_interleave(rows)
    z = means[y] + 1.2 * noise * torch.randn(len(y), DIM, generator=g)
    return z, y


@dataclass(frozen=True)
class Task:
    """Support, queries and strangers of one task of five classes."""

    z: Tensor
    y: Tensor
    query: Tensor
    answer: Tensor
    strangers: Tensor


def task_of(tasks: AuxiliaryEpisodes, t: int, shots: int = 5) -> Task:
    """Return a task with the first examples of each class, of five."""
    rows = torch.arange(25).view(5, 5)[:, :shots].flatten()
    support, query = tasks.episode.support, tasks.episode.query
    return Task(support.x[t, rows], support.y[t, rows], query.x[t], query.y[t], tasks.strangers[t])

"""What a gradient learner makes of a support set and of a network before the inner loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quickstudy.core import Episode, Examples
from quickstudy.nets import Encoder, NormContext

__all__ = [
    "Features",
    "Task",
    "blank_padding",
    "is_known",
    "leaves_inference_mode",
    "plain_episode",
    "plain_examples",
    "plain_tensors",
]


def blank_padding(examples: Examples) -> Examples:
    """Return the examples with zeros for padding, which may hold anything, NaN included."""
    if bool(examples.mask.all()):
        return examples
    wide = examples.mask.view(*examples.mask.shape, *(1,) * (examples.x.ndim - 2))
    return Examples(
        examples.x.masked_fill(~wide, 0), examples.y.masked_fill(~examples.mask, 0), examples.mask
    )


def plain_examples(examples: Examples) -> Examples:
    """Return examples that gradients can be taken with."""
    return Examples(*(plain_tensors(v) for v in (examples.x, examples.y, examples.mask)))


def plain_episode(episode: Episode) -> Episode:
    """Return an episode that gradients can be taken with."""
    sides = plain_examples(episode.support), plain_examples(episode.query)
    return Episode(*sides, episode.n_way, episode.info)


def is_known(net: nn.Module) -> bool:
    """Return whether a network is made of layers of PyTorch and encoders of ours alone."""
    return all(type(m).__module__.split(".")[0] in ("torch", "quickstudy") for m in net.modules())


@dataclass(frozen=True, slots=True)
class Task:
    """The support of ``T`` tasks, checked and prepared for the inner loop.

    Args:
        support: examples ``[T, S, ...]``, zeros for padding.
        n_way: number of classes ``C``.
        mask: the support's mask, or ``None`` if there is no padding.
        present: bool ``[T, C]``: which classes have support; ``None`` for regression.
    """

    support: Examples
    n_way: int
    mask: Tensor | None
    present: Tensor | None


class Features(nn.Module):
    """An encoder as a plain module, called with the examples of one task ``[N, ...]``."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings ``[N, D]``."""
        self.encoder.check(x)
        return self.encoder.features(x, NormContext(None, 1))


def plain_tensors(value: Tensor) -> Tensor:
    """Return a tensor that gradients can be taken with: a copy of one made in inference mode."""
    return value.clone() if value.is_inference() else value


@contextmanager
def leaves_inference_mode() -> Iterator[None]:
    """Leave ``torch.inference_mode`` for a while: an inner loop needs gradients. No graph is built
    around the body, as under ``torch.no_grad``."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield

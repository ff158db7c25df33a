"""Streams: examples one after the other, each label told one step late (Santoro et al. 2016).

At step ``t`` a learner sees the example ``x_t`` and the label of the example before it, and names
the class of ``x_t``. So the first example of a class can only be guessed, and how well the later
ones are named tells how fast the learner binds an input to a label.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from quickstudy.core import Examples, TaskError
from quickstudy.core.arguments import checked
from quickstudy.learners.base import EmbeddingLearner, Learner, mean_loss

__all__ = [
    "StreamLearner",
    "StreamProtocol",
    "in_order",
    "learned_on_streams",
    "stream_logits",
    "stream_loss",
]

StreamProtocol = Literal["stream", "episode"]
"""What meta-training minimises: the loss of every answer in a stream, or of the queries of an
N-way K-shot episode."""


class StreamLearner(Learner):
    """A learner that answers a whole stream in one pass.

    Any other learner answers a stream too, see :func:`stream_logits`: it learns the examples before
    each step anew.

    Example::

        head = LSTMHead(8, n_way=3)
        stream = Examples.full(torch.rand(2, 30, 8), torch.arange(3).repeat(2, 10))
        logits = head.stream_logits(stream, n_way=3)  # [2, 30, 3]
    """

    protocol: StreamProtocol = "stream"
    """What meta-training minimises."""

    @abstractmethod
    def stream_logits(self, stream: Examples, *, n_way: int) -> Tensor:
        """Return the answers of ``T`` streams, each given before its label is told.

        Args:
            stream: examples in their order ``[T, S, ...]``; padding may stand anywhere.
            n_way: number of classes ``C``.

        Returns:
            Logits ``[T, S, C]``; those of padding mean nothing.

        Raises:
            TaskError: if a label lies outside ``[0, n_way)``, or the learner was made for fewer
                classes.
        """


@checked
def stream_logits(learner: Learner, stream: Examples, *, n_way: int) -> Tensor:
    """Return what any learner answers in ``T`` streams, each answer before its label is told.

    A :class:`StreamLearner` answers in one pass. Every other one learns the examples before each
    step anew, as ``adapt`` and ``predict`` have it; before the first label all classes are alike.

    Args:
        learner: any learner of classes; queries one at a time, so it need not be inductive.
        stream: examples in their order ``[T, S, ...]``; padding may stand anywhere.
        n_way: number of classes ``C``.

    Returns:
        Logits ``[T, S, C]``; those of padding mean nothing.

    Raises:
        TaskError: if labels are real numbers, or one lies outside ``[0, n_way)``.

    Example::

        learner = PrototypicalNetwork(MLP((8,), (16,)))
        stream = Examples.full(torch.rand(2, 30, 8), torch.arange(3).repeat(2, 10))
        logits = stream_logits(learner, stream, n_way=3)  # [2, 30, 3]
    """
    stream.check_labels(n_way)
    if stream.y.is_floating_point():
        raise TaskError("a stream has classes; its labels are real numbers. Use y.long().")
    answers, given = learner, stream
    if isinstance(learner, EmbeddingLearner) and learner.embeds_once:
        z, _ = learner.encoder.encode(stream.x, stream.mask)  # [T, S, ...] -> [T, S, D]
        answers, given = learner.head, Examples(z, stream.y, stream.mask)
    if isinstance(answers, StreamLearner):
        return answers.stream_logits(given, n_way=n_way)
    return _prefix_by_prefix(answers, given, n_way)


def _prefix_by_prefix(learner: Learner, stream: Examples, n_way: int) -> Tensor:
    """Return the answers of a learner that learns the examples before each step anew."""
    ordered, places = in_order(stream)
    # of the first example nothing is known
    answers = [ordered.x.new_zeros(len(ordered.y), n_way)]
    for t in range(1, ordered.y.shape[1]):
        before = Examples(ordered.x[:, :t], ordered.y[:, :t], ordered.mask[:, :t])
        state = learner.adapt(before, n_way=n_way)
        answers.append(learner.predict(state, ordered.x[:, t : t + 1])[:, 0])
    return back_in_place(torch.stack(answers, 1), places)


@checked
def stream_loss(learner: Learner, stream: Examples, *, n_way: int) -> Tensor:
    """Return the mean cross-entropy of the answers in each stream ``[T]``, in nats.

    That is the loss of Santoro et al. (2016), section 4.1: the mean over all steps, the first
    example of each class included. It needs a learner that gives classes without an example a
    probability above zero, as a :class:`StreamLearner` does; with others it is infinite.

    Args:
        learner: the learner.
        stream: examples in their order ``[T, S, ...]``.
        n_way: number of classes.

    Example::

        learner = LSTMLearner(MLP((8,), (16,)), n_way=3)
        stream = Examples.full(torch.rand(2, 30, 8), torch.arange(3).repeat(2, 10))
        stream_loss(learner, stream, n_way=3)  # [2]
    """
    return mean_loss(stream_logits(learner, stream, n_way=n_way), stream)


@checked
def learned_on_streams(learner: Learner) -> bool:
    """Return whether meta-training of a learner minimises the loss of streams."""
    parts = (learner, getattr(learner, "head", None))
    return any(isinstance(one, StreamLearner) and one.protocol == "stream" for one in parts)


def in_order(examples: Examples) -> tuple[Examples, Tensor]:
    """Return the examples with all padding moved to the end, and where each one stood.

    A sequence is then valid up to its length. Padding becomes zero, whatever it held.

    Args:
        examples: ``[T, N, ...]``.

    Returns:
        The examples in their order without gaps, and the old place of each column ``[T, N]``.
    """
    mask = examples.mask
    wide = mask.view(*mask.shape, *(1,) * (examples.x.ndim - 2))
    x, y = examples.x.masked_fill(~wide, 0), examples.y.masked_fill(~mask, 0)
    places = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    if bool(mask.all()):
        return Examples(x, y, mask), places
    places = (~mask).to(torch.int8).argsort(dim=1, stable=True)
    task = torch.arange(len(mask), device=mask.device)[:, None]
    return Examples(x[task, places], y.gather(1, places), mask.gather(1, places)), places


def back_in_place(values: Tensor, places: Tensor) -> Tensor:
    """Return values ``[T, N, D]`` in the order that :func:`in_order` found the examples in."""
    task = torch.arange(len(places), device=places.device)[:, None]
    return values[task, places.argsort(1)]

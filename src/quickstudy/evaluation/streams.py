"""Accuracy in streams, by how many examples of the class came before (Santoro et al. 2016)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import ConfigError, EpisodeSpec, Examples, TaskError
from quickstudy.core.arguments import checked
from quickstudy.core.devices import choose_device
from quickstudy.evaluation.statistics import Mean
from quickstudy.learners.base import Learner
from quickstudy.learners.streams import stream_logits
from quickstudy.tasks import TaskSource

__all__ = ["StreamReport", "evaluate_streams", "instance_numbers"]

_FLOATS_AT_ONCE = 20_000_000  # inputs of one batch of streams, at most: about 80 MB
_STREAMS_AT_ONCE = 100  # at most
_SHOWN = (1, 2, 3, 4, 5, 10)  # instances of the paper's table


@checked
@dataclass(frozen=True, slots=True)
class StreamReport:
    """Accuracy by instance: of the first example of each class, of the second, and so on.

    Args:
        learner: name of the learner.
        data: name of the data set.
        split: the part of it.
        n_way: classes in a stream.
        instances: examples of each class in a stream, ``K``.
        seed: names the list of streams.
        streams_sha256: hash of the streams: which examples in which order, with which labels.
        scores: accuracy of each stream by instance, fractions ``[E, K]``.
        seconds: wall time.

    Example::

        source = PoolSource(load_pool("digits"))
        report = evaluate_streams(NearestNeighbour(), source, n_way=5, instances=4, streams=20)
        print(report.text())
        report.accuracy(2).mean  # of the second example of a class, after one was shown
    """

    learner: str
    data: str
    split: str
    n_way: int
    instances: int
    seed: int
    streams_sha256: str
    scores: npt.NDArray[np.float64]
    seconds: float

    def accuracy(self, instance: int) -> Mean:
        """Return the accuracy at the ``instance``-th example of a class, counted from 1.

        Raises:
            ConfigError: if streams have no such instance.
        """
        if not 1 <= instance <= self.instances:
            raise ConfigError(
                f"streams have instances 1 to {self.instances} of each class; got {instance}."
            )
        return Mean.of(self.scores[:, instance - 1], over="streams")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; accuracies are fractions, by the number of the instance."""
        return {
            "learner": self.learner,
            "data": self.data,
            "protocol": {
                "split": self.split,
                "n_way": self.n_way,
                "instances": self.instances,
                "streams": len(self.scores),
                "seed": self.seed,
                "label": "one step late",
                "streams_sha256": self.streams_sha256,
            },
            "accuracy_by_instance": {
                str(k): self.accuracy(k).to_dict() for k in range(1, self.instances + 1)
            },
            "seconds": round(self.seconds, 3),
        }

    def text(self) -> str:
        """Return the table by instance, with intervals."""
        n, shown = len(self.scores), [k for k in _SHOWN if k <= self.instances]
        # the last one too, however many there are
        shown += [self.instances] if self.instances not in shown else []
        head = (
            f"streams of {self.n_way} classes, {self.instances} examples each, labels one step "
            f"late: accuracy, % (95 % CI over {n} streams, fixed classes, seed {self.seed})"
        )
        rows = [f"  instance {k:>2}: {self.accuracy(k).cell(aligned=True)}" for k in shown]
        return "\n".join([head, *rows])


@checked
@torch.no_grad()
def evaluate_streams(
    learner: Learner,
    source: TaskSource,
    *,
    n_way: int = 5,
    instances: int = 10,
    streams: int = 600,
    seed: int = 0,
    name: str | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> StreamReport:
    """Score a learner on the streams ``(seed, 0 ... streams-1)`` of a source.

    A stream shows ``instances`` examples of each of ``n_way`` classes in a random order, the label
    of each one step late (Santoro et al. 2016, section 4.1: 5 classes, 10 examples each). Any
    learner is scored, see :func:`quickstudy.learners.stream_logits`. The learner is in evaluation
    mode meanwhile.

    Args:
        learner: the learner to score.
        source: where examples come from; its supports of ``instances`` shots are the streams.
        n_way: classes in a stream, at least 2.
        instances: examples of each class.
        streams: how many, at least 1.
        seed: names the list of streams.
        name: of the learner in the report; its class name if not given.
        device: where to compute; the learner's if not given. The learner is moved back after.
        progress: called with the number of streams after each batch.

    Raises:
        ConfigError: if there is no such device.
        TaskError: if the source has too few classes or examples for such streams, or an answer is
            NaN.

    Example::

        source = PoolSource(load_pool("digits"))
        learner = LSTMLearner(Identity((1, 28, 28)), n_way=5)
        report = evaluate_streams(learner, source, instances=4, streams=20)
        report.scores  # [20, 4]
    """
    if streams < 1:
        raise TaskError(f"streams must be at least 1; got {streams}.")
    begun = time.perf_counter()
    spec = EpisodeSpec(n_way, instances, 1)  # the one query of each class is not looked at
    own = next((p.device for p in learner.parameters()), torch.device("cpu"))
    where = own if device is None else choose_device(str(device))
    was_training = learner.training
    learner.eval().to(where)
    digest, scores = hashlib.sha256(), []
    first = source.episodes(spec, [0], seed=int(seed)).support.x[0].numel()
    step = max(1, min(_STREAMS_AT_ONCE, _FLOATS_AT_ONCE // max(first, 1)))
    try:
        for begin in range(0, streams, step):
            ids = range(begin, min(begin + step, streams))
            episode = source.episodes(spec, ids, seed=int(seed))
            stream = episode.support
            rows = episode.info.get("support_index", stream.x)
            for named, labels in zip(rows.cpu().numpy(), stream.y.cpu().numpy(), strict=True):
                digest.update(named.tobytes())
                digest.update(labels.tobytes())
            scores.append(_scores(learner, stream.to(where), n_way, instances))
            if progress is not None:
                progress(len(ids))
    finally:
        learner.train(was_training).to(own)
    return StreamReport(
        learner=name or type(learner).__name__,
        data=source.name,
        split=source.split,
        n_way=n_way,
        instances=instances,
        seed=int(seed),
        streams_sha256=digest.hexdigest(),
        scores=np.concatenate(scores),
        seconds=time.perf_counter() - begun,
    )


def _scores(
    learner: Learner, stream: Examples, n_way: int, instances: int
) -> npt.NDArray[np.float64]:
    """Return the accuracy of each stream by instance ``[T, K]``."""
    logits = stream_logits(learner, stream, n_way=n_way)
    if bool(torch.isnan(logits).any()):
        raise TaskError(
            f"{type(learner).__name__} predicted NaN. Check the inputs for NaN, or the training "
            "for divergence."
        )
    right = (logits.argmax(2) == stream.y) & stream.mask
    number = instance_numbers(stream.y, stream.mask)  # [T, S]
    at = (number[..., None] == torch.arange(1, instances + 1, device=number.device)).double()
    counts = at.sum(1).clamp(min=1)  # [T, K]
    return np.asarray(((right[..., None] * at).sum(1) / counts).cpu().numpy())


@checked
def instance_numbers(y: Tensor, mask: Tensor) -> Tensor:
    """Return how many examples of its class each example of a stream makes, itself counted.

    Args:
        y: labels in their order ``[T, S]``.
        mask: bool ``[T, S]``, ``False`` = padding, whose number is 0.

    Example::

        y = torch.tensor([[0, 1, 0, 0]])
        instance_numbers(y, torch.ones_like(y).bool())  # [1, 4]
    """
    same = (y[:, :, None] == y[:, None]) & mask[:, :, None] & mask[:, None]  # [T, S, S]
    return same.tril().sum(2)

"""What a learner costs: time to learn a task and to answer, memory, and whether it needs
gradients."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from quickstudy.core import Episode
from quickstudy.learners.base import Learner

__all__ = ["Cost", "measure_cost"]

_REPEATS = 7
_LONG = 2.0  # seconds after which nothing is repeated


@dataclass(frozen=True, slots=True)
class Cost:
    """What it takes to master one task.

    Args:
        needs_gradients: whether adapting differentiates.
        adapt_seconds: from a support set to a classifier, median.
        query_seconds: to answer one query alone, median.
        state_bytes: what is kept of a task.
        peak_bytes: memory above what the process held before, at the most, while adapting to one
            task; ``None`` where the system does not say.
        parameters: meta-learned numbers, shared by all tasks.
        threads: that torch used.
    """

    needs_gradients: bool
    adapt_seconds: float
    query_seconds: float
    state_bytes: int
    peak_bytes: int | None
    parameters: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


class _Watch(TorchFunctionMode):
    """Notes whether anything is computed with gradients on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.seen |= torch.is_grad_enabled()
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def measure_cost(learner: Learner, episode: Episode) -> Cost:
    """Measure a learner on one task; nothing about it changes.

    It runs without gradients as every evaluation does: a learner that turns them on again needs
    them to adapt.

    Args:
        learner: on the CPU.
        episode: one task; its first query is asked alone.
    """
    was_training = learner.training
    learner.eval()
    support, n_way = episode.support, episode.n_way
    query: Tensor = episode.query.x[:, :1]
    try:
        # the first time fills caches
        with _Watch() as watch:
            state = learner.adapt(support, n_way=n_way)
        learner.predict(state, query)
        peak = _peak(lambda: learner.adapt(support, n_way=n_way))
        adapt = _median_seconds(lambda: learner.adapt(support, n_way=n_way))
        answer = _median_seconds(lambda: learner.predict(state, query))
    finally:
        learner.train(was_training)
    return Cost(
        needs_gradients=watch.seen,
        adapt_seconds=adapt,
        query_seconds=answer,
        state_bytes=sum(value.numel() * value.element_size() for value in state.values()),
        peak_bytes=peak,
        parameters=sum(p.numel() for p in learner.parameters()),
        threads=torch.get_num_threads(),
    )


def _median_seconds(action: Callable[[], object]) -> float:
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _LONG:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _peak(action: Callable[[], object]) -> int | None:
    """Return how far resident memory rises above its level before (Linux)."""
    gc.collect()
    try:
        # freed memory that the allocator keeps would hide what is needed
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        before = _status("VmRSS")
        action()
        return max(0, _status("VmHWM") - before)
    except (OSError, KeyError):
        return None


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return int(found[name].split()[0]) * 1024

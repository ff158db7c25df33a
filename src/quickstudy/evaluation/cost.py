"""Cost of a learner: time to adapt and to answer, memory, and whether it needs gradients."""

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
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Learner

__all__ = ["Cost", "measure_cost"]

_REPEATS = 7  # of which the median time is taken
_MOST_SECONDS = 2.0  # spent on repeats; a slow action is timed once


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and memory that a learner takes for one task.

    Args:
        needs_gradients: whether adapting computes gradients.
        adapt_seconds: median time to adapt to a support set.
        query_seconds: median time to answer a single query.
        state_bytes: size of the state that adapting returns.
        peak_bytes: most memory that adapting to one task adds to the process; ``None`` where the
            system does not report it (all but Linux).
        parameters: number of meta-learned numbers, shared by all tasks.
        threads: number of threads that torch used.

    Example::

        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        cost = measure_cost(NearestNeighbour(), episode)
        cost.adapt_seconds, cost.query_seconds, cost.state_bytes
        cost.needs_gradients  # False
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


class _GradientWatch(TorchFunctionMode):
    """Records whether any operation runs while gradients are enabled."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = False

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.enabled |= torch.is_grad_enabled()
        return func(*args, **(kwargs or {}))


@checked
@torch.no_grad()
def measure_cost(learner: Learner, episode: Episode) -> Cost:
    """Measure a learner on one task; the learner does not change.

    It runs with gradients disabled, as every evaluation does. A learner that enables them again
    needs them to adapt.

    Args:
        learner: a learner on the CPU.
        episode: one task; only its first query is answered.
    """
    was_training = learner.training
    learner.eval()
    support, n_way = episode.support, episode.n_way
    query: Tensor = episode.query.x[:, :1]
    try:
        # a first, untimed round: it fills caches
        with _GradientWatch() as gradients:
            state = learner.adapt(support, n_way=n_way)
        learner.predict(state, query)
        peak = _peak(lambda: learner.adapt(support, n_way=n_way))
        adapt = _median_seconds(lambda: learner.adapt(support, n_way=n_way))
        answer = _median_seconds(lambda: learner.predict(state, query))
    finally:
        learner.train(was_training)
    return Cost(
        needs_gradients=gradients.enabled,
        adapt_seconds=adapt,
        query_seconds=answer,
        state_bytes=sum(value.numel() * value.element_size() for value in state.values()),
        peak_bytes=peak,
        parameters=sum(p.numel() for p in learner.parameters()),
        threads=torch.get_num_threads(),
    )


def _median_seconds(action: Callable[[], object]) -> float:
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _MOST_SECONDS:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _peak(action: Callable[[], object]) -> int | None:
    """Return by how many bytes an action raises resident memory at most; ``None`` but on Linux."""
    gc.collect()
    try:
        # memory that the allocator kept after use could be used again, and would not be counted
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present level
        before = _status("VmRSS")
        action()
        return max(0, _status("VmHWM") - before)
    except (OSError, KeyError):
        return None


def _status(name: str) -> int:
    """Return an entry of the process's status, in bytes (the file has kB)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return int(found[name].split()[0]) * 1024

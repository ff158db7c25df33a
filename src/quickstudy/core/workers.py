"""Tasks in chunks, on one thread or several.

Native kernels of small inputs do not fill two cores, and whole batches of tasks do not fit in a
cache: chunks of a few tasks, each chunk in a thread of its own, do both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from quickstudy.core.allocator import keep_freed_memory

__all__ = ["Schedule", "in_chunks", "replica"]

Result = TypeVar("Result")
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a batch of tasks is run.

    Args:
        tasks_at_once: tasks of a chunk.
        workers: threads, each with a chunk of its own and one core.
        engine: how the tasks of a chunk run, in words.
    """

    tasks_at_once: int
    workers: int = 1
    engine: str = "one batch"

    def __str__(self) -> str:
        tasks = "1 task" if self.tasks_at_once == 1 else f"{self.tasks_at_once} tasks"
        threads = f" on each of {self.workers} threads" if self.workers > 1 else ""
        return f"{tasks} at once{threads}, {self.engine}"


def in_chunks(
    action: Callable[[Module, slice], Result], module: Module, tasks: int, schedule: Schedule
) -> list[Result]:
    """Run an action on each chunk of tasks; the results come in the order of the tasks.

    Args:
        action: takes the module and the tasks of a chunk. With several workers it gets a replica:
            the same tensors in other modules, so that parameters may be swapped in each.
        module: what the action needs.
        tasks: how many there are.
        schedule: how.

    Returns:
        One result for each chunk.
    """
    size = max(1, schedule.tasks_at_once)
    chunks = [slice(at, min(at + size, tasks)) for at in range(0, tasks, size)]
    workers = min(schedule.workers, len(chunks))
    if workers <= 1:
        return [action(module, chunk) for chunk in chunks]
    replicas: SimpleQueue[Module] = SimpleQueue()
    for _ in range(workers):
        replicas.put(replica(module))
    grad = torch.is_grad_enabled()

    def run(chunk: slice) -> Result:
        mine = replicas.get()
        try:
            with torch.set_grad_enabled(grad):  # a property of the thread
                return action(mine, chunk)
        finally:
            replicas.put(mine)

    return list(_pool(workers).map(run, chunks))


def replica(module: Module) -> Module:
    """Return a module of the same structure on the same tensors: its parts are its own."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(t): t for t in tensors})


@lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    """Return threads that compute with one core each."""
    keep_freed_memory()
    return ThreadPoolExecutor(
        workers, "quickstudy", initializer=torch.set_num_threads, initargs=(1,)
    )

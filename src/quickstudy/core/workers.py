"""Tasks in chunks, on one thread or several.

Native kernels on small inputs do not fill two cores, and a whole batch of tasks does not fit in a
cache. Chunks of a few tasks fit, and with each chunk in a thread of its own they fill the cores.
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
        tasks_at_once: number of tasks in a chunk.
        workers: number of threads; each runs a chunk of its own on one core.
        engine: how the tasks of a chunk run, as text for people.
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
            the same tensors in other modules, so that each thread may swap parameters in its own.
        module: handed to the action.
        tasks: number of tasks.
        schedule: tasks of a chunk, and number of threads.

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
            with torch.set_grad_enabled(grad):  # each thread has its own setting
                return action(mine, chunk)
        finally:
            replicas.put(mine)

    return list(_pool(workers).map(run, chunks))


def replica(module: Module) -> Module:
    """Return a module of the same structure on the same tensors; its submodules are its own."""
    # a tensor that deepcopy finds in the memo is shared, not copied
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(t): t for t in tensors})


@lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    """Return a pool of threads that compute with one core each."""
    keep_freed_memory()
    return ThreadPoolExecutor(
        workers, "quickstudy", initializer=torch.set_num_threads, initargs=(1,)
    )

"""Scoring every contestant on every list of tasks, in several processes, each cell once."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.comparing.cells import CellStore
from quickstudy.comparing.contestants import Contestant, learner_of, seed_groups, source_for
from quickstudy.comparing.result import Cell, Comparison
from quickstudy.comparing.tasklists import TaskList, role_of
from quickstudy.core import ConfigError, QuickstudyError
from quickstudy.evaluation import (
    Cost,
    embed_pool,
    evaluate,
    measure_cost,
)
from quickstudy.learners import EmbeddingLearner
from quickstudy.runs.folder import read_recipe
from quickstudy.tasks import PoolSource

__all__ = [
    "score_all",
]

# contestants that share an encoder, and a list to score them on
_Job = tuple[tuple[Contestant, ...], TaskList]


def score_all(
    given: Sequence[Contestant],
    lists: Sequence[TaskList],
    *,
    store: CellStore,
    workers: int = 1,
    costs: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Score every contestant on every list.

    A cell that the store holds is not computed again, so a comparison that was killed can be
    continued. Every process computes in one thread, so the scores are the same to the last bit
    however many processes there are.

    Args:
        given: the contestants.
        lists: the lists of tasks.
        store: where scores are read and written.
        workers: number of processes.
        costs: whether time and memory are measured, in this process, after all scores.
        progress: called with the number of cells that were finished since the last call.

    Raises:
        ConfigError: if ``workers`` is below 1.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1; got {workers}.")
    jobs = _jobs(given, lists, store)
    done = len(given) * len(lists) - sum(len(group) for group, _ in jobs)
    if progress is not None:
        progress(done)
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            _score(job, store)
            if progress is not None:
                progress(len(job[0]))
    else:
        before = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=_end_with, initargs=(os.getpid(),)
        ) as pool:
            try:
                waiting = {pool.submit(_score, job, store): job for job in jobs}
                for future in as_completed(waiting):
                    future.result()
                    if progress is not None:
                        progress(len(waiting[future][0]))
            except BaseException:
                # cells are written whole or not at all: only those being computed are lost
                for worker in set(multiprocessing.active_children()) - before:
                    worker.terminate()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return _gathered(given, lists, store, _costs(given, lists[0]) if costs else {})


def _end_with(parent: int) -> None:
    """End this process about a second after its parent ends, so that none is left behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def _jobs(given: Sequence[Contestant], lists: Sequence[TaskList], store: CellStore) -> list[_Job]:
    """Return the cells that are left to compute, those of one encoder together.

    A job embeds the images of its list only once for all its contestants.
    """
    jobs: list[_Job] = []
    for tasks in lists:
        by_run: dict[Path, list[Contestant]] = {}
        for one in given:
            if store.get(one, tasks) is None:
                by_run.setdefault(one.run, []).append(one)
        jobs += [(tuple(group), tasks) for group in by_run.values()]
    return jobs


def _score(job: _Job, store: CellStore) -> None:
    """Score the contestants of a job and write their cells."""
    group, tasks = job
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the split of a sum among threads changes how it is rounded
    try:
        source = source_for(group[0], tasks)
        embedded: dict[int, PoolSource] = {}
        for one in group:
            learner = learner_of(one)
            scored: Any = learner
            where = source
            if (
                isinstance(learner, EmbeddingLearner)
                and isinstance(source, PoolSource)
                and learner.embeds_once
            ):
                key = id(learner.encoder)
                if key not in embedded:
                    embedded[key] = embed_pool(learner, source, rows=_rows(source, tasks))
                scored, where = learner.head, embedded[key]
            try:
                report = evaluate(
                    scored,
                    where,
                    tasks.spec,
                    episodes=tasks.episodes,
                    seed=tasks.seed,
                    name=one.name,
                )
            except QuickstudyError as error:
                raise type(error)(f"{one.name} on {tasks.name}: {error}") from error
            store.put(one, tasks, report)
    finally:
        torch.set_num_threads(threads)


def _rows(source: PoolSource, tasks: TaskList) -> Any:
    """Return the rows of the pool that the episodes use, ascending."""
    index = source.index(tasks.spec, range(tasks.episodes), seed=tasks.seed)
    rows = np.unique(np.concatenate([index.support.ravel(), index.query.ravel()]))
    return rows[rows >= 0]


def _costs(given: Sequence[Contestant], tasks: TaskList) -> dict[str, Cost]:
    """Return time and memory of each contestant on the first episode of a list, in one thread."""
    found, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for one in given:
            episode = source_for(one, tasks).episodes(tasks.spec, [0], seed=tasks.seed)
            found[one.name] = measure_cost(learner_of(one), episode)
    finally:
        torch.set_num_threads(threads)
    return found


def _gathered(
    given: Sequence[Contestant],
    lists: Sequence[TaskList],
    store: CellStore,
    costs: dict[str, Cost],
) -> Comparison:
    """Return the comparison of all cells in the store."""
    cells = []
    for tasks in lists:
        for one in given:
            report = store.get(one, tasks)
            assert report is not None  # every job is done
            role = role_of(tasks, read_recipe(one.run))
            cells.append(Cell(one.name, tasks.name, role, replace(report, learner=one.name)))
    families = {one.name: one.family for one in given}
    return Comparison(cells, families, costs, seed_groups(given), _remarks(cells))


def _remarks(cells: Sequence[Cell]) -> list[str]:
    """Return a sentence for each domain that chose the weights of a learner: it is not novel."""
    by_tasks: dict[str, list[str]] = {}
    for cell in cells:
        if cell.role == "choosing domain":
            by_tasks.setdefault(cell.tasks, []).append(cell.learner)
    return [
        f"{tasks}: the score on images of this data set chose the weights of {', '.join(names)}. "
        "It is no novel domain to them, and counts in no mean over novel domains, drop or rank."
        for tasks, names in by_tasks.items()
    ]

"""Scores every learner on every list of tasks: in several processes, and never twice."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.core import ConfigError, QuickstudyError
from quickstudy.evaluation import (
    Cell,
    Comparison,
    Cost,
    Interval,
    Protocol,
    Report,
    embed_pool,
    evaluate,
    measure_cost,
)
from quickstudy.learners import EmbeddingLearner
from quickstudy.pages import draw_episode
from quickstudy.recipes.build import read_recipe
from quickstudy.recipes.contestants import Contestant, learner_of, seed_groups
from quickstudy.recipes.tasklists import TaskList, role_of
from quickstudy.tasks import PoolSource
from quickstudy.training.checkpoint import write_atomically

__all__ = ["CellStore", "compare_runs", "draw_hardest"]

_FORMAT = 1

_Job = tuple[tuple[Contestant, ...], TaskList]


def compare_runs(
    given: Sequence[Contestant],
    lists: Sequence[TaskList],
    *,
    store: CellStore,
    workers: int = 1,
    costs: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Score every contestant on every list.

    A cell that the store holds is not computed again; so a comparison that was killed goes on where
    it was, and the scores are the same to the last bit however many processes compute them: each
    computes in one thread.

    Args:
        given: what is compared.
        lists: on which tasks.
        store: keeps the scores.
        workers: processes.
        costs: measure time and memory, in this process, after all scores.
        progress: called with the number of cells that were finished.

    Raises:
        ConfigError: if there are no workers.
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
                # a cell is written whole or not at all: nothing is lost but a started one
                for worker in set(multiprocessing.active_children()) - before:
                    worker.terminate()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return _gathered(given, lists, store, _costs(given, lists[0]) if costs else {})


def _end_with(parent: int) -> None:
    """End this process soon after its parent: who kills a comparison wants no more of it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def _jobs(given: Sequence[Contestant], lists: Sequence[TaskList], store: CellStore) -> list[_Job]:
    """Return what is left to compute; those that share an encoder go together."""
    jobs: list[_Job] = []
    for tasks in lists:
        by_run: dict[Path, list[Contestant]] = {}
        for one in given:
            if store.get(one, tasks) is None:
                by_run.setdefault(one.run, []).append(one)
        jobs += [(tuple(group), tasks) for group in by_run.values()]
    return jobs


def _score(job: _Job, store: CellStore) -> None:
    group, tasks = job
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # how sums are split must not depend on the machine
    try:
        source = _source(group[0], tasks)
        embedded: dict[int, PoolSource] = {}
        for one in group:
            learner = learner_of(one)
            scored: Any = learner
            where = source
            if isinstance(learner, EmbeddingLearner) and not learner.encoder.episodic:
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


def _source(one: Contestant, tasks: TaskList) -> PoolSource:
    encoder = read_recipe(one.run).encoder
    return tasks.source(size=encoder.image_size, channels=encoder.in_channels)


def _rows(source: PoolSource, tasks: TaskList) -> Any:
    index = source.index(tasks.spec, range(tasks.episodes), seed=tasks.seed)
    rows = np.unique(np.concatenate([index.support.ravel(), index.query.ravel()]))
    return rows[rows >= 0]


def _costs(given: Sequence[Contestant], tasks: TaskList) -> dict[str, Cost]:
    found, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for one in given:
            episode = _source(one, tasks).episodes(tasks.spec, [0], seed=tasks.seed)
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
    cells = []
    for tasks in lists:
        for one in given:
            report = store.get(one, tasks)
            assert report is not None
            role = role_of(tasks, read_recipe(one.run))
            cells.append(Cell(one.name, tasks.name, role, replace(report, learner=one.name)))
    families = {one.name: one.family for one in given}
    return Comparison(cells, families, costs, seed_groups(given), _remarks(cells))


def _remarks(cells: Sequence[Cell]) -> list[str]:
    """Say which learners a domain chose: it is not novel to them."""
    by_tasks: dict[str, list[str]] = {}
    for cell in cells:
        if cell.role == "choosing domain":
            by_tasks.setdefault(cell.tasks, []).append(cell.learner)
    return [
        f"{tasks}: the score on images of this data set chose the weights of {', '.join(names)}. "
        "It is no novel domain to them, and counts in no mean over novel domains, drop or rank."
        for tasks, names in by_tasks.items()
    ]


def draw_hardest(
    given: Sequence[Contestant],
    lists: Sequence[TaskList],
    comparison: Comparison,
    *,
    n: int = 2,
    most_ways: int = 10,
) -> list[str]:
    """Return the hardest tasks of each list as HTML figures, answered by the list's best learner.

    Args:
        given: what was compared.
        lists: on which tasks.
        comparison: the scores.
        n: tasks of each list.
        most_ways: tasks of more classes are not drawn.
    """
    drawn = []
    by_name = {one.name: one for one in given}
    for tasks in lists:
        ways = tasks.spec.n_way
        if (ways if isinstance(ways, int) else ways[1]) > most_ways:
            continue
        best, _ = comparison.best(tasks.name)
        source = _source(by_name[best], tasks)
        for number, mean in comparison.hardest(tasks.name, n=n):
            caption = (
                f"{tasks.name}, episode {number}: {100 * mean:.0f} % on average over the learners; "
                f"answers of {best}."
            )
            drawn.append(
                draw_episode(
                    learner_of(by_name[best]),
                    source,
                    tasks.spec,
                    task_id=number,
                    seed=tasks.seed,
                    caption=caption,
                )
            )
    return drawn


class CellStore:
    """A folder of scores: ``KEY.npy`` holds those of a cell, ``KEY.json`` all else about it.

    The key is a hash of what decides the scores: weights, tasks and their seed. A file that was cut
    short is as good as none.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, one: Contestant, tasks: TaskList) -> str:
        """Return the name of a cell."""
        named = {name: value for name, value in asdict(tasks).items() if name != "name"}
        about: dict[str, Any] = {
            "format": _FORMAT,
            "learner": one.fingerprint,
            "tasks": named,
        }
        if not isinstance(tasks.spec.n_way, int):
            about["class bootstrap"] = 2  # the first one did not weigh tasks of few classes alike
        folder = Path(tasks.data)
        if folder.is_dir():  # the user's own pictures may change
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            about["files"] = [
                (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns)
                for path in files
            ]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]

    def get(self, one: Contestant, tasks: TaskList) -> Report | None:
        """Return the scores of a cell, or ``None`` if they are not there whole."""
        key = self.key(one, tasks)
        try:
            about = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            data = (self.folder / f"{key}.npy").read_bytes()
            if hashlib.sha256(data).hexdigest() != about["sha256"]:
                return None
            scores = np.load(io.BytesIO(data), allow_pickle=False)
            protocol: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in about["protocol"].items()
            }
            interval = about["class_interval"]
            return Report(
                about["learner"],
                Protocol(**protocol),
                scores,
                None if interval is None else Interval(*interval),
                about["calibration_error"],
                about["seconds"],
            )
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def put(self, one: Contestant, tasks: TaskList, report: Report) -> None:
        """Keep the scores of a cell.

        Raises:
            CheckpointError: if they cannot be written.
        """
        key, buffer = self.key(one, tasks), io.BytesIO()
        np.save(buffer, report.scores, allow_pickle=False)
        interval = report.class_interval
        about = {
            "learner": report.learner,
            "tasks": tasks.name,
            "protocol": asdict(report.protocol),
            "class_interval": None if interval is None else [interval.low, interval.high],
            "calibration_error": report.calibration_error,
            "seconds": report.seconds,
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        }
        write_atomically(self.folder / f"{key}.npy", buffer.getvalue())
        # last: a cell without it is not there
        write_atomically(self.folder / f"{key}.json", json.dumps(about, indent=1).encode())

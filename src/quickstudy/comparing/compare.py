"""Comparing runs: contestants are scored on lists of tasks, and a folder holds the result."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from quickstudy import __version__
from quickstudy.comparing.cells import CellStore
from quickstudy.comparing.contestants import BASELINES, Contestant, contestants
from quickstudy.comparing.hardest import draw_hardest
from quickstudy.comparing.page import (
    Account,
    comparison_markdown,
    comparison_page,
    comparison_text,
)
from quickstudy.comparing.result import Comparison
from quickstudy.comparing.scoring import score_all
from quickstudy.comparing.tasklists import TaskList, available_domains, task_lists
from quickstudy.core import CheckpointError, ConfigError, EpisodeSpec
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_seed
from quickstudy.core.words import count, quiet
from quickstudy.runs.folder import Run, read_recipe, run_folder
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import check_output_folder, is_comparison_folder

__all__ = ["Compared", "compare_runs"]

Number = int | tuple[int, int]
_DOCUMENT, _PAGE, _MARKDOWN = "comparison.json", "comparison.html", "comparison.md"


@dataclass(frozen=True, slots=True)
class Compared:
    """A finished comparison, and the folder it was written into.

    Args:
        comparison: all scores.
        seconds: wall time.
        out: folder with scores, JSON, Markdown and the page; ``None`` = nothing was written.
        unwritten: why the page could not be written, if so; the scores are in ``out`` all the same.

    Example::

        compared = compare_runs(["runs/glyphs"], ["digits"], episodes=20, workers=1)
        print(compared.text())
        compared.comparison.learners, compared.comparison.tasks
        document = compared.to_dict()
    """

    comparison: Comparison
    seconds: float
    out: Path | None
    unwritten: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; scores are fractions."""
        document: dict[str, Any] = {**self.comparison.to_dict(), "seconds": self.seconds}
        if self.out is not None:
            page = str(self.out / _PAGE) if self.unwritten is None else None
            document |= {"page": page, "scores": str(self.out / "cells")}
        if self.unwritten is not None:
            document["page_error"] = self.unwritten
        return document

    def text(self) -> str:
        """Return the tables as text for a terminal."""
        text = comparison_text(self.comparison)
        if self.out is not None and self.unwritten is None:
            text += f"\n{self.out / _PAGE}: open it in a browser"
        return f"{text}\n{self.seconds:.0f} seconds"


@checked
def compare_runs(
    runs: Sequence[str | Path | Run] | str | Path | Run,
    data: Sequence[str | Path] | str | Path = (),
    *,
    domains: bool = False,
    n_way: Number | None = None,
    k_shot: Sequence[Number] | None = None,
    n_query: int = 10,
    episodes: int = 600,
    seed: int = 0,
    baselines: Sequence[str] | None = None,
    features: str | Path | None = None,
    trained: bool = True,
    out: str | Path | None = None,
    workers: int | None = None,
    made_by: str = "quickstudy.comparing.compare_runs",
    progress: bool = False,
    say: Callable[[str], None] = quiet,
) -> Compared:
    """Compare runs and plain baselines on the same episodes: scores, paired differences, cost.

    Runs of regression are compared by their squared error, and the smallest is the best.

    A data set that runs were trained on gives two lists of tasks: on classes that all of these runs
    were trained on, and on classes that none of them has seen. With ``out``, a comparison that was
    stopped keeps the scores it has computed, and the same call continues it.

    Args:
        runs: folders that training wrote.
        data: named data sets, or folders of class folders.
        domains: also compare on every domain whose data is on this machine.
        n_way: classes in a task, or a range; 5 if not given, 5 to 20 with ``domains``, 1 in
            regression.
        k_shot: numbers of support examples of a class, or ranges; 1 if not given, 1 to 10 with
            ``domains``.
        n_query: queries of a class.
        episodes: number of episodes of each list of tasks.
        seed: names the episodes.
        baselines: names from :data:`~quickstudy.comparing.contestants.BASELINES`; all if not
            given, none in regression.
        features: the run whose features the baselines use; the first if not given.
        trained: whether training classes are scored too.
        out: folder for scores, JSON, Markdown and the page.
        workers: number of processes; one per core if not given.
        made_by: the command that the page names.
        progress: show a bar on standard error.
        say: is called with a sentence about each thing that happens.

    Raises:
        ConfigError: if there is nothing to compare, settings contradict each other, or ``out`` is a
            run, a data set or a folder of other things.
        CheckpointError: if a run cannot be read, or a score cannot be written.
        TaskError: if every list of tasks had too few classes.

    Example::

        compared = compare_runs(["runs/a", "runs/b"], ["omniglot"], out="compared")
        print(compared.text())
        compared.comparison.best(compared.comparison.tasks[0])
        compared.to_dict()  # the document of ``quickstudy compare --json``
    """
    start = time.perf_counter()
    runs = [runs] if isinstance(runs, (str, Path, Run)) else runs
    folders = [run.folder if isinstance(run, Run) else run_folder(run) for run in runs]
    data = [data] if isinstance(data, (str, Path)) else data
    check_seed(seed)
    folder = None
    if out is not None:
        inputs = [*folders, *data, *([] if features is None else [features])]
        folder = check_output_folder(out, inputs=inputs, ours=is_comparison_folder)
    trained_data = [read_recipe(run).data for run in folders]
    regression = bool(trained_data) and all(config.regression for config in trained_data)
    specs = _specs(domains, 1 if regression and n_way is None else n_way, k_shot, n_query)
    usual = () if regression else tuple(BASELINES)
    given = contestants(
        folders,
        baselines=usual if baselines is None else tuple(baselines),
        features=None if features is None else Path(features),
    )
    lists, remarks = task_lists(
        trained_data,
        _names([str(name) for name in data], domains),
        specs,
        episodes=episodes,
        seed=seed,
        with_trained=trained,
    )
    for remark in remarks:
        say(f"note: {remark}")
    say(
        f"{count(len(given), 'learner')} on {count(len(lists), 'list')} of "
        f"{count(episodes, 'task')}"
    )
    if folder is not None:
        _note_replaced_page(folder, made_by, say)
    comparison, resumed = _score(given, lists, folder, workers, progress=progress, say=say)
    comparison = replace(comparison, remarks=(*remarks, *comparison.remarks))
    compared = Compared(comparison, time.perf_counter() - start, folder)
    if folder is not None:
        account = Account(made_by, _machine(), compared.seconds, resumed)
        try:
            _write(compared, folder, given, lists, account)
        except (CheckpointError, OSError) as error:
            # a full disk: the scores took long, so they are returned
            compared = replace(compared, unwritten=str(error))
    return compared


def _names(data: Sequence[str], domains: bool) -> list[str]:
    """Return the data sets to compare on."""
    names = list(data)
    if domains:
        names += [name for name in available_domains() if name not in names]
    if not names:
        raise ConfigError("name data with data=, or take every domain with domains=True.")
    return names


def _specs(
    domains: bool, n_way: Number | None, k_shot: Sequence[Number] | None, n_query: int
) -> list[EpisodeSpec]:
    """Return the sizes of the tasks, one for each number of shots."""
    usual_ways: Number = (5, 20) if domains else 5
    ways = usual_ways if n_way is None else n_way
    usual_shots: list[Number] = [(1, 10)] if domains else [1]
    shots = usual_shots if k_shot is None else list(k_shot)
    if len(set(shots)) < len(shots):
        named = ", ".join(
            f"{shot[0]}-{shot[1]}" if isinstance(shot, tuple) else str(shot) for shot in shots
        )
        raise ConfigError(f"k_shot= names a number twice: {named}. Name each once.")
    return [EpisodeSpec(ways, shot, n_query) for shot in shots]


def _score(
    given: Sequence[Contestant],
    lists: Sequence[TaskList],
    out: Path | None,
    workers: int | None,
    *,
    progress: bool,
    say: Callable[[str], None],
) -> tuple[Comparison, int]:
    """Return all scores, and how many cells an earlier comparison had computed already."""
    total = len(given) * len(lists)
    with tempfile.TemporaryDirectory() as scratch:
        store = CellStore((out or Path(scratch)) / "cells")
        resumed = sum(store.get(one, tasks) is not None for one in given for tasks in lists)
        if resumed:
            say(f"{resumed} of {total} are there already")
        try:
            with tqdm(
                total=total, unit="cell", file=sys.stderr, dynamic_ncols=True, disable=not progress
            ) as bar:
                comparison = score_all(
                    given,
                    lists,
                    store=store,
                    workers=workers if workers is not None else os.cpu_count() or 1,
                    progress=bar.update,
                )
        except KeyboardInterrupt as stop:
            kept = (
                "name out= next time, and a stopped comparison can go on"
                if out is None
                else "the scores that were finished are kept: the same command goes on"
            )
            raise KeyboardInterrupt(f"stopped; {kept}.") from stop
    return comparison, resumed


def _write(
    compared: Compared,
    out: Path,
    given: Sequence[Contestant],
    lists: Sequence[TaskList],
    account: Account,
) -> None:
    """Write page, Markdown and document into the folder."""
    comparison = compared.comparison
    title = f"{count(len(given), 'learner')} compared"
    hardest = draw_hardest(given, lists, comparison)
    page = comparison_page(comparison, account, title=title, hardest=hardest)
    write_atomically(out / _PAGE, page.encode())
    markdown = comparison_markdown(comparison, account, title=title)
    write_atomically(out / _MARKDOWN, markdown.encode())
    document = {"command": "compare", **compared.to_dict()}
    scored = [
        result | {"scores": cell.report.scores.tolist()}
        for result, cell in zip(document["results"], comparison.cells, strict=True)
    ]
    # unlike the document that is printed, the file also holds the score of each episode
    full = {**document, "results": scored, "made_by": account.command}
    write_atomically(out / _DOCUMENT, (json.dumps(full, allow_nan=False) + "\n").encode())


def _note_replaced_page(out: Path, made_by: str, say: Callable[[str], None]) -> None:
    """Say if the page of another comparison will be replaced; its scores stay on disk."""
    try:
        before = json.loads((out / _DOCUMENT).read_text(encoding="utf-8"))["made_by"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if before != made_by:
        say(f"note: the page in {out} is replaced; it was made by: {before}")


def _machine() -> list[str]:
    """Return versions and machine in words, for the page."""
    return [
        f"Quickstudy {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
    ]

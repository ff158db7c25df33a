"""The scores of a comparison on disk, so that a stopped comparison computes none twice.

A cell holds the scores of one contestant on one list of tasks.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.comparing.contestants import Contestant, source_for
from quickstudy.comparing.tasklists import TaskList
from quickstudy.evaluation import Interval, Likelihood, Protocol, Report, class_interval
from quickstudy.evaluation.classes import CLASS_METHOD
from quickstudy.storage.files import write_atomically
from quickstudy.tasks import PoolSource

__all__ = ["CellStore"]

# of the files; part of every key, so that another version never reads them wrongly
_FORMAT = 1

Floats = npt.NDArray[np.float64]


class CellStore:
    """A folder of scores: ``KEY.npy`` holds those of a cell, ``KEY.json`` its protocol and hash.

    The key is a hash of everything that the scores depend on: weights, tasks and their seed. A
    damaged file counts as missing.

    Args:
        folder: where the files are; made when the first cell is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, one: Contestant, tasks: TaskList) -> str:
        """Return the key of a cell, 32 hexadecimal digits."""
        named = {name: value for name, value in asdict(tasks).items() if name != "name"}
        if named["columns"] == (None, None):  # as before there was such a field
            del named["columns"]
        about: dict[str, Any] = {
            "format": _FORMAT,
            "learner": one.fingerprint,
            "tasks": named,
        }
        if not isinstance(tasks.spec.n_way, int):
            # version of the bootstrap over classes: version 1 gave tasks of few classes less weight
            about["class bootstrap"] = 2
        folder = Path(tasks.data)
        if folder.exists():  # the user's own examples may change, and their scores with them
            inside = folder.rglob("*") if folder.is_dir() else [folder]
            files = sorted(path for path in inside if path.is_file())
            about["files"] = [
                (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns)
                for path in files
            ]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]

    def get(self, one: Contestant, tasks: TaskList) -> Report | None:
        """Return the scores of a cell, or ``None`` if they are missing or damaged."""
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
            report = Report(
                about["learner"],
                Protocol(**protocol),
                scores,
                None if interval is None else Interval(*interval),
                about["calibration_error"],
                about["seconds"],
                _likelihood(about.get("likelihood")),
            )
            if interval is not None and "class_interval_method" not in about:
                # by an earlier version, whose interval over classes was another: the scores are
                # the same, so it is computed from them
                report = replace(report, class_interval=_over_classes(one, tasks, scores))
                self.put(one, tasks, report)
            return report
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def put(self, one: Contestant, tasks: TaskList, report: Report) -> None:
        """Write the scores of a cell.

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
            "class_interval_method": CLASS_METHOD,
            "calibration_error": report.calibration_error,
            "seconds": report.seconds,
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        }
        if (found := report.likelihood) is not None:
            about["likelihood"] = {
                "nll": found.nll.tolist(),
                "coverage90": found.coverage.tolist(),
                "estimated": found.estimated,
            }
        write_atomically(self.folder / f"{key}.npy", buffer.getvalue())
        # written last: without this file a cell counts as missing
        write_atomically(self.folder / f"{key}.json", json.dumps(about, indent=1).encode())


def _likelihood(about: dict[str, Any] | None) -> Likelihood | None:
    """Return the likelihood that a file holds; cells of earlier versions hold none."""
    if about is None:
        return None
    nll, coverage = (np.asarray(about[name], dtype=np.float64) for name in ("nll", "coverage90"))
    return Likelihood(nll, coverage, bool(about["estimated"]))


def _over_classes(one: Contestant, tasks: TaskList, scores: Floats) -> Interval | None:
    """Return the interval over classes of the scores of a list of tasks."""
    source = source_for(one, tasks)
    if not isinstance(source, PoolSource):
        return None
    index = source.index(tasks.spec, range(tasks.episodes), seed=tasks.seed)
    return class_interval(scores, index.classes, most=1.0)

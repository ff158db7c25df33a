"""The scores of a comparison on disk, so that a stopped comparison computes none twice.

A cell holds the scores of one contestant on one list of tasks.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.comparing.contestants import Contestant
from quickstudy.comparing.tasklists import TaskList
from quickstudy.evaluation import Interval, Protocol, Report
from quickstudy.storage.files import write_atomically

__all__ = ["CellStore"]

# of the files; part of every key, so that another version never reads them wrongly
_FORMAT = 1


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
        about: dict[str, Any] = {
            "format": _FORMAT,
            "learner": one.fingerprint,
            "tasks": named,
        }
        if not isinstance(tasks.spec.n_way, int):
            # version of the bootstrap over classes: version 1 gave tasks of few classes less weight
            about["class bootstrap"] = 2
        folder = Path(tasks.data)
        if folder.is_dir():  # the user's own pictures may change, and their scores with them
            files = sorted(path for path in folder.rglob("*") if path.is_file())
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
            "calibration_error": report.calibration_error,
            "seconds": report.seconds,
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        }
        write_atomically(self.folder / f"{key}.npy", buffer.getvalue())
        # written last: without this file a cell counts as missing
        write_atomically(self.folder / f"{key}.json", json.dumps(about, indent=1).encode())

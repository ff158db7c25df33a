"""The log of a run: JSON lines, and TensorBoard if asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from quickstudy.core import CheckpointError, MissingExtraError
from quickstudy.storage.files import write_atomically

__all__ = ["RunLog", "read_log"]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, without those that are damaged or were cut short by a crash.

    Raises:
        CheckpointError: if the file cannot be read at all.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}. Move it away, then resume."
        ) from error
    lines = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            lines.append(entry)
    return lines


class RunLog:
    """Appends one JSON object per line to a file; numbers also go to TensorBoard.

    Args:
        folder: of the run; ``None`` = the lines are kept in memory only.
        name: of the file.
        from_step: lines of later steps are dropped first, because a resumed run writes them again.
        tensorboard: also write event files into ``folder/tensorboard``.

    Raises:
        MissingExtraError: if TensorBoard is asked for and not installed.
        CheckpointError: if the log cannot be written.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        name: str = "log.jsonl",
        from_step: int = 0,
        tensorboard: bool = False,
    ) -> None:
        self._path = folder / name if folder else None
        self.lines: list[dict[str, Any]] = []
        self._board: Any = None
        if self._path is not None:
            self.lines = [e for e in read_log(self._path) if e["step"] <= from_step]
            text = "".join(json.dumps(entry) + "\n" for entry in self.lines)
            write_atomically(self._path, text.encode())
        if tensorboard and folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError("tensorboard", "tensorboard") from error
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)

    def write(self, entry: dict[str, Any]) -> None:
        """Append one line; it must have a ``step``."""
        self.lines.append(entry)
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            except OSError as error:
                raise CheckpointError(
                    f"cannot write {self._path}: {error.strerror}. Free some space, then resume."
                ) from error
        if self._board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, entry["step"])

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._board is not None:
            self._board.close()

"""Embeds inputs so that one that cannot be used does not cost the others their answers."""

from __future__ import annotations

import re

import numpy as np
from tqdm import tqdm

from quickstudy.core import DataError
from quickstudy.core.words import printable
from quickstudy.estimators.support import Floats
from quickstudy.estimators.version import TaskVersion
from quickstudy.tasks.labelled import LabelledFiles

__all__ = ["embed_each"]

_AT_ONCE = {"image": 64}  # images in memory; a longer part is also shown on the bar less often
_AT_ONCE_ELSE = 1024
_ROWS_TRIED = 64  # if none of so many can be used, for one reason, the table is at fault
_ROW = re.compile(r"^row \d+(?: \(.*?\))?[:,] ", re.DOTALL)


def embed_each(
    version: TaskVersion, read: LabelledFiles
) -> tuple[Floats, list[int], dict[int, str]]:
    """Return embeddings of the inputs that can be used; a bar on a terminal shows the progress.

    Args:
        version: of the task.
        read: the inputs.

    Returns:
        Embeddings ``[K, D]``, the positions of these inputs, and by position the reason for each
        of the others.

    Raises:
        DataError: if no row of a table can be used, all for the same reason.
    """
    n = len(read.names)
    step = _AT_ONCE.get(read.kind, _AT_ONCE_ELSE)
    # last in, first out: parts are done in order
    waiting = [list(range(at, min(at + step, n))) for at in range(0, n, step)][::-1]
    parts: list[Floats] = []
    good: list[int] = []
    errors: dict[int, str] = {}
    with tqdm(total=n, desc="classifying", delay=2, disable=None, leave=False) as bar:
        while waiting:
            rows = waiting.pop()
            try:
                z = version.embed(read.take(rows).x)
            except DataError as error:
                if read.kind == "table" and not good and not errors:
                    _refuse_table(version, read)
                if len(rows) > 1:  # one of them cannot be used: halves find out which
                    half = len(rows) // 2
                    waiting += [rows[half:], rows[:half]]
                    continue
                errors[rows[0]] = _reason(error)
            else:
                parts.append(z)
                good += rows
            bar.update(len(rows))
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32), good, errors


def _refuse_table(version: TaskVersion, read: LabelledFiles) -> None:
    """Raise the error that rows from all over a table have in common, if all of them have it.

    A column that is not there is the fault of the table, and said once.
    """
    n = len(read.names)
    reasons = set()
    for row in sorted({int(at) for at in np.linspace(0, n - 1, min(n, _ROWS_TRIED))}):
        try:
            version.embed(read.take([row]).x)
        except DataError as error:
            reasons.add(_reason(error))
        else:
            return
    if n > 1 and len(reasons) == 1:
        raise DataError(reasons.pop())


def _reason(error: DataError) -> str:
    """Return what an error says of one input, without the number of the row."""
    return _ROW.sub("", printable(str(error)))

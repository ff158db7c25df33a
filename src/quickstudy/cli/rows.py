"""Writes answers to files, beside the columns of the table that they are for: ``predict --out``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy.core import ConfigError
from quickstudy.core.words import printable
from quickstudy.storage.files import write_atomically

if TYPE_CHECKING:
    from quickstudy.estimators.file_answers import FileAnswers

__all__ = ["ENDINGS", "answer_columns", "beside", "check_ending", "write_columns"]

ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")

_OURS_ON_COLLISION = "predicted_"


def check_ending(path: Path, option: str) -> Path:
    """Return the path, if its ending is that of a table that can be written.

    Raises:
        ConfigError: if it is another.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"{option} {path} must end in .csv, .jsonl or .parquet; got {path.suffix!r}."
        )
    return path


def answer_columns(found: FileAnswers, *, every_class: bool = False) -> dict[str, list[Any]]:
    """Return the answers as columns, every one as long as there are inputs.

    Args:
        found: the answers.
        every_class: add a column ``probability_CLASS`` for each class, in place of ``top_1`` ...
    """
    rows = found.rows()
    names = ["input", "label", "nearest", "probability", "known", "error"]
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    if any("set" in row for row in rows):
        columns["set"] = [
            " | ".join(map(str, row["set"])) if "set" in row else None for row in rows
        ]
    if every_class and found.probabilities is not None:
        for c, label in enumerate(found.classes):
            p = found.probabilities[:, c]
            columns[_free(f"probability_{label}", columns)] = [
                None if answer is None else round(float(value), 4)
                for value, answer in zip(p, found.answers, strict=True)
            ]
    elif found.top:
        for place in range(min(found.top, len(found.classes))):
            best = [row["top"][place] if "top" in row else {} for row in rows]
            columns[f"top_{place + 1}"] = [one.get("label") for one in best]
            columns[f"top_{place + 1}_probability"] = [one.get("probability") for one in best]
    return columns


def beside(
    original: Mapping[str, Sequence[Any]], ours: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """Return the columns of the user's table, and after them ours.

    A column of ours whose name is taken gets ``predicted_`` before it.
    """
    columns = {name: list(values) for name, values in original.items()}
    for name, values in ours.items():
        free = name if name not in columns else _free(f"{_OURS_ON_COLLISION}{name}", columns)
        columns[free] = list(values)
    return columns


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name, with a number if it is taken."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a table as CSV, JSON lines or Parquet, by the ending of ``path``.

    A column whose values have several types becomes one of texts where the format needs one type.

    Args:
        path: the file.
        columns: of the same length, by name.

    Raises:
        ConfigError: if the ending is another.
        CheckpointError: if the file cannot be written.
    """
    check_ending(path, "the file")
    clean = {_clean(name): [_clean(v) for v in values] for name, values in columns.items()}
    ending = path.suffix.lower()
    if ending == ".parquet":
        write_atomically(path, _parquet(clean))
        return
    rows = zip(*clean.values(), strict=True)
    text = io.StringIO()
    if ending == ".csv":
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(clean)
        writer.writerows([_cell(value) for value in row] for row in rows)
    else:
        for row in rows:
            record = dict(zip(clean, row, strict=True))
            text.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    write_atomically(path, text.getvalue().encode())


def _parquet(columns: Mapping[str, list[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pa_parquet

    arrays = []
    for values in columns.values():
        try:
            # True is no number here, though pyarrow takes it for one beside numbers
            kinds = {type(value) for value in values if value is not None}
            if bool in kinds and len(kinds) > 1:
                raise pa.ArrowInvalid("truth values beside others")
            arrays.append(pa.array(values))
        except (pa.ArrowException, OverflowError):
            arrays.append(pa.array([None if v is None else str(_cell(v)) for v in values]))
    buffer = io.BytesIO()
    pa_parquet.write_table(pa.table(arrays, names=list(columns)), buffer)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    """Return a value as a cell of a CSV: nothing for ``None``, and ``true`` as other programs."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _clean(value: Any) -> Any:
    """Return a text without what no file can hold."""
    return printable(value) if isinstance(value, str) else value

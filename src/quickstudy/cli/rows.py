"""Writes records to files, for ``predict --out``."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError
from quickstudy.storage.files import write_atomically

__all__ = ["write_rows"]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write records as CSV, JSON lines or Parquet, by the ending of ``path``.

    Args:
        path: the file.
        rows: records with the same keys.

    Raises:
        ConfigError: if the ending is another.
        CheckpointError: if the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pa_parquet

    ending = path.suffix.lower()
    buffer = io.BytesIO()
    if ending in (".jsonl", ".ndjson"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        buffer.write(text.encode())
    elif ending == ".parquet":
        pa_parquet.write_table(pa.Table.from_pylist(list(rows)), buffer)
    elif ending == ".csv":
        pa_csv.write_csv(pa.Table.from_pylist(list(rows)), buffer)
    else:
        raise ConfigError(f"{path} must end in .csv, .jsonl or .parquet; got {ending!r}.")
    write_atomically(path, buffer.getvalue())

"""Pools from Parquet files of images in the Hugging Face Hub's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.core import DataError, nearest_names
from quickstudy.tasks.images import decode_many
from quickstudy.tasks.pool import Pool

__all__ = ["pool_from_parquet"]


def pool_from_parquet(
    path: str | Path,
    *,
    size: int = 84,
    channels: int = 3,
    invert: bool = False,
    image: str = "image",
    label: str = "label",
    group: str | Sequence[str] | None = None,
    where: Mapping[str, str] | None = None,
    name: str | None = None,
    split: str = "all",
    on_error: str = "raise",
) -> Pool:
    """Return a pool from a Parquet file with encoded images and labels.

    Args:
        path: the file. Its image column is a struct of ``bytes`` and ``path`` as the Hugging Face
            Hub stores it, or plain binary.
        size: height and width of the images in pixels.
        channels: 1 (grey) or 3 (RGB).
        invert: whether to swap dark and bright, for ink on paper.
        image: name of the column of images.
        label: name of the column of labels: text, whole numbers, or a Hugging Face ``ClassLabel``
            whose names stand in the file's metadata.
        group: name of the column of groups (drawer, track or the like); with several columns, equal
            values in all of them mean one group.
        where: keep only rows in which each of these columns has this value.
        name: data set for reports; the file's name by default.
        split: which part of the data set this is.
        on_error: ``"raise"`` or ``"skip"``, for images that cannot be read.

    Returns:
        Pool with ``x`` uint8 ``[M, channels, size, size]``.

    Raises:
        DataError: if the file or an image cannot be read, a column is missing, a label is empty or
            no row is left.
    """
    source = Path(path)
    where = dict(where or {})
    groups = [group] if isinstance(group, str) else list(group or ())
    table = _read(source, image, [label, *groups, *where])
    names = _class_label_names(table.schema, label)
    columns = {c: table.column(c).to_pylist() for c in {label, *groups, *where}}
    rows = _matching_rows(source, columns, where, table.num_rows)
    labels = [_label_text(columns[label][row], names, f"{source}, row {row}") for row in rows]
    encoded = _image_bytes(source, table.column(image).take(pa.array(rows, pa.int64())), rows)
    x, kept = decode_many(
        [(f"{source}, row {row}", data) for row, data in zip(rows, encoded, strict=True)],
        size=size,
        channels=channels,
        invert=invert,
        label=f"decoding {name or source.stem}",
        on_error=on_error,
    )
    group_values = [tuple(columns[g][rows[i]] for g in groups) for i in kept] if groups else None
    return Pool.build(
        x,
        [labels[i] for i in kept],
        name=name or source.stem,
        split=split,
        groups=None if group_values is None else ["/".join(map(str, v)) for v in group_values],
    )


def _read(source: Path, image: str, columns: Sequence[str]) -> Any:
    """Return the table with the columns that are needed."""
    if not source.is_file():
        raise DataError(f"{source}: there is no such file. Check the path.")
    try:
        with pq.ParquetFile(source) as file:
            known = list(file.schema_arrow.names)
            for column in (image, *columns):
                if column not in known:
                    raise DataError(
                        f"{source}: there is no column {column!r}. {nearest_names(column, known)}"
                    )
            return file.read(columns=list(dict.fromkeys((image, *columns))))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{source}: cannot be read as Parquet ({reason}). Copy or download it again."
        ) from error


def _class_label_names(schema: Any, label: str) -> list[str] | None:
    """Return the names of a Hugging Face ``ClassLabel``, or ``None`` if the metadata has none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(n) for n in names] if isinstance(names, list) else None


def _matching_rows(
    source: Path, columns: Mapping[str, list[Any]], where: Mapping[str, str], n_rows: int
) -> list[int]:
    """Return the numbers of the rows in which each column of ``where`` has its value."""
    rows = list(range(n_rows))
    for column, value in where.items():
        values = columns[column]
        kept = [row for row in rows if str(values[row]) == value]
        if not kept:
            present = sorted({str(values[row]) for row in rows})[:20]
            raise DataError(
                f"{source}: no row has {column} = {value!r}. {nearest_names(value, present)}"
            )
        rows = kept
    if not rows:
        raise DataError(f"{source}: the file has no rows. Give one row per image.")
    return rows


def _label_text(value: object, names: list[str] | None, what: str) -> str:
    """Return a label as text: ``3`` and ``3.0`` are the same class."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, float) and value != value):
        raise DataError(f"{what}: the label is empty. Fill it in or drop the row.")
    if names is None or not isinstance(value, int):
        return str(value)
    if not 0 <= value < len(names):
        raise DataError(
            f"{what}: the label {value} has no name; the file's metadata names {len(names)} "
            "classes. Drop the row (-1 marks an unlabelled one) or repair the metadata."
        )
    return names[value]


def _image_bytes(source: Path, column: Any, rows: Sequence[int]) -> list[bytes]:
    """Return the encoded image of each row."""
    kind = column.type
    if pa.types.is_struct(kind):
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        if "bytes" not in fields:
            raise DataError(
                f"{source}: the image column is a struct of {fields}; 'bytes' is needed. Write it "
                "in the Hugging Face layout: struct(bytes, path)."
            )
        values = pa.chunked_array(
            [chunk.field("bytes") for chunk in column.chunks], type=kind.field("bytes").type
        ).to_pylist()
        # field() ignores that a struct itself may be null, and its fields may still hold bytes
        values = [
            v if ok else None for v, ok in zip(values, column.is_valid().to_pylist(), strict=True)
        ]
    else:
        values = column.to_pylist()
    for row, value in zip(rows, values, strict=True):
        if not isinstance(value, bytes):
            raise DataError(
                f"{source}, row {row}: the image is {type(value).__name__}, not bytes. Embed the "
                "encoded images in the file, not their paths or pixels."
            )
    return list(values)

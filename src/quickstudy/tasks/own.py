"""Data of one's own to train and judge on: a folder of images, a table, or a file of arrays.

A pool is read from it, and the part (``train``, ``val``, ``test``) that the data names for each
example: by folders of these names, a column ``split``, or an array ``split``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.core import ConfigError, DataError, nearest_names, uniforms
from quickstudy.core.arguments import checked
from quickstudy.tables.cells import is_empty
from quickstudy.tables.read import TABLES, Table, read_table
from quickstudy.tasks.arrays import pool_from_arrays
from quickstudy.tasks.catalogue import DATASETS
from quickstudy.tasks.folders import find_images, is_folder, read_folder, split_folders
from quickstudy.tasks.images import decode_many
from quickstudy.tasks.labelled import read_examples
from quickstudy.tasks.pool import Pool
from quickstudy.tasks.roles import LABEL_COLUMNS, find_label, tells_part

__all__ = ["PARTS", "OwnData", "draw_parts", "is_own", "own_path", "read_own"]

PARTS = ("train", "val", "test")
"""The parts of a data set, as they are called here."""

_PART_NAMES = {
    **dict.fromkeys(("train", "training", "background"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "evaluation"), "test"),
}
_ARRAYS = ".npz"
_SPLIT = "split"
# names the random stream that draws parts; no sampler uses this number for one of its streams
_PART_STREAM = 111
# of the classes, for validation and for the test; at least two, as a task has two
_HELD_OUT_SHARE, _FEWEST = 0.2, 2


@dataclass(frozen=True, slots=True)
class OwnData:
    """What was read of a user's own data.

    Args:
        pool: all examples.
        parts: of each row of the pool, ``"train"``, ``"val"`` or ``"test"``; ``None`` if the data
            names no parts.
        notes: sentences on what was left out.

    Example::

        found = read_own("photos", size=32)
        found.pool.class_names, found.classes()
    """

    pool: Pool
    parts: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def classes(self) -> dict[str, tuple[str, ...]]:
        """Return the classes of each part that the data names; empty if it names none.

        Raises:
            DataError: if a class is in two parts.
        """
        found: dict[str, set[str]] = {}
        owner: dict[str, str] = {}
        for part, c in zip(self.parts or (), self.pool.y.tolist(), strict=False):
            name = self.pool.class_names[c]
            found.setdefault(part, set()).add(name)
            if (other := owner.setdefault(name, part)) != part:
                raise DataError(
                    f"{self.pool.name}: class {name!r} is in {other} and in {part}. Parts must "
                    "share no class: a run is judged on classes that it has not seen. Move its "
                    "examples into one part, or set data.files.draw=true: all classes are then "
                    "divided anew."
                )
        return {part: tuple(sorted(found[part])) for part in PARTS if part in found}

    def by_part(self) -> dict[str, Pool]:
        """Return the examples of each part, or all of them as ``"all"`` if there are no parts.

        Unlike :meth:`classes` this takes parts that share classes, which a check is to find.
        """
        if self.parts is None:
            return {"all": self.pool}
        of = np.array(self.parts)
        x, y, names = self.pool.x, self.pool.y, self.pool.class_names
        return {
            part: Pool.build(
                x[torch.from_numpy(rows)],
                [names[c] for c in y[torch.from_numpy(rows)].tolist()],
                name=self.pool.name,
                split=part,
            )
            for part in PARTS
            if len(rows := np.flatnonzero(of == part))
        }

    def select(self, classes: Sequence[str], *, split: str) -> Pool:
        """Return the examples of some classes.

        Args:
            classes: their names.
            split: name of the part that they are.

        Raises:
            DataError: if a class is not there.
        """
        place = {name: i for i, name in enumerate(self.pool.class_names)}
        if missing := sorted(set(classes) - place.keys()):
            raise DataError(
                f"{self.pool.name}: {len(missing)} of the {len(classes)} classes of {split} are "
                f"not there any more (first: {missing[0]!r}). Put them back, or begin another run."
            )
        return self.pool.select([place[name] for name in classes], split=split)


@checked
def is_own(data: str) -> bool:
    """Return whether a text means data of one's own on disk, not a named data set."""
    if is_folder(data):
        return True
    ending = Path(data).suffix.lower()
    return data not in DATASETS and (ending in (*TABLES, _ARRAYS) or os.path.lexists(data))


@checked
def own_path(data: str) -> str:
    """Return the absolute path of data of one's own, by which a run remembers it.

    Raises:
        DataError: if its links go round in a circle.
    """
    try:
        return str(Path(data).expanduser().resolve())
    except (OSError, RuntimeError) as error:  # Python 3.11 says RuntimeError of a circle
        raise DataError(f"{data}: the link leads nowhere but to itself. Check the path.") from error


@checked
def read_own(
    path: str | Path,
    *,
    size: int = 84,
    channels: int = 3,
    label: str | None = None,
    column: str | None = None,
) -> OwnData:
    """Read a folder of images, a table, or a file of arrays.

    * A folder: a folder of images for each class, or ``train/``, ``val/``, ``test/`` with such.
    * A table (CSV, TSV, JSON lines, Parquet): a column of labels and one of images (paths, or the
      Hub's ``image`` struct), one of embeddings (lists of numbers), or columns of numbers. A column
      ``split`` names the part of each row.
    * A NumPy file ``.npz``: ``X`` ``[M, D]`` or images ``[M, H, W]``, ``[M, H, W, C]`` or
      ``[M, C, H, W]``, labels ``y`` ``[M]``, and perhaps ``split`` ``[M]``.

    Args:
        path: of the folder or file.
        size: side in pixels to which images are resized.
        channels: of images, 1 (grey) or 3 (colour).
        label: name of the column of labels; found by its usual names if not given.
        column: name of the column of embeddings; the only one of lists if not given.

    Raises:
        DataError: if there is nothing to read there, or it holds no labelled examples.
        ConfigError: if a column is not there.
    """
    source = Path(own_path(os.fspath(path)))
    if not source.exists():
        raise DataError(f"{path}: there is no such file or folder. Check the path.")
    return _read(source, size, channels, label, column, _signature(source))


@lru_cache(maxsize=1)
def _read(
    source: Path,
    size: int,
    channels: int,
    label: str | None,
    column: str | None,
    signature: object,
) -> OwnData:
    """Read data that has not changed since: training asks for each of its parts."""
    del signature
    ending = source.suffix.lower()
    if source.is_dir():
        if label is not None or column is not None:
            raise ConfigError(
                f"{source} is a folder and has no columns: its folders are the classes. Leave "
                "data.files.label and data.files.column out."
            )
        return _from_folder(source, size, channels)
    if ending == _ARRAYS:
        return _from_npz(source, size, channels)
    if not source.is_file() or ending not in TABLES:
        raise DataError(
            f"{source}: is no folder of images, table ({', '.join(TABLES)}) or file of arrays "
            f"({_ARRAYS}). Give one of these."
        )
    return _from_table(source, size, channels, label, column)


def _signature(source: Path) -> object:
    """Return what changes when the data does."""
    files = [source / name for name in find_images(source)[0]] if source.is_dir() else [source]
    stats = [file.stat() for file in files if file.exists()]
    return len(files), hash(tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in stats))


def _from_folder(root: Path, size: int, channels: int) -> OwnData:
    """Read class folders, or parts that hold class folders."""
    folders = split_folders(root)
    x, labels, parts, notes = list[Tensor](), list[str](), list[str](), list[str]()
    for part, folder in (folders or {"": root}).items():
        read = read_folder(folder, size=size, channels=channels, name=root.name or "folder")
        x.append(read.pool.x)
        labels += [read.pool.class_names[c] for c in read.pool.y.tolist()]
        parts += [_PART_NAMES.get(part, part)] * len(read.pool.y)
        if read.note:
            notes.append(f"{folder.name}: {read.note}" if folders else read.note)
    return _own(torch.cat(x), labels, parts if folders else None, root.name or "folder", notes)


def _own(
    x: Tensor,
    labels: Sequence[object],
    parts: Sequence[str] | None,
    name: str,
    notes: Sequence[str] = (),
) -> OwnData:
    """Return the pool of labelled examples, with the part of each row in the pool's order."""
    texts = [str(label) for label in labels]
    pool = Pool.build(x, texts, name=name)
    if parts is None:
        return OwnData(pool, None, tuple(notes))
    order = np.argsort(np.unique(np.array(texts), return_inverse=True)[1], kind="stable")
    return OwnData(pool, tuple(parts[i] for i in order), tuple(notes))


def _from_table(
    source: Path, size: int, channels: int, label: str | None, column: str | None
) -> OwnData:
    """Read a table of images, embeddings or numbers."""
    lists = _list_columns(source)
    if column is not None and column not in lists:
        raise ConfigError(
            f"{source} has no column {column!r} of lists of numbers. "
            + (nearest_names(column, lists) if lists else "It has no such column at all.")
        )
    if len(lists) > 1 and column is None:
        raise ConfigError(
            f"{source} has {len(lists)} columns of lists of numbers: {', '.join(lists)}. Name the "
            "one to learn from with data.files.column."
        )
    if lists:
        return _from_vectors(source, column or lists[0], label)
    _need_label(source, read_table(source), label)
    read = read_examples(source, label=label, every_part=True)
    notes = [read.note] if read.note else []
    if read.roles is not None:
        notes.append(f"{source.name}: {read.roles.text()}.")
    if read.kind == "text":
        raise DataError(
            f"{source} holds texts, and a recipe trains on images or numbers. Embed the texts "
            "first, and give a table with the embeddings in a column of lists."
        )
    if read.kind == "image":
        items = [
            (name, Path(value) if isinstance(value, str) else value)
            for name, value in zip(read.names, read.x, strict=True)
        ]
        x, _ = decode_many(items, size=size, channels=channels, label=f"decoding {source.stem}")
    else:
        x = _numbers(read.x)
    return _own(x, read.y or [], _parts_of(read.columns, source), source.stem, notes)


def _need_label(source: Path, table: Table, label: str | None) -> str:
    """Return the name of the column of labels."""
    wanted = find_label(table, label)
    if wanted is None:
        raise ConfigError(
            f"{source} has no column of labels (looked for {', '.join(LABEL_COLUMNS)}; it has "
            f"{', '.join(map(repr, table.names[:8]))}). Name it with data.files.label."
        )
    return wanted


def _list_columns(source: Path) -> list[str]:
    """Return the columns of a Parquet file that hold lists of numbers."""
    if source.suffix.lower() != ".parquet":
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(source)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{source}: cannot be read as Parquet ({reason}). Check it.") from error
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return [
        field.name
        for field in schema
        if any(is_kind(field.type) for is_kind in kinds)
        and (
            pa.types.is_floating(field.type.value_type)
            or pa.types.is_integer(field.type.value_type)
        )
    ]


def _from_vectors(source: Path, column: str, label: str | None) -> OwnData:
    """Read the embeddings in a column of lists, and the labels beside them."""
    table = read_table(source)
    wanted = _need_label(source, table, label)
    labels = table.columns[wanted]
    length = 0
    for where, row, value in zip(table.rows, table.columns[column], labels, strict=True):
        if is_empty(value):
            raise DataError(f"{where}: there is no label in {wanted!r}. Fill it in.")
        length = length or len(row or ())
        if row is None or not len(row) or len(row) != length or any(one is None for one in row):
            raise DataError(
                f"{where}: {column!r} must be a list of {length} numbers, as in the rows before. "
                "Fill it in, or leave the row out."
            )
    x = torch.from_numpy(np.array([list(row) for row in table.columns[column]], np.float32))
    splits = {n: cells for n, cells in table.columns.items() if tells_part(n)}
    said = f"{source.name}: label: column {wanted!r}; input: the lists in column {column!r}."
    return _own(x, labels, _parts_of(splits, source), source.stem, [said])


def _numbers(table: Table) -> Tensor:
    """Return columns of numbers as float32 ``[M, D]``."""
    columns = table.values()
    for name, values in columns.items():
        for where, value in zip(table.rows, values, strict=True):
            if not isinstance(value, (int, float)) or value != value:
                raise DataError(
                    f"{where}: {value!r} in {name!r} is no number. Encode the column as numbers, "
                    "fill it in, or leave it out."
                )
    return torch.from_numpy(np.array(list(columns.values()), np.float32).T.copy())


def _parts_of(columns: Mapping[str, Sequence[Any]], source: Path) -> list[str] | None:
    """Return the part of each row that a column ``split`` names, or ``None``."""
    name = next((n for n in columns if tells_part(n)), None)
    return None if name is None else _parts(columns[name], f"{source}: {name!r}")


def _parts(values: Sequence[Any], what: str) -> list[str] | None:
    """Return parts by the names that we have for them; ``None`` if all rows are of one part."""
    given = [str(value).strip().lower() for value in values]
    if odd := sorted(set(given) - _PART_NAMES.keys() - {"all"}):
        raise DataError(
            f"{what} names the part {odd[0]!r}. A part is train, val or test; rename it, or "
            "rename the column if it means something else."
        )
    parts = [_PART_NAMES.get(value, "all") for value in given]
    if len(set(parts)) == 1:
        return None
    if "all" in parts:
        raise DataError(f"{what} names the part 'all' beside others. Name train, val or test.")
    return parts


def _from_npz(source: Path, size: int, channels: int) -> OwnData:
    """Read the arrays ``X``, ``y`` and perhaps ``split`` of a NumPy file, which runs no code."""
    try:
        # opened here: numpy leaves a damaged file open
        with source.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name.lower(): file[name] for name in file.files}
    except Exception as error:  # numpy, zipfile and zlib each raise their own
        reason = str(error).split(".")[0]
        if "allow_pickle" in reason:  # numpy's advice, which would run code of the file
            reason = "it holds Python objects"
        raise DataError(
            f"{source}: cannot be read as arrays ({reason}). Write it with np.savez(path, X=X, "
            "y=y), with numbers or texts in both."
        ) from error
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise DataError(
            f"{source}: there is no array {missing[0]!r}; it holds {', '.join(arrays) or 'none'}. "
            "Write it with np.savez(path, X=X, y=y)."
        )
    pool = pool_from_arrays(arrays["x"], arrays["y"], name=source.stem)
    split = arrays.get(_SPLIT)
    if split is not None and split.shape != (len(arrays["y"]),):
        raise DataError(f"{source}: split has shape {list(split.shape)}; it needs one per row.")
    del size, channels  # images are fitted to the encoder afterwards
    if split is None:
        return OwnData(pool)
    parts = _parts(split.tolist(), f"{source}: split")
    texts = np.array([str(value) for value in arrays["y"].tolist()])
    order = np.argsort(np.unique(texts, return_inverse=True)[1], kind="stable")
    return OwnData(pool, None if parts is None else tuple(parts[i] for i in order))


@checked
def draw_parts(
    found: Mapping[str, Sequence[str]], classes: Sequence[str], *, seed: int, name: str
) -> dict[str, tuple[str, ...]]:
    """Return the classes of every part; those that the data does not name are drawn.

    Without any parts a fifth of the classes is drawn for validation and a fifth for the test. A
    missing validation part is drawn from the training classes.

    Args:
        found: classes of the parts that the data names; may be empty.
        classes: names of all classes.
        seed: of the draw.
        name: of the data, for errors.

    Raises:
        DataError: if there are too few classes, or no training part.
    """
    parts = {part: tuple(sorted(names)) for part, names in found.items()}
    if parts and "train" not in parts:
        raise DataError(
            f"{name}: names the parts {', '.join(parts)}, and none is train. Name one train, or "
            "set data.files.draw=true to divide all classes anew."
        )
    wanted = [
        part for part in ("test", "val") if part not in parts and (part == "val" or not parts)
    ]
    rest = sorted(parts.get("train", classes))
    size = max(_FEWEST, round(_HELD_OUT_SHARE * len(rest)))
    if len(rest) - size * len(wanted) < _FEWEST:
        raise DataError(
            f"{name}: {len(rest)} classes are too few to divide into {len(wanted) + 1} parts of "
            f"{_FEWEST} or more. Add classes."
        )
    order = np.argsort(uniforms(seed, _PART_STREAM, np.arange(len(rest))), kind="stable")
    shuffled = [rest[i] for i in order]
    for part in wanted:
        parts[part] = tuple(sorted(shuffled[:size]))
        shuffled = shuffled[size:]
    parts["train"] = tuple(sorted(shuffled))
    return {part: parts[part] for part in PARTS if part in parts}

"""Saves a version of a task as a task file, and loads it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from quickstudy.core import CheckpointError, ConfigError, DataError, MissingExtraError
from quickstudy.embedders.base import Embedder, Item
from quickstudy.embedders.choose import get_embedder
from quickstudy.embedders.tables import TableEmbedder, TableRow
from quickstudy.estimators.given import answer_for_strangers
from quickstudy.estimators.history import MOST_UNDONE, History, Past
from quickstudy.estimators.labels import Label
from quickstudy.estimators.schema import (
    About,
    AboutExample,
    AboutPast,
    AboutUndo,
    check_answers,
    check_arrays,
    check_prior,
    words_of,
)
from quickstudy.estimators.support import Support, tensor_of
from quickstudy.estimators.taskfile import TaskFile, label_to_json, read_task, write_task
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.prior import TaskPrior
from quickstudy.tasks.roles import Roles

__all__ = ["SavedTask", "load_task", "save_task"]

_Part = TypeVar("_Part", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SavedTask:
    """What a task file contains.

    Args:
        version: the task.
        encoder: what the embedder was made of: a name, or what the user gave.
        unknown: the label of inputs that are too far from every class, or ``None``.
        false_rejects: share of the inputs of known classes that may be taken for unknown.
        history: what the task was before its last edits, if the file tells.
        roles: what the columns of the table were taken for, if it was learned from one.

    Example::

        from quickstudy.estimators.saving import load_task
        clf = FewShotClassifier("table").fit([[1.0, 2.0], [8.0, 9.0]], ["small", "large"])
        clf.save("sizes.task")
        saved = load_task(Path("sizes.task"))
        print(saved.version, saved.encoder, saved.unknown, saved.false_rejects)
    """

    version: TaskVersion
    encoder: Any
    unknown: Label | None
    false_rejects: float
    history: History = field(default_factory=History)
    roles: Roles | None = None


def save_task(
    version: TaskVersion,
    path: Path,
    *,
    unknown: Label | None = None,
    false_rejects: float = 0.05,
    history: History | None = None,
    roles: Roles | None = None,
) -> None:
    """Write one version of a task, with the settings that its answers depend on.

    Args:
        version: the task.
        path: the file.
        unknown: the label of inputs that are too far from every class.
        false_rejects: share of the inputs of known classes that may be taken for unknown.
        history: of the task, to undo edits later; ``None`` = none is written, and examples that
            were removed are in no part of the file.
        roles: what the columns of the table were taken for, if it was learned from one.

    Raises:
        CheckpointError: if the file cannot be written, or a label is of a type that it cannot
            contain.
    """
    support = version.support
    about_prior, prior_tensors = version.prior.to_parts()
    about: dict[str, Any] = {
        "embedder": version.embedder.config(),
        "settings": {
            "head": version.head,
            "unknown": None if unknown is None else label_to_json(unknown),
            "false_rejects": float(false_rejects),
        },
        "classes": [label_to_json(label) for label in support.classes],
        "examples": [_example_to_json(item) for item in support.items],
        "prior": about_prior,
    }
    if version.n_features is not None:
        about["n_features"] = version.n_features
    if roles is not None:
        about["columns"] = roles.to_dict()
    previews = {
        row: item.preview
        for row, item in enumerate(support.items)
        if isinstance(item.preview, bytes)
    }
    tensors = {"z": tensor_of(support.z), "y": tensor_of(support.y)}
    undo, undo_tensors = None, None
    if history is not None and (history.past or history.forgotten):
        undo, undo_tensors = _history_to_parts(history, support)
    write_task(path, TaskFile(about, tensors, prior_tensors, previews, undo, undo_tensors))


def _example_to_json(item: Item) -> dict[str, Any]:
    """Return the record of an example; its picture is a member of its own."""
    # the cells of a table's row: the table is scaled again whenever the task is edited
    row = list(item.value.values) if isinstance(item.value, TableRow) else None
    text = item.preview if isinstance(item.preview, str) else None
    found = {"key": item.key, "source": item.source, "text": text, "row": row}
    return found if item.group is None else found | {"group": item.group}


def _history_to_parts(
    history: History, support: Support
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return JSON and tensors of a history; what a task shares with the next one is a row of it.

    Args:
        history: of the task.
        support: of the task now.
    """
    tensors: dict[str, torch.Tensor] = {}
    records = []
    later = [*(past.items for past in history.past), support.items][1:]
    for number, (past, items) in enumerate(zip(history.past, later, strict=True)):
        shared = [row if row >= 0 else None for row in past.rows.tolist()]
        if past.rows.size and not len(past.z) and (past.rows < 0).all():
            # the embedder is fitted: examples are embedded again, and only they are shared
            row_of = {id(item): row for row, item in enumerate(items)}
            shared = [row_of.get(id(item)) for item in past.items]
        examples: list[Any] = []
        for item, row in zip(past.items, shared, strict=True):
            record: Any = row
            if record is None:
                png = item.preview if isinstance(item.preview, bytes) else None
                text = None if png is None else base64.b64encode(png).decode()
                record = _example_to_json(item) | {"png": text}
            examples.append(record)
        records.append(
            {
                "what": past.what,
                "head": past.head,
                "n_features": past.n_features,
                "classes": [label_to_json(label) for label in past.classes],
                "examples": examples,
            }
        )
        tensors[f"{number}.y"] = tensor_of(past.y).clone()
        alone = [item for item, row in zip(past.items, shared, strict=True) if row is None]
        z = past.z
        if alone and isinstance(alone[0].value, np.ndarray):  # embeddings that the user gave
            z = np.stack([item.value for item in alone]).astype(np.float32)
        tensors[f"{number}.z"] = tensor_of(z).clone()
    return {"forgotten": history.forgotten, "past": records}, tensors


def load_task(path: Path, *, encoder: Any = None, device: str = "auto") -> SavedTask:
    """Return what :func:`save_task` wrote.

    Args:
        path: the file.
        encoder: the callable or module that the task was made with, which no file can contain.
        device: where to embed.

    Raises:
        CheckpointError: if the file is damaged, altered, no task file or made by a newer version,
            or the encoder is not the one that the task was made with.
        MissingExtraError: if the encoder needs a package that is not installed.
    """
    task = read_task(path)
    try:
        about = _checked(About, task.about)
        embedder = _embedder(path, dict(about.embedder), encoder, device)
        support = _support(task, about, embedder)
        prior = TaskPrior.from_parts(about.prior, task.prior)
        check_prior(prior, support.z.shape[1])
        made = TaskVersion.learn(support, embedder, prior, head=about.settings.head)
        check_answers(made.task, support.z)
        history = _history(task, support, embedder)
        unknown = answer_for_strangers(about.settings.unknown, support.classes)
        roles = None if about.columns is None else Roles.from_dict(about.columns)
    except (CheckpointError, MissingExtraError):
        raise
    except Exception as error:  # whatever a wrong file makes stumble, the file is at fault
        why = str(error).rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"{path} does not hold a whole task ({why[:200]}). Use another copy, or make it again "
            "with fit."
        ) from error
    return SavedTask(
        replace(made, n_features=about.n_features),
        encoder if encoder is not None else about.embedder["encoder"],
        unknown,
        about.settings.false_rejects,
        history,
        roles,
    )


def _checked(kind: type[_Part], value: Any) -> _Part:
    """Return a part of the file.

    Raises:
        ValueError: if something is missing or of another type.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ValueError(words_of(error)) from None


def _support(task: TaskFile, about: About, embedder: Embedder) -> Support:
    """Return the examples of a task file.

    Raises:
        KeyError, ValueError, DataError: if something is missing or does not fit.
    """
    n = len(about.examples)
    z, y = check_arrays(about.classes, n, task.support["z"], task.support["y"])
    if any(row >= n for row in task.previews):
        raise ValueError("there is a picture of no example")
    with contextlib.suppress(ConfigError):  # a function has a width only once it has run
        if z.shape[1] != embedder.dim:
            raise ValueError(f"embeddings of {z.shape[1]} numbers; {embedder.dim} are made")
    items = [
        _item(example, embedder, z[row], task.previews.get(row))
        for row, example in enumerate(about.examples)
    ]
    support = Support(tuple(about.classes), tuple(items), y, z)
    if embedder.fitted:
        embedder.fit(items).embed(items)  # as the next edit will do
    return support


def _item(example: AboutExample, embedder: Embedder, z: Any, png: bytes | None) -> Item:
    """Return an example, with the value that only fitted embedders need.

    Raises:
        ValueError: if a table's row does not fit its columns.
    """
    value, config = None, embedder.config()
    if isinstance(embedder, TableEmbedder):
        value = _row_from_json(example.row, config)
    elif example.row is not None:
        raise ValueError("there is a row of a table where there is no table")
    elif config.get("encoder") == "array":
        value = z
    preview = example.text if png is None else png
    return Item(value, example.key, example.source, preview, example.group)


def _row_from_json(cells: list[Any] | None, config: dict[str, Any]) -> TableRow:
    """Return the row of a table.

    Raises:
        ValueError: if it does not fit the columns.
    """
    columns = config["columns"] or []
    if cells is None or len(cells) != len(columns):
        raise ValueError(f"a row of the table has not {len(columns)} cells")
    for column, cell in zip(columns, cells, strict=True):
        number = isinstance(cell, int | float) and math.isfinite(cell)
        if not number and (column["categories"] is None or not isinstance(cell, str)):
            raise ValueError(f"a cell of {column['name']!r} is {str(cell)[:60]!r}")
    names = tuple(column["name"] for column in columns)
    kinds = tuple(column.get("kind") for column in columns)
    values: Any = tuple(cells)
    if all(isinstance(cell, float) for cell in cells):
        values = np.array(cells)
    return TableRow(names, values, config["named"], kinds)


def _history(task: TaskFile, support: Support, embedder: Embedder) -> History:
    """Return what a task was before its last edits.

    Raises:
        KeyError, ValueError: if something is missing or does not fit.
    """
    if task.undo is None:
        return History()
    about = _checked(AboutUndo, task.undo)
    if len(about.past) > MOST_UNDONE:
        raise ValueError(f"there are {len(about.past)} edits to undo, at most {MOST_UNDONE}")
    found: list[Past] = []
    later = support.items
    for number in reversed(range(len(about.past))):  # each names rows of the task after it
        y, z = task.undo_tensors[f"{number}.y"], task.undo_tensors[f"{number}.z"]
        past = _past(about.past[number], later, embedder, y, z, width=support.z.shape[1])
        found.append(past)
        later = past.items
    return History(tuple(reversed(found)), about.forgotten)


def _past(
    about: AboutPast,
    later: Sequence[Item],
    embedder: Embedder,
    y: torch.Tensor,
    z: torch.Tensor,
    *,
    width: int,
) -> Past:
    """Return the task before an edit.

    Args:
        about: its record.
        later: the examples of the task after it.
        embedder: of the task.
        y: class of each example.
        z: embeddings that the task after it lacks.
        width: numbers of an embedding.

    Raises:
        ValueError: if something does not fit.
    """
    rows = np.array([e if isinstance(e, int) else -1 for e in about.examples], dtype=np.int64)
    if (rows >= len(later)).any():
        raise ValueError("an edit to undo names an example that is not there")
    own = 0 if isinstance(embedder, TableEmbedder) else int((rows < 0).sum())
    # no embedding has any width
    checked_z = z if own else torch.zeros(0, width, dtype=torch.float32)
    kept, labels = check_arrays(about.classes, len(rows), checked_z, y, rows=own)
    if kept.shape[1] != width:
        raise ValueError(f"an edit to undo has embeddings of {kept.shape[1]} numbers, not {width}")
    items, used = [], 0
    for example in about.examples:
        if isinstance(example, int):
            items.append(later[example])
            continue
        png = None if example.png is None else _picture(example.png)
        value = kept[used] if len(kept) else None
        items.append(_item(example, embedder, value, png))
        used += 1
    if embedder.fitted:  # they are embedded again
        rows, kept = np.full(len(rows), -1, dtype=np.int64), kept[:0]
    return Past(
        about.what,
        about.head,
        tuple(about.classes),
        tuple(items),
        labels,
        rows,
        kept,
        about.n_features,
    )


def _picture(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("a picture to undo is damaged") from error


def _embedder(path: Path, config: dict[str, Any], encoder: Any, device: str) -> Embedder:
    """Return the embedder of a task.

    Raises:
        CheckpointError: if it cannot be made, or is not the one that the task was made with.
    """
    try:
        embedder = get_embedder(config if encoder is None else encoder, device=device)
    except (ConfigError, DataError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if encoder is not None and embedder.fingerprint != config.get("fingerprint"):
        raise CheckpointError(
            f"{path} was made with another encoder than {embedder.name} (fingerprint "
            f"{str(config.get('fingerprint'))[:12]}, not {embedder.fingerprint[:12]}): its "
            "embeddings would not fit the saved ones. Give the one that made it, or fit again."
        )
    return embedder

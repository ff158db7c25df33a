"""Saves a version of a task as a task file, and loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.core import CheckpointError, ConfigError, DataError
from quickstudy.embedders.base import Embedder, Item
from quickstudy.embedders.choose import get_embedder
from quickstudy.embedders.tables import TableRow
from quickstudy.estimators.labels import Label
from quickstudy.estimators.support import Support, tensor_of
from quickstudy.estimators.taskfile import (
    TaskFile,
    label_from_json,
    label_to_json,
    read_task,
    write_task,
)
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.prior import TaskPrior

__all__ = ["SavedTask", "load_task", "save_task"]


@dataclass(frozen=True, slots=True)
class SavedTask:
    """What a task file contains.

    Args:
        version: the task.
        encoder: what the embedder was made of: a name, or what the user gave.
        unknown: the label of inputs that are too far from every class, or ``None``.
        false_rejects: share of the inputs of known classes that may be taken for unknown.

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


def save_task(
    version: TaskVersion, path: Path, *, unknown: Label | None = None, false_rejects: float = 0.05
) -> None:
    """Write one version of a task, with the settings that its answers depend on.

    Args:
        version: the task.
        path: the file.
        unknown: the label of inputs that are too far from every class.
        false_rejects: share of the inputs of known classes that may be taken for unknown.

    Raises:
        CheckpointError: if the file cannot be written, or a label is of a type that it cannot
            contain.
    """
    support = version.support
    about_prior, prior_tensors = version.prior.to_parts()
    about = {
        "embedder": version.embedder.config(),
        "settings": {
            "head": version.head,
            "unknown": None if unknown is None else label_to_json(unknown),
            "false_rejects": false_rejects,
        },
        "classes": [label_to_json(label) for label in support.classes],
        "examples": [
            {
                "key": item.key,
                "source": item.source,
                "text": item.preview if isinstance(item.preview, str) else None,
                "row": _row_to_json(item),
            }
            for item in support.items
        ],
        "prior": about_prior,
    }
    previews = {
        row: item.preview
        for row, item in enumerate(support.items)
        if isinstance(item.preview, bytes)
    }
    tensors = {"z": tensor_of(support.z), "y": tensor_of(support.y)}
    write_task(path, TaskFile(about, tensors, prior_tensors, previews))


def load_task(path: Path, *, encoder: Any = None, device: str = "auto") -> SavedTask:
    """Return what :func:`save_task` wrote.

    Args:
        path: the file.
        encoder: the callable or module that the task was made with, which no file can contain.
        device: where to embed.

    Raises:
        CheckpointError: if the file is damaged, altered, no task file or made by a newer version,
            or the encoder is not the one that the task was made with.
    """
    task = read_task(path)
    try:
        settings, config = task.about["settings"], dict(task.about["embedder"])
        saved_unknown = settings["unknown"]
        support = _support(task, config)
        prior = TaskPrior.from_parts(task.about["prior"], task.prior)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path} does not hold a whole task ({error}). Use another copy, or make it again "
            "with 'quickstudy fit'."
        ) from error
    embedder = _embedder(path, config, encoder, device)
    return SavedTask(
        TaskVersion.learn(support, embedder, prior, head=settings["head"]),
        encoder if encoder is not None else config["encoder"],
        None if saved_unknown is None else label_from_json(saved_unknown),
        settings["false_rejects"],
    )


def _support(task: TaskFile, config: dict[str, Any]) -> Support:
    """Return the examples of a task file.

    Raises:
        KeyError, TypeError, ValueError, IndexError: if something is missing or does not fit.
    """
    about, z, y = task.about, task.support["z"].numpy(), task.support["y"].numpy()
    support = Support(
        tuple(label_from_json(pair) for pair in about["classes"]),
        tuple(
            Item(
                _value(example["row"], config, z[row]),
                example["key"],
                example["source"],
                task.previews.get(row, example["text"]),
            )
            for row, example in enumerate(about["examples"])
        ),
        y.astype(np.int64),
        z.astype(np.float32),
    )
    if not (len(z) == len(y) == len(support.items) and set(y) == set(range(support.n_way))):
        raise ValueError("examples, labels and embeddings do not fit each other")
    return support


def _row_to_json(item: Item) -> list[Any] | None:
    """Return the cells of a table's row: the table is scaled again whenever the task is edited."""
    return list(item.value.values) if isinstance(item.value, TableRow) else None


def _value(cells: list[Any] | None, config: dict[str, Any], z: Any) -> Any:
    """Return the value of an item, which only embedders that are fitted to the support need.

    Args:
        cells: of a table's row, or ``None``.
        config: of the embedder.
        z: embedding of the example ``[D]``.
    """
    if cells is not None:
        names = tuple(column["name"] for column in config["columns"])
        if all(isinstance(cell, float) for cell in cells):
            return TableRow(names, np.array(cells), config["named"])
        return TableRow(names, tuple(cells), config["named"])
    return z if config.get("encoder") == "array" else None


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

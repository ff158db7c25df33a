"""A classifier to a task file and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from quickstudy.core import CheckpointError, ConfigError, DataError
from quickstudy.embedders.base import Embedder, Item
from quickstudy.embedders.choose import get_embedder
from quickstudy.embedders.tables import TableRow
from quickstudy.estimators.support import Support
from quickstudy.estimators.taskfile import (
    TaskFile,
    label_from_json,
    label_to_json,
    read_task,
    write_task,
)
from quickstudy.fitting.prior import TaskPrior

if TYPE_CHECKING:
    from quickstudy.estimators.classifier import FewShotClassifier

__all__ = ["load_classifier", "save_classifier"]

Classifier = TypeVar("Classifier", bound="FewShotClassifier")


def save_classifier(clf: FewShotClassifier, path: Path) -> None:
    """Write the task of a classifier; earlier versions (undo) are not kept.

    Raises:
        CheckpointError: see :func:`~quickstudy.estimators.taskfile.write_task`.
    """
    support, embedder, prior = clf.support_, clf.embedder_, clf.prior_
    about_prior, prior_tensors = prior.to_parts()
    about = {
        "embedder": embedder.config(),
        "settings": {
            "head": clf.head,
            "unknown": None if clf.unknown is None else label_to_json(clf.unknown),
            "false_rejects": clf.false_rejects,
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
    write_task(
        path,
        TaskFile(
            about,
            {"z": torch.from_numpy(support.z), "y": torch.from_numpy(support.y)},
            prior_tensors,
            previews,
        ),
    )


def load_classifier(
    kind: type[Classifier], path: Path, *, encoder: Any = None, device: str = "auto"
) -> Classifier:
    """Return the classifier of a task file.

    Raises:
        CheckpointError: see :meth:`FewShotClassifier.load`.
    """
    task = read_task(path)
    try:
        about = task.about
        settings, config = about["settings"], dict(about["embedder"])
        unknown = settings["unknown"]
        z, y = task.support["z"].numpy(), task.support["y"].numpy()
        support = Support(
            tuple(label_from_json(pair) for pair in about["classes"]),
            tuple(
                Item(
                    _value(e["row"], config, z[row]),
                    e["key"],
                    e["source"],
                    task.previews.get(row, e["text"]),
                )
                for row, e in enumerate(about["examples"])
            ),
            y.astype(np.int64),
            z.astype(np.float32),
        )
        prior = TaskPrior.from_parts(about["prior"], task.prior)
        if not (len(z) == len(y) == len(support.items) and set(y) == set(range(support.n_way))):
            raise ValueError("examples, labels and embeddings do not fit each other")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path} does not hold a whole task ({error}). Take another copy, or make it again "
            "with 'quickstudy fit'."
        ) from error
    embedder = _embedder(path, config, encoder, device)
    clf = kind(
        encoder if encoder is not None else config["encoder"],
        head=settings["head"],
        unknown=None if unknown is None else label_from_json(unknown),
        false_rejects=settings["false_rejects"],
        device=device,
    )
    clf._restore(embedder, prior, support)
    return clf


def _row_to_json(item: Item) -> list[Any] | None:
    """Return the cells of a table's row, which scale the table anew when the task changes."""
    return list(item.value.values) if isinstance(item.value, TableRow) else None


def _value(cells: list[Any] | None, config: dict[str, Any], z: Any) -> Any:
    """Return what an embedder that is fitted to the support needs of an example."""
    if cells is not None:
        names = tuple(column["name"] for column in config["columns"])
        if all(isinstance(cell, float) for cell in cells):
            return TableRow(names, np.array(cells), config["named"])
        return TableRow(names, tuple(cells), config["named"])
    return z if config.get("encoder") == "array" else None


def _embedder(path: Path, config: dict[str, Any], encoder: Any, device: str) -> Embedder:
    """Return the encoder of a task, and make sure that it is the same."""
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

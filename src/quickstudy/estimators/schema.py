"""What a task file must say: types, ranges and counts, checked before anything is made of it.

The hashes in a task file tell accidents. They do not tell a hand: whoever edits a file can hash it
again. So what was read is not trusted either, and a wrong file is an error at once, not an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import Tensor

from quickstudy.estimators.labels import Label
from quickstudy.estimators.support import Floats, Ints
from quickstudy.fitting.heads import HEADS
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import FittedTask

__all__ = [
    "About",
    "AboutPast",
    "AboutUndo",
    "check_answers",
    "check_arrays",
    "check_prior",
    "label_of",
    "words_of",
]

LABEL_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_QUERIES_TRIED = 4


def label_of(pair: Any) -> Label:
    """Return the label of a pair of its type and value.

    Raises:
        ValueError: if it is no such pair.
    """
    if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str):
        kind, value = LABEL_TYPES.get(pair[0]), pair[1]
        if kind is not None and type(value) is kind:
            label: Label = value
            return label
    raise ValueError(f"{str(pair)[:60]} is no label")


def _head(name: Any) -> str:
    if isinstance(name, str) and (name == "auto" or name in HEADS):
        return name
    raise ValueError(f"there is no head {str(name)[:60]}")


_Label = Annotated[Any, BeforeValidator(label_of)]
_Head = Annotated[str, BeforeValidator(_head)]
_Row = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    # a further key is of a newer version that this one can do without
    model_config = ConfigDict(strict=True, extra="ignore", arbitrary_types_allowed=True)


class AboutSettings(_Part):
    """The settings that the answers depend on."""

    head: _Head
    unknown: Annotated[Any, BeforeValidator(lambda v: None if v is None else label_of(v))]
    false_rejects: Annotated[float, Field(gt=0, lt=1)]


class AboutExample(_Part):
    """One example: its hash, where it comes from, its text or its cells."""

    key: Annotated[str, Field(min_length=1)]
    source: str | None
    text: str | None
    row: list[float | str] | None
    png: str | None = None
    group: str | None = None


class About(_Part):
    """What the file says beside tensors and pictures."""

    embedder: dict[str, Any]
    settings: AboutSettings
    classes: Annotated[list[_Label], Field(min_length=1)]
    examples: Annotated[list[AboutExample], Field(min_length=1)]
    prior: dict[str, Any]
    n_features: Annotated[int, Field(ge=1)] | None = None
    columns: dict[str, Any] | None = None


class AboutPast(_Part):
    """A task before an edit; an example is a row of the task after the edit, or written out."""

    what: str
    head: _Head
    n_features: Annotated[int, Field(ge=1)] | None
    classes: Annotated[list[_Label], Field(min_length=1)]
    examples: Annotated[list[_Row | AboutExample], Field(min_length=1)]


class AboutUndo(_Part):
    """The tasks before the last edits, oldest first."""

    forgotten: bool
    past: list[AboutPast]


def words_of(error: ValidationError) -> str:
    """Return what is wrong first, in one line: where, and what."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def check_arrays(
    classes: Sequence[Label], n: int, z: Tensor, y: Tensor, *, rows: int | None = None
) -> tuple[Floats, Ints]:
    """Return embeddings and labels as arrays, if they are those of ``n`` examples.

    Args:
        classes: the labels ``[C]``.
        n: number of examples.
        z: embeddings ``[n, D]``.
        y: class of each example ``[n]``.
        rows: how many embeddings there must be; ``None`` = ``n``.

    Raises:
        ValueError: if a type, a shape or a number is not what it must be.
    """
    if len({(type(label), label) for label in classes}) < len(classes):
        raise ValueError("two classes have one name")
    if z.dtype != torch.float32 or z.ndim != 2 or len(z) != (n if rows is None else rows):
        raise ValueError(f"embeddings {z.dtype} {list(z.shape)} are not those of {n} examples")
    if not z.shape[1] or not bool(z.isfinite().all()):
        raise ValueError("an embedding is empty or not finite")
    if y.dtype != torch.int64 or y.shape != (n,):
        raise ValueError(f"labels {y.dtype} {list(y.shape)} are not those of {n} examples")
    if y.unique().tolist() != list(range(len(classes))):
        raise ValueError(f"the labels are not of {len(classes)} classes with an example each")
    return z.numpy(), y.numpy()


def check_prior(prior: TaskPrior, dim: int) -> None:
    """Refuse a prior of another width, or one whose numbers cannot be used.

    Args:
        prior: as it was read.
        dim: numbers of an embedding.

    Raises:
        ValueError: if it does not fit.
    """
    metric = prior.metric
    tensors = [t for t in (metric.mean, metric.directions, metric.factors) if t is not None]
    wide = [t.shape[0] for t in tensors[:2]]
    if any(t.dtype != torch.float32 or not bool(t.isfinite().all()) for t in tensors):
        raise ValueError("a tensor of the prior is not float32 or not finite")
    if metric.mean.ndim != 1 or set(wide) != {dim}:
        raise ValueError(f"the prior is one of embeddings of {wide}, not {dim} numbers")
    if (metric.directions is None) != (metric.factors is None) or (
        metric.directions is not None
        and metric.factors is not None
        and metric.directions.shape != (dim, *metric.factors.shape)
    ):
        raise ValueError("the directions of the prior do not fit their factors")
    if not (np.isfinite(prior.centre_prior) and prior.centre_prior >= 0):
        raise ValueError(f"centre_prior is {prior.centre_prior}")
    for name, head in prior.heads.items():
        if not head.settings:
            raise ValueError(f"the head {name} has no settings")
        for ways, shots in head.settings:
            prior.head(name, ways=ways, shots=shots)
        if not head.expected or not np.isfinite(list(head.expected.values())).all():
            raise ValueError(f"the accuracies of {name} are no numbers")
        for said in (head.far, *head.near.values()):
            shares = (*said.accuracy.values, *said.low.values, *said.high.values)
            if not all(0 <= share <= 1 for share in shares):
                raise ValueError(f"an accuracy of {name} is no share")
    for source in prior.known:
        if source.centre.dtype != torch.float32 or source.centre.shape != (dim,):
            raise ValueError("the middle of a source is no embedding")
        if not bool(source.centre.isfinite().all()) or min(source.deviation.values) < 0:
            raise ValueError("where a source lies is not known")


def check_answers(task: FittedTask, z: Floats) -> None:
    """Refuse a task that cannot answer for its own examples.

    Args:
        task: what was learned.
        z: embeddings of the examples ``[N, D]``.

    Raises:
        ValueError: if an answer is not finite.
    """
    queries = torch.from_numpy(z[:_QUERIES_TRIED].copy())
    p = task.proba(queries)
    estimate = task.expected_accuracy()
    numbers = [*p.flatten().tolist(), estimate.mean, estimate.low, estimate.high]
    if not np.isfinite(numbers).all() or bool(task.novelty(queries).isnan().any()):
        raise ValueError("its answers are not finite")
    if np.isnan(task.novelty_threshold()) or not task.sets(queries).shape == p.shape:
        raise ValueError("its thresholds are not numbers")

"""Labels of any type: reads them from what a user gives, and returns them in the classes' type."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from quickstudy.core import ConfigError, TaskError
from quickstudy.core.values import is_missing

__all__ = [
    "Label",
    "as_labels",
    "check_label",
    "counted",
    "label_array",
    "labels_of",
    "named",
    "plain_label",
]

Label = Hashable


def as_labels(y: Any) -> npt.NDArray[Any]:
    """Return labels as an array ``[N]`` that can be sorted.

    Raises:
        TaskError: if a label is missing, or the labels are not one per example.
    """
    if y is None:
        raise TaskError(
            "FewShotClassifier requires y to be passed, but the target y is None. Give a label "
            "for each input."
        )
    try:
        values = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    except ValueError as error:
        raise TaskError(
            "labels must be one per example [N]; got rows of several lengths. Give one label for "
            "each example: text, a number or a truth value."
        ) from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = column_or_1d(values, warn=True)
    if values.ndim != 1:
        raise TaskError(f"labels must be one per example [N]; got shape {values.shape}.")
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise TaskError("Input contains infinity in y, which is no label. Leave the row out.")
    missing = [i for i, v in enumerate(values.tolist()) if is_missing(v)]
    if missing:
        raise TaskError(f"row {missing[0]} has no label. Fill it in or leave the row out.")
    if values.dtype.kind == "f":
        check_classification_targets(values)
    return values


def check_label(label: Any) -> None:
    """Refuse a label that is missing.

    Raises:
        TaskError: if it is ``None``, NaN, or ``NA`` of pandas.
    """
    if is_missing(label):
        raise TaskError(f"{label!r} is no label. Give the class a name.")


def label_array(classes: Sequence[Label]) -> npt.NDArray[Any]:
    """Return labels as an array ``[C]`` of their type, or of objects if they have several types."""
    kinds = {type(label) for label in classes}
    if len(kinds) == 1 and kinds <= {str, int, float, bool}:
        return np.array(classes)
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array


def plain_label(label: Any) -> Label:
    """Return a label as a plain Python object, so that ``numpy.int64(3)`` is the same as ``3``.

    Raises:
        ConfigError: if it cannot be hashed.
    """
    plain: Label = label.item() if isinstance(label, np.generic) else label
    try:
        hash(plain)
    except TypeError as error:
        raise ConfigError(
            f"a label must be hashable; got {type(label).__name__} {label!r}."
        ) from error
    return plain


def labels_of(
    classes: Sequence[Label],
    columns: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_] | None = None,
    unknown: Label | None = None,
) -> npt.NDArray[Any]:
    """Return the label of each query ``[Q]``, in the type of the classes where possible.

    Args:
        classes: the labels of the columns ``[C]``.
        columns: the column of each query's class ``[Q]``.
        known: ``False`` = the query's label is ``unknown`` ``[Q]``; ``None`` = all are known.
        unknown: a label of any type; ``None`` = always a class.
    """
    names = label_array(classes)
    labels: npt.NDArray[Any] = names[columns]
    if unknown is None or known is None or known.all():
        return labels
    # unknown may have another type than the classes: numpy would convert it
    mixed = labels.astype(object)
    mixed[~known] = unknown
    same = isinstance(unknown, str) and names.dtype.kind == "U"
    return mixed.astype(str) if same else mixed


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``"1 example"``, ``"2 examples"``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def named(labels: Iterable[Label]) -> str:
    """Return the first three labels, and how many more there are."""
    names = [repr(label) for label in labels]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

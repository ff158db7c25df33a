"""Labels of a task: text, whole numbers or truth values, each in the type it was given.

What cannot be a label, and so could not be saved either, is refused when it is given. A label that
a file or a program writes in another way (``1``, ``1.0``, ``"1"``) is compared by its value, and
what was taken for what is told. Whether it is *exactly* a class is asked first, so that two classes
in two spellings stay two.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.utils import column_or_1d

from quickstudy.core import TaskError
from quickstudy.core.values import is_missing
from quickstudy.estimators.spelling import KnownLabels, check_spellings

__all__ = [
    "Label",
    "MatchedLabels",
    "as_labels",
    "checked_label",
    "class_of",
    "classes_of",
    "counted",
    "label_array",
    "labels_of",
    "match_labels",
    "named",
    "plain_label",
    "sorted_classes",
]

Label = Hashable

_ALLOWED = (str, int, float, bool)
_RULE = "A label is text, a whole number or a truth value"
# floats hold every whole number up to here
_EXACT_IN_FLOAT = 2**53


def as_labels(y: Any) -> list[Label]:
    """Return the labels ``[N]`` that a user gave, each as a plain object of its own type.

    Args:
        y: a list, a tuple, an array, a column of pandas, PyArrow or PyTorch, or an iterator.

    Raises:
        TaskError: if they are not one per example, or one is missing or cannot be a label; the row
            is named.
    """
    if y is None:
        raise TaskError(
            "FewShotClassifier requires y to be passed, but the target y is None. Give a label "
            "for each input."
        )
    labels = [checked_label(value, row=row) for row, value in enumerate(_values(y))]
    if any(type(label) is int for label in labels):
        # a column of whole numbers becomes floats on many ways: numpy, a missing value elsewhere
        labels = [int(v) if isinstance(v, float) else v for v in labels]
    return labels


def _values(y: Any) -> list[Any]:
    """Return the elements of a user's labels, without changing their types.

    Raises:
        TaskError: if they have no order, or more than one dimension.
    """
    if issparse(y) or isinstance(y, (str, bytes, Mapping, set, frozenset)) or np.isscalar(y):
        raise TaskError(f"labels must be one per example [N]; got {type(y).__name__}. Give a list.")
    if callable(to_pylist := getattr(y, "to_pylist", None)):  # of PyArrow, whose scalars are odd
        y = to_pylist()
    if hasattr(y, "to_numpy"):
        y = y.to_numpy()
    elif hasattr(y, "__array__") and not isinstance(y, np.ndarray):
        y = np.asarray(y)
    if isinstance(y, np.ndarray):
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if y.ndim != 1:
            raise TaskError(f"labels must be one per example [N]; got shape {y.shape}.")
        # tolist() turns datetime64 into whole numbers, and masked values must become None
        return list(y.tolist() if isinstance(y, np.ma.MaskedArray) else y)
    try:
        return list(y)
    except TypeError as error:
        raise TaskError(
            f"labels must be one per example [N]; got {type(y).__name__}. Give a list."
        ) from error


def checked_label(value: Any, *, row: int | None = None) -> Label:
    """Return what a user gave as a label, as a plain Python object.

    Args:
        value: text, a whole number or a truth value, of Python or of numpy.
        row: of the example, for the error; ``None`` = the label was given alone.

    Raises:
        TaskError: if it is missing (``None``, NaN, ``NA``, blank text, infinity), or of a type
            that cannot be a label: a date, a list, bytes, a number that is not whole.
    """
    plain = plain_label(value)
    if is_missing(plain) or (isinstance(plain, str) and not plain.strip()):
        if row is None:
            raise TaskError(f"{value!r} is no label. Give the class a name.")
        raise TaskError(f"row {row} has no label. Fill it in or leave the row out.")
    where = "" if row is None else f"row {row}: "
    if isinstance(plain, float) and math.isinf(plain):
        raise TaskError(
            f"{where}Input contains infinity in y, which is no label. Leave the row out."
        )
    if isinstance(plain, float) and not plain.is_integer():
        # scikit-learn's tests look for the words "Unknown label type"
        raise TaskError(
            f"{where}Unknown label type: continuous. {plain!r} is a measurement, not a class. "
            f"{_RULE}: give the name of a range, or str(label) if it is a name."
        )
    if type(plain) not in _ALLOWED:
        raise TaskError(f"{where}{_refusal(value)}")
    return plain


def plain_label(label: Any) -> Label:
    """Return a label as a plain Python object, so that ``numpy.int64(3)`` is the same as ``3``.

    What is no label is returned as it is.
    """
    if (
        isinstance(label, np.generic) and not isinstance(label, np.datetime64 | np.timedelta64)
    ) or (isinstance(label, np.ndarray) and label.ndim == 0 and label.dtype.kind in "OUbiuf"):
        label = label.item()
    if isinstance(label, enum.Enum) or type(label) in _ALLOWED:
        return label  # type: ignore[no-any-return]
    # subclasses of str, int and float (of libraries) are the values that they show
    for kind in (str, int, float):
        if isinstance(label, kind):
            return kind(label)
    return label  # type: ignore[no-any-return]


def _refusal(value: Any) -> str:
    """Return why a value cannot be a label, and what to give instead."""
    instead = "str(label)"
    if isinstance(value, enum.Enum):
        instead = "label.value"
    elif isinstance(value, bytes):
        instead = "label.decode()"
    elif isinstance(value, (list, tuple, set, dict, np.ndarray)):
        instead = "labels that are one per example; join several into one text"
    elif isinstance(value, complex):  # in scikit-learn's words, which its tests look for
        return f"{value!r}: Complex data not supported. {_RULE}: give {instead}."
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"{shown} ({type(value).__name__}) cannot be a label. {_RULE}: give {instead}."


def sorted_classes(labels: Iterable[Label]) -> list[Label]:
    """Return the different labels in order: truth values, numbers, then texts."""

    def key(label: Any) -> tuple[int, Any]:
        rank = 0 if isinstance(label, bool) else 2 if isinstance(label, str) else 1
        return rank, label

    return sorted(dict.fromkeys(labels), key=key)


def label_array(classes: Sequence[Label]) -> npt.NDArray[Any]:
    """Return labels as an array ``[C]`` of their type, or of objects if they have several types.

    Whole numbers that fit no int64, and texts that end in a null character, stay objects: numpy
    would change them.
    """
    kinds = {type(label) for label in classes}
    if kinds == {int, float} and all(abs(v) <= _EXACT_IN_FLOAT for v in classes):  # type: ignore[arg-type]
        return np.array(classes, dtype=np.float64)
    if kinds == {int} and all(-(2**63) <= v < 2**63 for v in classes):  # type: ignore[operator]
        return np.array(classes, dtype=np.int64)
    if kinds == {str} and not any(str(label).endswith("\0") for label in classes):
        return np.array(classes)
    if len(kinds) == 1 and kinds <= {float, bool}:
        return np.array(classes)
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array


def labels_of(
    classes: Sequence[Label],
    columns: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_] | None = None,
    unknown: Label | None = None,
) -> npt.NDArray[Any]:
    """Return the label of each query ``[Q]``, in an array whose type no query has a part in.

    Args:
        classes: the labels of the columns ``[C]``.
        columns: the column of each query's class ``[Q]``.
        known: ``False`` = the query's label is ``unknown`` ``[Q]``; ``None`` = all are known.
        unknown: a label; ``None`` = always a class. If it is of another type than the classes, the
            array is one of objects, also where every query is known.
    """
    if unknown is None:
        labels: npt.NDArray[Any] = label_array(classes)[columns]
        return labels
    names = label_array([*classes, plain_label(unknown)])
    chosen = columns if known is None else np.where(known, columns, len(classes))
    labels = names[chosen]
    return labels


def _like(label: Label, classes: Sequence[Label]) -> Label:
    """Return a whole number in the type of the classes: ``2.0`` as 2 where they are 0 and 1."""
    kinds = {type(known) for known in classes}
    if type(label) is float and int in kinds:
        return int(label)
    if type(label) is int and float in kinds and int not in kinds:
        return float(label)
    return label


@dataclass(frozen=True, slots=True)
class MatchedLabels:
    """Labels that a user gave, each with the class that it names.

    Args:
        columns: the class of each label ``[Q]``, an index into the classes; -1 = none.
        respelled: by label as it was given, the class that it was taken for, where the two are
            written differently.
        other: labels that name no class, each once, in the order in which they came.
        ambiguous: labels that name several classes, each once; they count as none.
        missing: rows without a label.

    Example::

        from quickstudy.estimators.labels import match_labels
        matched = match_labels(["1.0", 2, "3", None], [1, 2])
        print(matched.columns, matched.respelled, matched.other, matched.text())
    """

    columns: npt.NDArray[np.int64]
    respelled: Mapping[Label, Label] = field(default_factory=dict)
    other: tuple[Label, ...] = ()
    ambiguous: tuple[Label, ...] = ()
    missing: tuple[int, ...] = ()

    def text(self) -> str:
        """Return what people should know, one sentence a line; empty if all labels are classes."""
        lines = []
        if self.respelled:
            pairs = [f"{given!r} as {known!r}" for given, known in self.respelled.items()]
            more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
            lines.append(f"labels in another spelling were read: {', '.join(pairs[:3])}{more}.")
        if self.ambiguous:
            lines.append(f"labels that may be several classes: {named(self.ambiguous)}.")
        if self.other:
            lines.append(f"labels that are no class of the task: {named(self.other)}.")
        return "\n".join(lines)


def match_labels(given: Iterable[Any], classes: Sequence[Label]) -> MatchedLabels:
    """Return which class each label names, also where it is written in another way.

    The same value counts as the same label: numbers by value (``1``, ``1.0``, ``"1"``, ``"1e0"``),
    truth values in any case, dates and times in ISO form, texts without the blanks around them and
    in either Unicode form. Upper and lower case differ.

    Args:
        given: labels of any type ``[Q]``; those that are missing match none.
        classes: the classes of the task, and the word for unknown if it may be given.
    """
    known = KnownLabels(classes)
    columns: list[int] = []
    missing: list[int] = []
    respelled: dict[Label, Label] = {}
    other: dict[Label, None] = {}
    ambiguous: dict[Label, None] = {}
    for row, value in enumerate(given):
        label = plain_label(value)
        if is_missing(label) or (isinstance(label, str) and not label.strip()):
            missing.append(row)
            columns.append(-1)
            continue
        found = known.columns(label)
        columns.append(found[0] if len(found) == 1 else -1)
        name = label if isinstance(label, Hashable) else repr(label)
        if len(found) > 1:
            ambiguous[name] = None
        elif not found:
            other[name] = None
        elif str(classes[found[0]]) != str(label):
            respelled[name] = classes[found[0]]
    return MatchedLabels(
        np.array(columns, dtype=np.int64),
        respelled,
        tuple(other),
        tuple(ambiguous),
        tuple(missing),
    )


def class_of(label: Any, classes: Sequence[Label]) -> Label:
    """Return the class that a label names in an edit, or the label itself if it is a new one.

    As :func:`match_labels`, but two texts that are numbers are two labels where they differ:
    ``"1.1"`` and ``"1.10"`` are versions, ``"007"`` is a name.

    Args:
        label: what the user gave.
        classes: the classes of the task.

    Raises:
        TaskError: if the label may be several classes, is missing, or cannot be a label.
    """
    return classes_of([label], classes)[0]


def classes_of(labels: Iterable[Any], classes: Sequence[Label]) -> list[Label]:
    """Return :func:`class_of` of several labels; labels that are new must not clash.

    Raises:
        TaskError: as :func:`class_of`, and if two new labels are one value in two spellings.
    """
    known, plain = KnownLabels(classes), []
    for label in map(plain_label, labels):
        if type(label) not in _ALLOWED:
            checked_label(label)
        found = known.columns(label, texts_are_names=True)
        if len(found) > 1:
            may_be = named(classes[column] for column in found)
            raise TaskError(f"{label!r} may be any of the classes {may_be}. Write it as one is.")
        plain.append(classes[found[0]] if found else _like(checked_label(label), classes))
    check_spellings([*classes, *plain], known=len(classes))
    return plain


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``"1 example"``, ``"2 examples"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def named(labels: Iterable[Label]) -> str:
    """Return the first three labels, and how many more there are."""
    names = [repr(label) for label in labels]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""``TabularInContextClassifier``: rows of a table in, classes out, in one forward pass."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from quickstudy.core import ConfigError, DataError, Examples, TaskState
from quickstudy.estimators.given import refuse_sparse, whole_number
from quickstudy.estimators.labels import as_labels, label_array, sorted_classes
from quickstudy.estimators.spelling import check_spellings
from quickstudy.estimators.table_columns import TableColumns
from quickstudy.learners.incontext import TableInContext, load_table_learner

__all__ = ["MOST_CLASSES", "MOST_COLUMNS", "MOST_ROWS", "TabularInContextClassifier"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MOST_CLASSES, MOST_COLUMNS, MOST_ROWS = 10, 100, 1000
_BLOCK, _AT_ONCE = 64, 1024  # queries
_MOST_MEMBERS = 256
# categories up to so many become a column each
_SPREAD = 10


class TabularInContextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifies rows of a table by reading labelled rows, without training.

    A transformer (:class:`~quickstudy.nets.table_transformer.TableTransformer`) that was trained on
    made-up tables (:class:`~quickstudy.tasks.SyntheticTables`) reads the rows once in :meth:`fit`
    and keeps their keys and values; :meth:`predict` reads those. Nothing is fitted but how columns
    are read. Missing values are welcome; numbers, categories, dates, times of day and truth values
    are found as in ``FewShotClassifier("table")``. Columns of a frame are found by name.

    The weights were trained for tables of at most 10 classes, 100 columns and 1,000 rows. What to
    do beyond that is asked for by name.

    Args:
        members: answers over so many orders of the columns are averaged.
        many_classes: ``"refuse"``, or ``"hierarchy"``: classes are put into groups of similar ones,
            and a row is asked for its group first.
        many_columns: ``"refuse"``, or ``"sample"``: each member reads 100 columns at random.
        many_rows: ``"refuse"``; ``"sample"``: each member reads 1,000 rows at random, each class in
            its share; or ``"chunks"``: all rows are read, in parts whose answers are averaged.
        temperature: logits are divided by it.
        weights: a file of ``benchmarks/train_tables.py``; those of the package if not given.
        random_state: of the orders and samples, a whole number.

    Example::

        from quickstudy.estimators import TabularInContextClassifier
        X = [[5.1, "red"], [4.9, "red"], [6.3, "blue"], [None, "blue"]]
        clf = TabularInContextClassifier().fit(X, ["small", "small", "large", "large"])
        clf.predict([[5.0, "red"], [6.0, "green"]])
    """

    def __init__(
        self,
        *,
        members: int = 4,
        many_classes: str = "refuse",
        many_columns: str = "refuse",
        many_rows: str = "refuse",
        temperature: float = 1.0,
        weights: str | Path | None = None,
        random_state: int = 0,
    ) -> None:
        self.members = members
        self.many_classes = many_classes
        self.many_columns = many_columns
        self.many_rows = many_rows
        self.temperature = temperature
        self.weights = weights
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Read labelled rows.

        Args:
            X: array ``[N, F]``, list of rows or records, DataFrame, Arrow table.
            y: labels ``[N]``: texts, whole numbers or truth values.

        Raises:
            ConfigError: if a setting is not usable, or the table is larger than the weights were
                trained for and no option says what to do.
            DataError: if a value is infinite or cannot be read.
            TaskError: if a label is missing or none.
            CheckpointError: if the weights are damaged or of another version.
        """
        self._check_settings()
        refuse_sparse(X)
        columns = TableColumns.of(X, spread=_SPREAD)
        x = columns.numbers(X)
        if x.shape[1] > MOST_COLUMNS:
            # codes need fewer columns
            columns = TableColumns.of(X, spread=0)
            x = columns.numbers(X)
        if y is None:
            raise ConfigError("requires y to be passed, but the target y is None. Give labels.")
        labels = as_labels(y)
        check_spellings(labels)
        if len(labels) != len(x):
            raise DataError(
                f"found inconsistent numbers of samples: {len(x)} rows and {len(labels)} labels. "
                "Give a label for each row."
            )
        classes = sorted_classes(set(labels))
        self._refuse_size(len(classes), x.shape[1], len(x))
        number = {label: i for i, label in enumerate(classes)}
        codes = np.array([number[label] for label in labels], dtype=np.int64)
        self._centre = _middle(x)
        centred: Floats = (x - self._centre).astype(np.float32)
        self.columns_ = columns
        self.n_features_in_ = len(columns.names)
        if columns.named:
            self.feature_names_in_ = np.array(columns.names, dtype=object)
        self.classes_ = label_array(classes)
        learner = load_table_learner(self.weights)
        self._node = _Node.read(
            learner, centred, codes, self, np.random.default_rng(self.random_state)
        )
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each class ``[Q, C]``."""
        check_is_fitted(self)
        refuse_sparse(X)
        x = (self.columns_.numbers(X) - self._centre).astype(np.float32)
        learner = load_table_learner(self.weights)
        # in whole blocks: the rounding of a few rows must not depend on how few they are
        padded = np.concatenate([x, np.zeros((-len(x) % _BLOCK, x.shape[1]), dtype=x.dtype)])
        parts = [
            self._node.probabilities(learner, padded[at : at + _AT_ONCE], self.temperature)
            for at in range(0, len(x), _AT_ONCE)
        ]
        found: npt.NDArray[np.float64] = np.concatenate(parts)[: len(x)]
        total: npt.NDArray[np.float64] = found.sum(1, keepdims=True)
        return np.divide(found, total)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the label of each row ``[Q]``."""
        best = self.predict_proba(X).argmax(1)
        found: npt.NDArray[Any] = self.classes_[best]
        return found

    def _check_settings(self) -> None:
        if whole_number(self.members, "members") > _MOST_MEMBERS:
            raise ConfigError(
                f"members must be at most {_MOST_MEMBERS}, as each reads the table anew; got "
                f"{self.members:,}."
            )
        if isinstance(self.random_state, bool) or not isinstance(self.random_state, Integral):
            raise ConfigError(f"random_state must be a whole number; got {self.random_state!r}.")
        if self.random_state < 0:
            raise ConfigError(f"random_state must be 0 or more; got {self.random_state}.")
        for name, options in (
            ("many_classes", ("refuse", "hierarchy")),
            ("many_columns", ("refuse", "sample")),
            ("many_rows", ("refuse", "sample", "chunks")),
        ):
            if getattr(self, name) not in options:
                raise ConfigError(
                    f"{name} must be one of {', '.join(options)}; got {getattr(self, name)!r}."
                )
        if not 0 < float(self.temperature) < float("inf"):
            raise ConfigError(f"temperature must be positive; got {self.temperature!r}.")

    def _refuse_size(self, classes: int, columns: int, rows: int) -> None:
        for what, given, most, option, remedy in (
            ("classes", classes, MOST_CLASSES, "many_classes", "hierarchy"),
            ("columns", columns, MOST_COLUMNS, "many_columns", "sample"),
            ("rows", rows, MOST_ROWS, "many_rows", "sample"),
        ):
            if given > most and getattr(self, option) == "refuse":
                raise ConfigError(
                    f"the weights were trained for at most {most:,} {what}; got {given:,}. Set "
                    f"{option}={remedy!r}, or use FewShotClassifier('table')."
                )

    def __sklearn_tags__(self) -> Tags:
        """Return which inputs scikit-learn's tests may use."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags


class _Node:
    """Rows of up to ten groups of classes as read by the members; groups have nodes of their own.

    Args:
        groups: classes of each group.
        below: a node for each group with more than one class.
        members: columns and state of each.
    """

    def __init__(
        self,
        groups: list[Ints],
        below: list[_Node | None],
        members: list[tuple[Ints, TaskState]],
    ) -> None:
        self.groups, self.below, self.members = groups, below, members

    @classmethod
    def read(
        cls,
        learner: TableInContext,
        x: Floats,
        y: Ints,
        settings: TabularInContextClassifier,
        rng: np.random.Generator,
    ) -> _Node:
        """Return the node of labelled rows; ``y`` holds numbers of classes."""
        groups = _groups(x, y)
        below: list[_Node | None] = []
        part = np.zeros(len(y), dtype=np.int64)
        for number, group in enumerate(groups):
            inside = np.isin(y, group)
            part[inside] = number
            more = len(group) > 1
            below.append(cls.read(learner, x[inside], y[inside], settings, rng) if more else None)
        members: list[tuple[Ints, TaskState]] = []
        if len(groups) > 1:
            for rows, columns in _parts(part, x.shape[1], settings, rng):
                cells = torch.from_numpy(np.ascontiguousarray(x[np.ix_(rows, columns)]))
                support = Examples.full(cells[None], torch.from_numpy(part[rows])[None])
                with torch.no_grad():
                    members.append((columns, learner.adapt(support, n_way=len(groups))))
        return cls(groups, below, members)

    def probabilities(
        self, learner: TableInContext, x: Floats, temperature: float
    ) -> npt.NDArray[np.float64]:
        """Return probabilities ``[Q, C]`` of all classes, 0 for those outside this node."""
        n_way = 1 + max(int(group.max()) for group in self.groups)
        found = np.zeros((len(x), n_way))
        share = np.ones((len(x), 1))
        if self.members:
            total = torch.zeros(len(x), len(self.groups), dtype=torch.float64)
            for columns, state in self.members:
                cells = torch.from_numpy(np.ascontiguousarray(x[:, columns]))[None]
                with torch.no_grad():
                    logits = learner.predict(state, cells)[0].double()
                total += (logits / temperature).softmax(1) / len(self.members)
            share = total.numpy()
        for number, (group, node) in enumerate(zip(self.groups, self.below, strict=True)):
            if node is None:
                found[:, group[0]] = share[:, number]
            else:
                inside = node.probabilities(learner, x, temperature)
                found[:, : inside.shape[1]] += inside * share[:, number, None]
        return found


def _groups(x: Floats, y: Ints) -> list[Ints]:
    """Return the classes in at most ten groups; similar classes go together.

    Classes are put in order along the direction in which their means differ most, and cut into
    groups of the same size.
    """
    classes = np.unique(y)
    if len(classes) <= MOST_CLASSES:
        return [np.array([c]) for c in classes]
    z = np.nan_to_num((x - np.nanmean(x, 0)) / (np.nanstd(x, 0) + 1e-9))
    means = np.stack([z[y == c].mean(0) for c in classes])
    means -= means.mean(0)
    along = means @ np.linalg.svd(means, full_matrices=False)[2][0]
    return [np.sort(part) for part in np.array_split(classes[along.argsort()], MOST_CLASSES)]


def _parts(
    y: Ints, columns: int, settings: TabularInContextClassifier, rng: np.random.Generator
) -> list[tuple[Ints, Ints]]:
    """Return the rows and the columns, in their order, that each member reads."""
    found = []
    for number in range(settings.members):
        order = rng.permutation(columns) if number else np.arange(columns)
        if columns > MOST_COLUMNS:
            order = rng.permutation(columns)[:MOST_COLUMNS]
        if len(y) <= MOST_ROWS:
            found.append((np.arange(len(y)), order))
            continue
        # in the order of classes: each part gets every class in its share
        mixed = rng.permutation(len(y))
        by_class = mixed[y[mixed].argsort(kind="stable")]
        parts = -(-len(y) // MOST_ROWS)
        chosen = range(parts) if settings.many_rows == "chunks" else [number % parts]
        found += [(np.sort(by_class[part::parts]), order) for part in chosen]
    return found


def _middle(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of each column's known cells ``[F]``, 0 where there is none.

    It is taken away before numbers become float32, which would round away differences that are
    small beside it: seconds of a date are.
    """
    known = ~np.isnan(x)
    found: npt.NDArray[np.float64] = np.where(known, x, 0).sum(0) / np.maximum(known.sum(0), 1)
    return found

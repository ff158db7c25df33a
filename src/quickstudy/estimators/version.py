"""``TaskVersion``: one version of a task, which never changes; every edit makes another one.

Axes: ``N`` support examples, ``Q`` queries, ``C`` classes, ``D`` numbers of an embedding.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import ConfigError, DataError, TaskError
from quickstudy.core.arguments import checked
from quickstudy.embedders.base import Embedder, Item
from quickstudy.embedders.grids import has_names
from quickstudy.estimators.answers import Answer, Edit, Explanation, Suspect
from quickstudy.estimators.editing import edit_between
from quickstudy.estimators.explaining import (
    explanations,
    ranked_suspects,
    rows_to_label,
    worth_checking,
)
from quickstudy.estimators.given import (
    embed_support,
    group_numbers,
    labels_for,
    read_some,
    refuse_sparse,
    rows_of,
    share,
    whole_number,
    width,
    with_groups,
    with_names,
)
from quickstudy.estimators.labels import (
    Label,
    as_labels,
    class_of,
    counted,
    labels_of,
    named,
    plain_label,
    sorted_classes,
)
from quickstudy.estimators.spelling import check_spellings
from quickstudy.estimators.support import Bools, Floats, Ints, Support, tensor_of
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.shipped import shipped_prior
from quickstudy.fitting.task import Estimate, FittedTask, fit_task

__all__ = ["TaskVersion"]

_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True, eq=False, repr=False)
class TaskVersion:
    """A support set, the encoder that embedded it, and the head that learned it.

    A version is a value. No method changes it: an edit returns another version, whose :attr:`edit`
    says what was changed. So any number of threads may use one version while others edit. Make one
    with :meth:`fit` from inputs and labels, or with :meth:`learn` from embedded examples.

    Args:
        support: the labelled examples.
        embedder: makes embeddings of inputs.
        prior: what was learned from auxiliary tasks about embeddings of this encoder.
        head: the head that was asked for, or ``"auto"``.
        task: what the head learned, and its calibration.
        n_features: number of columns, if the inputs were a table; else ``None``.
        edit: how this version was made from the one before; ``None`` = it was fitted or loaded.

    Example::

        from quickstudy.estimators import TaskVersion, get_embedder
        first = TaskVersion.fit([[0.0], [1.0]], ["low", "high"], embedder=get_embedder("table"))
        second = first.add_class("top", [[9.0]])
        print(second.edit, second.answers(second.embed([[8.0]])), first.classes)
    """

    support: Support
    embedder: Embedder
    prior: TaskPrior
    head: str
    task: FittedTask
    n_features: int | None = None
    edit: Edit | None = None

    @classmethod
    @checked
    def fit(
        cls,
        X: Any,
        y: Any,
        *,
        embedder: Embedder,
        head: str = "auto",
        prior: TaskPrior | None = None,
        groups: Any = None,
    ) -> Self:
        """Return the first version of a task.

        Args:
            X: inputs of the embedder's kind ``[N]``: paths, PIL images or arrays; texts; a table.
            y: their labels ``[N]``: text, whole numbers or truth values.
            embedder: makes embeddings of inputs.
            head: name of a head, or ``"auto"``.
            prior: what was learned from auxiliary tasks; ``None`` = the package's for this encoder.
            groups: what belongs together ``[N]``, like the frames of one film; ``None`` = nothing.

        Raises:
            DataError: if an input cannot be used; the row is named.
            TaskError: if there are no examples, or the labels do not fit them.
            ConfigError: if there is no such head.
        """
        labels = as_labels(y)
        check_spellings(labels)
        refuse_sparse(X)
        items = embedder.read(X)
        if len(items) != len(labels):
            raise TaskError(f"got {len(items)} inputs and {len(labels)} labels. Give one of each.")
        classes = sorted_classes(labels)
        column = {label: c for c, label in enumerate(classes)}
        y_columns = np.array([column[label] for label in labels], dtype=np.int64)
        embedder = embedder.fit(items)
        z, items = embed_support(embedder, with_groups(items, groups))
        support = Support(tuple(classes), tuple(items), y_columns, z)
        prior = shipped_prior(embedder) if prior is None else prior
        made = cls.learn(support, embedder, prior, head=head)
        return replace(made, n_features=width(X))

    @classmethod
    @checked
    def learn(
        cls, support: Support, embedder: Embedder, prior: TaskPrior, *, head: str = "auto"
    ) -> Self:
        """Return the version of a support set that is embedded already.

        Args:
            support: the labelled examples.
            embedder: the one that made their embeddings.
            prior: what was learned from auxiliary tasks about embeddings of this encoder.
            head: name of a head, or ``"auto"``.

        Raises:
            TaskError: if there are no examples.
            ConfigError: if there is no such head.
        """
        z, y = tensor_of(support.z), tensor_of(support.y)
        # fitting a head is cheap: done again for every version, so that an edit equals a refit
        groups = group_numbers(support.items)
        task = fit_task(prior, z, y, n_way=support.n_way, head=head, groups=groups)
        return cls(support, embedder, prior, head, task)

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels, in the order of the columns of every score."""
        return self.support.classes

    @property
    def head_name(self) -> str:
        """The name of the head in use."""
        return self.task.head_name

    @cached_property
    def _seen(self) -> Tensor:
        # two threads may compute it at the same time: both get the same values
        return self.task.head.seen(self.task.support, n_way=self.support.n_way).x[0]

    def features(self, rows: Ints) -> Floats:
        """Return support embeddings in the space in which the head works, ``[len(rows), D']``."""
        return np.asarray(self._seen.numpy()[rows])

    def __repr__(self) -> str:
        s = self.support
        return (
            f"{type(self).__name__}({s.n_way} classes, {len(s.items)} examples, encoder "
            f"{self.embedder.name!r}, head {self.head_name!r})"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: a value that never changes needs no copy."""
        return self

    # ------------------------------------------------------------ edits

    @checked
    def add_examples(
        self, X: Any, y: Any, *, names: Sequence[str] | None = None, groups: Any = None
    ) -> Self:
        """Return the version with more examples, of classes that exist or are new; ``"1"`` names
        the class 1.

        Args:
            X: inputs ``[M]``.
            y: their labels ``[M]``, or one label for all of them.
            names: to show to people ``[M]``, for inputs that have none of their own.
            groups: what belongs together ``[M]``, also with examples of the task.

        Raises:
            DataError: if an input cannot be used; the row is named.
            TaskError: if there are no examples, or the labels do not fit them.
        """
        start = time.perf_counter()
        items = with_groups(with_names(read_some(self.embedder, X), names), groups)
        return self._added(items, labels_for(items, y, self.classes), "added", start)

    @checked
    def add_class(self, label: Label, X: Any, *, groups: Any = None) -> Self:
        """Return the version with one more class and its examples (and their groups); its column is
        the last.

        Raises:
            ConfigError: if there is a class of that label already.
            DataError: if an input cannot be used; the row is named.
        """
        start = time.perf_counter()
        if (label := class_of(label, self.classes)) in self.support:
            raise ConfigError(
                f"there is a class {label!r} already. Use add_examples to give it more examples, "
                "or remove_class first."
            )
        items = with_groups(read_some(self.embedder, X), groups)
        return self._added(items, [label] * len(items), f"added class {label!r}:", start)

    def _added(self, items: list[Item], labels: list[Label], what: str, start: float) -> Self:
        z, items = embed_support(self.embedder, items)
        support = self.support.with_examples(labels, items, z)
        what = f"{what} {counted(len(items), 'example')} of {named(dict.fromkeys(labels))}"
        if group_numbers(self.support.items) is not None and group_numbers(items) is None:
            what += ", each a group of its own"
        return self._edited(support, what, start)

    @checked
    def remove_class(self, label: Label) -> Self:
        """Return the version without a class and its examples.

        Raises:
            ConfigError: if there is no such class; the nearest names are offered.
            TaskError: if it is the only one.
        """
        start = time.perf_counter()
        label = self.classes[self.support.index(label)]
        return self._edited(self.support.without_class(label), f"removed class {label!r}", start)

    @checked
    def rename_class(self, old: Label, new: Label) -> Self:
        """Return the version with another name for a class; nothing else changes.

        Raises:
            ConfigError: if there is no class ``old``, or ``new`` is taken.
        """
        start = time.perf_counter()
        old = self.classes[self.support.index(old)]
        # 1 may become "1": the old name does not stand against the new one
        new = class_of(new, [label for label in self.classes if label != old])
        support = self.support.renamed(old, new)
        # heads do not use names: both versions share what was learned
        renamed = replace(self, support=support)
        return self._recorded(renamed, f"renamed class {old!r} to {new!r}", start)

    def remove_examples(self, rows: Iterable[int]) -> Self:
        """Return the version without the examples in some rows of :attr:`support`, and without
        classes that have no examples left.

        Raises:
            ConfigError: if there is no such row, or none is named.
            TaskError: if no example would be left.
        """
        start = time.perf_counter()
        chosen = rows_of(self.support, rows)
        support = self.support.without_examples(chosen)
        return self._edited(support, f"removed {counted(len(set(chosen)), 'example')}", start)

    @checked
    def relabel(self, row: int, label: Label) -> Self:
        """Return the version with another label for the example in a row of :attr:`support`; the
        label may be of a new class. If it is the example's already, nothing changes.

        Raises:
            ConfigError: if there is no such row.
            TaskError: if the label is missing.
        """
        start = time.perf_counter()
        row, label = self.support.row(row), class_of(label, self.classes)
        if self.support.label(row) == label:
            what = f"example {row} is labelled {label!r} already: nothing changed"
            return self._recorded(self, what, start)
        support = self.support.relabelled(row, label)
        return self._edited(support, f"relabelled example {row} as {label!r}", start)

    @checked
    def with_head(self, head: str) -> Self:
        """Return the version with another head (or ``"auto"``); itself if it is the same.

        Raises:
            ConfigError: if there is no such head.
        """
        if head == self.head:
            return self
        made = self.learn(self.support, self.embedder, self.prior, head=head)
        return replace(made, n_features=self.n_features, edit=self.edit)

    @checked
    def with_names(self, names: Sequence[str]) -> Self:
        """Return the version with names of its examples ``[N]``, where they have none."""
        items = tuple(with_names(list(self.support.items), names))
        return replace(self, support=replace(self.support, items=items))

    def _edited(self, support: Support, what: str, start: float) -> Self:
        if not support.classes:
            raise TaskError("that would leave a task without classes. Fit another task instead.")
        embedder, prior = self.embedder, self.prior
        if embedder.fitted:
            # a table is scaled by its support set, so another support set gives other embeddings
            embedder = embedder.fit(support.items)
            support = replace(support, z=embedder.embed(support.items))
            if embedder.dim != self.embedder.dim:  # a category came or went: other columns
                prior = prior.resized(embedder.dim)
        after = self.learn(support, embedder, prior, head=self.head)
        return self._recorded(after, what, start)

    def _recorded(self, after: Self, what: str, start: float) -> Self:
        edit = edit_between(self, after, what, start)
        return replace(after, n_features=self.n_features, edit=edit)

    # ------------------------------------------------------------ answering

    @checked
    def embed(self, X: Any) -> Floats:
        """Return the embeddings ``[Q, D]`` of inputs, which the methods below take as ``z``.

        Raises:
            DataError: if an input cannot be used, or has another number of columns than those that
                the task was fitted on.
        """
        refuse_sparse(X)
        # columns that have names are found by them, and further ones do not matter
        by_name = self.embedder.modality == "table" and has_names(X)
        wanted, given = self.n_features, None if by_name else width(X)
        if None not in (wanted, given) and given != wanted:
            raise DataError(
                f"X has {given} features, but FewShotClassifier is expecting {wanted} features as "
                "input. Give the columns that it was fitted on."
            )
        return self.embedder.embed(self.embedder.read(X), progress=True)

    @checked
    def scores(self, z: Floats, *, calibrated: bool = True) -> Floats:
        """Return logits, calibrated or as the head computes them, ``[Q, D] -> [Q, C]``."""
        ask = self.task.logits if calibrated else self.task.scores
        parts = tensor_of(z).split(_QUERIES_AT_ONCE)
        scores: Floats = torch.cat([ask(part) for part in parts]).numpy()
        return scores

    @checked
    def probabilities(self, scores: Floats) -> Floats:
        """Return the probabilities of calibrated :meth:`scores` ``[Q, C] -> [Q, C]``, given that a
        query belongs to one of the classes: each row sums to 1."""
        p: Floats = tensor_of(scores).double().softmax(1).float().numpy()
        return p

    @checked
    def labels(
        self, scores: Floats, known: Bools | None = None, *, unknown: Label | None = None
    ) -> npt.NDArray[Any]:
        """Return the label with the highest score of each query ``[Q]``.

        Args:
            scores: what :meth:`scores` returned ``[Q, C]``.
            known: what :meth:`known` returned ``[Q]``.
            unknown: the answer for queries that are not known; ``None`` = always a class.
        """
        return labels_of(self.classes, scores.argmax(1), known, unknown)

    @checked
    def label_sets(self, scores: Floats, coverage: float) -> list[list[Label]]:
        """Return for each query the labels that cannot be ruled out, most likely first.

        Args:
            scores: what :meth:`scores` returned, calibrated ``[Q, C]``.
            coverage: over tasks, the share of queries whose set holds the right label; see
                :meth:`~quickstudy.fitting.task.FittedTask.sets`.
        """
        coverage = share(coverage, "coverage")
        inside = self.task.sets_of(tensor_of(scores), coverage=coverage).numpy()
        order = np.argsort(-scores, axis=1)
        return [
            [self.classes[c] for c in best if row[c]]
            for row, best in zip(inside, order, strict=True)
        ]

    @checked
    def known_score(self, z: Floats) -> Floats:
        """Return how near each query is to the classes ``[Q]``: higher = more likely of one."""
        score: Floats = -self.task.novelty(tensor_of(z)).float().numpy()
        return score

    @checked
    def known(self, z: Floats, false_rejects: float = 0.05) -> Bools:
        """Return which queries are near enough to belong to a class ``[Q]``.

        Args:
            z: embeddings ``[Q, D]``.
            false_rejects: share of the queries of these classes that may be refused, from 0 to 1.
        """
        accept = 1 - share(false_rejects, "false_rejects")
        near: Bools = self.task.accepts(tensor_of(z), accept=accept).numpy()
        return near

    @checked
    def answers(
        self,
        z: Floats,
        *,
        unknown: Label | None = None,
        false_rejects: float = 0.05,
        coverage: float | None = None,
    ) -> list[Answer]:
        """Return everything about each query at once: label, probability, whether it is known.

        Args:
            z: embeddings ``[Q, D]``.
            unknown: the label of queries that are not known; ``None`` = always a class.
            false_rejects: see :meth:`known`.
            coverage: also return the labels that cannot be ruled out, see :meth:`label_sets`.
        """
        scores, known = self.scores(z), self.known(z, false_rejects)
        labels = self.labels(scores, known, unknown=unknown)
        best = self.probabilities(scores).max(1)
        nearest = [self.classes[c] for c in scores.argmax(1)]
        sets: list[tuple[Label, ...] | None] = [None] * len(z)
        if coverage is not None:
            sets = [tuple(inside) for inside in self.label_sets(scores, coverage)]
        return [
            Answer(plain_label(label), near, float(p), bool(sure), inside)
            for label, near, p, sure, inside in zip(labels, nearest, best, known, sets, strict=True)
        ]

    @checked
    def explain(self, z: Floats, *, n: int = 3, false_rejects: float = 0.05) -> list[Explanation]:
        """Return why each query gets its label: nearest support examples, distances, margin.

        Args:
            z: embeddings ``[Q, D]``.
            n: number of support examples to name.
            false_rejects: see :meth:`known`.
        """
        n = whole_number(n, "n")
        known, scores = self.known(z, false_rejects), self.scores(z)
        probabilities, distances = self.probabilities(scores), self._distances(z)
        return explanations(self.support, scores, probabilities, known, distances, n=n)

    @torch.no_grad()
    def _queries(self, z: Floats) -> Tensor:
        """Return queries in the space in which the head works ``[Q, D']``."""
        x = self.task.prior.transform(tensor_of(z))
        return self.task.head.placed(self.task.state, x[None])[0]

    def _distances(self, z: Floats) -> Floats:
        """Return the distances of queries to the support examples ``[Q, N]``: of unit vectors, or
        of standardised columns."""
        d: Floats = torch.cdist(self._queries(z), self._seen).numpy()
        return d

    def estimate_accuracy(self) -> Estimate:
        """Return the accuracy to expect on new inputs of these classes, with a 90 % interval."""
        if self.support.n_way < 2:
            return Estimate(1.0, 1.0, 1.0, 0.9, "there is one class only")
        return self.task.expected_accuracy()

    @checked
    def suspects(self, *, all: bool = False) -> list[Suspect]:
        """Return the examples whose label is as likely wrong as right, worst first; with ``all`` a
        ranking of all, but for those that are alone in their class, which is unknown without them.
        """
        ranked = ranked_suspects(self.support, self.task)
        return ranked if all else worth_checking(ranked, self.task)

    @checked
    def label_next(self, z: Floats, n: int = 10) -> Ints:
        """Return the rows of ``z`` whose labels would help most, best first ``[<= n]``: see
        :func:`~quickstudy.estimators.explaining.rows_to_label`.

        Args:
            z: embeddings of inputs without labels ``[Q, D]``.
            n: largest number of rows.
        """
        n = whole_number(n, "n")
        probabilities, distances = self.probabilities(self.scores(z)), self._distances(z)
        return rows_to_label(probabilities, self._queries(z), distances, n=n)

"""``FewShotClassifier``: a classifier from a handful of examples, changed as fast as made."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from quickstudy.core import CheckpointError, ConfigError, DataError, TaskError
from quickstudy.core.values import is_missing
from quickstudy.embedders.base import Embedder, Item
from quickstudy.embedders.choose import get_embedder
from quickstudy.estimators.answers import Answer, Conflict, Edit, Explanation, Suspect
from quickstudy.estimators.labels import Label, as_labels, label_array, plain_label
from quickstudy.estimators.model import Model
from quickstudy.estimators.support import Floats, Support
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.shipped import shipped_prior
from quickstudy.fitting.task import Estimate

if TYPE_CHECKING:
    from quickstudy.estimators.export import Exported
    from quickstudy.fitting.task import FittedTask

__all__ = ["FewShotClassifier"]


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns classes from a handful of examples each; no training step, new classes at once.

    A frozen encoder embeds the examples, what auxiliary tasks taught about its embeddings (the
    prior) is applied, and a head learns the task.

    Args:
        encoder: ``"image"`` (EfficientNet-lite0), ``"characters"`` (our own net for handwriting and
            drawings), ``"text"`` (MiniLM), ``"table"`` (standardised columns), the folder of a run
            of ours or of a Hugging Face text model, an ``nn.Module``, any callable that returns
            embeddings ``[N, D]``, or an :class:`Embedder`.
        head: ``"auto"``, ``"prototype"``, ``"ridge"``, ``"logistic"``, ``"kernel"`` (logistic
            with a Gaussian kernel), ``"neighbours"``, ``"gradient"``, or ``"class-mean"``, whose
            scores of a class are the same to the last bit whatever other classes come or go.
        unknown: what :meth:`predict` answers for inputs that are too far from every class;
            ``None`` = always the nearest class.
        false_rejects: share of known inputs that may be taken for unknown, from 0 to 1.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...

    Attributes:
        classes_: labels in the order of the columns of :meth:`predict_proba`. :meth:`fit` sorts
            them; a class that is added later comes last.
        head_: name of the head in use.

    Example::

        clf = FewShotClassifier("text").fit(["pay my bill", "block the card"], ["bill", "card"])
        clf.predict(["my card was stolen"])
    """

    def __init__(
        self,
        encoder: Any = "image",
        *,
        head: str = "auto",
        unknown: Hashable | None = None,
        false_rejects: float = 0.05,
        device: str = "auto",
    ) -> None:
        self.encoder = encoder
        self.head = head
        self.unknown = unknown
        self.false_rejects = false_rejects
        self.device = device

    # ------------------------------------------------------------ learning

    def fit(self, X: Any, y: Any) -> Self:
        """Learn a task, at once; whatever was learned before is forgotten.

        Args:
            X: inputs of the encoder's kind: paths, PIL images or arrays; texts; a table.
            y: their labels ``[N]``, of any type that can be compared and hashed.

        Raises:
            DataError: if an input cannot be used; the row is named.
            TaskError: if there are no examples, or the labels do not fit them.
        """
        self._check_settings()
        embedder = get_embedder(self.encoder, device=self.device)
        labels = as_labels(y)
        _refuse_sparse(X)
        items = embedder.read(X)
        if len(items) != len(labels):
            raise TaskError(f"got {len(items)} inputs and {len(labels)} labels. Give one of each.")
        classes, codes = np.unique(labels, return_inverse=True)
        self.embedder_: Embedder = embedder.fit(items)
        z, items = self._embed_support(items)
        names = tuple(plain_label(label) for label in classes)
        support = Support(names, tuple(items), codes.astype(np.int64).reshape(-1), z)
        self.prior_: TaskPrior = shipped_prior(self.embedder_)
        if (width := _width(X)) is not None:
            self.n_features_in_ = width
        self._past: list[tuple[Support, Embedder]] = []
        self._set(support)
        return self

    def add_examples(self, X: Any, y: Any) -> Edit:
        """Add labelled examples, of classes that exist or are new.

        Args:
            X: inputs.
            y: their labels, or one label for all of them.
        """
        start = time.perf_counter()
        self._check_fitted()
        items = self.embedder_.read(X)
        _refuse_none(y)
        labels = [y] * len(items) if isinstance(y, (str, bytes)) or np.ndim(y) == 0 else list(y)
        if not items or len(labels) != len(items):
            raise TaskError(
                f"got {len(items)} inputs and {len(labels)} labels. Give one label for each, or "
                "one for all."
            )
        return self._add(items, labels, "added", start)

    def add_class(self, label: Label, X: Any) -> Edit:
        """Add a class with its examples; its column is the last.

        Raises:
            ConfigError: if there is such a class already.
        """
        start = time.perf_counter()
        self._check_fitted()
        _refuse_none(label)
        if plain_label(label) in self._support:
            raise ConfigError(
                f"there is a class {label!r} already. Use add_examples to give it more examples, "
                "or remove_class first."
            )
        items = self.embedder_.read(X)
        return self._add(items, [label] * len(items), f"added class {label!r}:", start)

    def _add(self, items: list[Item], labels: list[Any], what: str, start: float) -> Edit:
        z, items = self._embed_support(items)
        support = self._support
        plain = [plain_label(label) for label in labels]
        for label in dict.fromkeys(plain):
            rows = [i for i, other in enumerate(plain) if other == label]
            support = support.with_examples(label, [items[i] for i in rows], z[rows])
        what = f"{what} {_count(len(items), 'example')} of {_named(dict.fromkeys(plain))}"
        return self._edit(support, what, start)

    def remove_class(self, label: Label) -> Edit:
        """Remove a class and its examples.

        Raises:
            ConfigError: if there is no such class; the nearest names are offered.
            TaskError: if it is the last one.
        """
        start = time.perf_counter()
        self._check_fitted()
        support = self._support.without_class(plain_label(label))
        return self._edit(support, f"removed class {label!r}", start)

    def rename_class(self, old: Label, new: Label) -> Edit:
        """Give a class another name; nothing else changes.

        Raises:
            ConfigError: if there is no class ``old``, or ``new`` is taken.
        """
        start = time.perf_counter()
        self._check_fitted()
        _refuse_none(new)
        support = self._support.renamed(plain_label(old), plain_label(new))
        what = f"renamed class {old!r} to {new!r}"
        return self._edit(support, what, start, renamed=True)

    def remove_examples(self, rows: Sequence[int]) -> Edit:
        """Remove examples by row in :attr:`support_`; a class that loses its last one goes."""
        start = time.perf_counter()
        self._check_fitted()
        if np.ndim(rows) != 1:
            raise ConfigError(f"rows of the support come as a list; got {rows!r}. Give [{rows!r}].")
        chosen = [self._row(row) for row in rows]
        support = self._support.without_examples(chosen)
        return self._edit(support, f"removed {_count(len(set(chosen)), 'example')}", start)

    def relabel(self, row: int, label: Label) -> Edit:
        """Correct the label of the example in a row of :attr:`support_`."""
        start = time.perf_counter()
        self._check_fitted()
        support = self._support.relabelled(self._row(row), plain_label(label))
        return self._edit(support, f"relabelled example {row} as {label!r}", start)

    def undo(self) -> Edit:
        """Take the last change back; the task is exactly what it was before.

        Raises:
            TaskError: if there is nothing to take back.
        """
        start = time.perf_counter()
        self._check_fitted()
        if not self._past:
            raise TaskError("there is nothing to undo: the task is as it was fitted or loaded.")
        support, embedder = self._past.pop()
        before, self.embedder_ = self.embedder_, embedder
        same = np.array_equal(support.z, self._support.z)
        renamed = same and np.array_equal(support.y, self._support.y)
        self._set(support)
        return self._record("undid the last change", start, before, renamed=renamed)

    # ------------------------------------------------------------ answering

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the label of each input ``[Q]``, or ``unknown`` where that is set and the input is
        far from every class."""
        z = self._embed(X)
        return self._labels(self._model.scores(z), None if self.unknown is None else self._known(z))

    def _labels(self, scores: Floats, known: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any]:
        labels: npt.NDArray[Any] = self.classes_[scores.argmax(1)]
        if self.unknown is None or known is None or known.all():
            return labels
        # a label of another type than the classes' is kept as it is
        mixed = labels.astype(object)
        mixed[~known] = self.unknown
        same = isinstance(self.unknown, str) and self.classes_.dtype.kind == "U"
        return mixed.astype(str) if same else mixed

    def predict_proba(self, X: Any) -> Floats:
        """Return calibrated probabilities ``[Q, C]``, given that it is one of the classes."""
        z = self._embed(X)
        return self._model.probabilities(self._model.scores(z))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on labelled inputs; an answer ``unknown`` to an input of a class is
        wrong, to an input labelled ``unknown`` it is right.

        Args:
            X: inputs.
            y: their labels ``[Q]``.
            sample_weight: weights ``[Q]``.
        """
        answers = self.predict(X)
        # a list of texts and numbers is not yet an array: it would make texts of the numbers
        labels = [plain_label(label) for label in (y.tolist() if hasattr(y, "tolist") else y)]
        if len(answers) != len(labels):
            raise TaskError(
                f"got {len(answers)} inputs and {len(labels)} labels. Give one of each."
            )
        # scikit-learn's own refuses labels of several types
        pairs = zip(answers.tolist(), labels, strict=True)
        return float(np.average([a == b for a, b in pairs], weights=sample_weight))

    def decision_function(self, X: Any) -> Floats:
        """Return the head's scores, before calibration: ``[Q, C]``, or ``[Q]`` for two classes (of
        the second over the first, as in scikit-learn)."""
        z = self._embed(X)
        scores = self._model.scores(z, calibrated=False)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def answer(self, X: Any, *, coverage: float | None = None) -> list[Answer]:
        """Return label, probability and more of each input at once.

        Args:
            X: inputs.
            coverage: also give the labels that cannot be ruled out, as :meth:`predict_set`.
        """
        z = self._embed(X)
        scores, known = self._model.scores(z), self._known(z)
        labels, best = self._labels(scores, known), self._model.probabilities(scores).max(1)
        nearest = [self._support.classes[c] for c in scores.argmax(1)]
        sets = [None] * len(z) if coverage is None else map(tuple, self._sets(scores, coverage))
        return [
            Answer(plain_label(label), near, float(p), bool(sure), inside)
            for label, near, p, sure, inside in zip(labels, nearest, best, known, sets, strict=True)
        ]

    def predict_set(self, X: Any, coverage: float = 0.9) -> list[list[Label]]:
        """Return for each input the labels that cannot be ruled out, most likely first.

        Conformal prediction: over tasks, the sets hold the right label with a probability of
        ``coverage`` (see :meth:`Model.sets`). An empty set is possible: nothing fits.

        Args:
            X: inputs.
            coverage: between 0 and 1.
        """
        z = self._embed(X)
        return self._sets(self._model.scores(z), coverage)

    def _sets(self, scores: Floats, coverage: float) -> list[list[Label]]:
        inside, order = self._model.sets(scores, coverage), np.argsort(-scores, axis=1)
        return [
            [self._support.classes[c] for c in best if row[c]]
            for row, best in zip(inside, order, strict=True)
        ]

    def known_score(self, X: Any) -> Floats:
        """Return how much each input looks like one of the classes ``[Q]``; higher = more."""
        z = self._embed(X)
        return self._model.known_score(z)

    def is_known(self, X: Any) -> npt.NDArray[np.bool_]:
        """Return whether each input is near enough to the task ``[Q]``: about ``false_rejects`` of
        the inputs that do belong to a class are refused."""
        return self._known(self._embed(X))

    # ------------------------------------------------------------ helping

    def explain(self, X: Any, *, n: int = 3) -> list[Explanation]:
        """Return for each input why it was answered so: nearest supports, distances, margin.

        Args:
            X: inputs.
            n: supports to name.
        """
        z = self._embed(X)
        return self._model.explain(z, self._known(z), n)

    def estimate_accuracy(self) -> Estimate:
        """Return the accuracy to expect on new inputs of these classes, with a 90 % interval."""
        self._check_fitted()
        return self._model.estimate()

    def suspects(self, *, all: bool = False) -> list[Suspect]:
        """Return the examples whose label the others contradict, worst first.

        Args:
            all: rank every example, also those that nothing speaks against.
        """
        self._check_fitted()
        evidence, suggestion = self._model.label_evidence()
        ranked = [
            Suspect(
                int(row),
                self._support.classes[self._support.y[row]],
                self._support.classes[suggestion[row]],
                float(evidence[row]),
                self._support.items[row].source,
            )
            for row in np.argsort(-evidence, kind="stable")
            if np.isfinite(evidence[row])
        ]
        return ranked if all else [suspect for suspect in ranked if suspect.evidence > 0]

    def conflicts(self) -> list[Conflict]:
        """Return the examples that were given twice under different labels."""
        self._check_fitted()
        return self._support.conflicts()

    def label_next(self, X: Any, n: int = 10) -> npt.NDArray[np.int64]:
        """Return the rows of ``X`` whose labels would help most, best first.

        The least certain inputs (smallest difference between the two best probabilities; Scheffer
        et al. 2001), but no two that lie closer to each other than to the support.

        Args:
            X: inputs without labels.
            n: at most so many.
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ConfigError(f"n must be a whole number of at least 1; got {n!r}.")
        z = self._embed(X)
        return self._model.label_next(z, int(n))

    # ------------------------------------------------------------ files

    def save(self, path: str | Path) -> None:
        """Write the task into one file: no pickle, hashed, see
        :mod:`quickstudy.estimators.taskfile`.

        Raises:
            CheckpointError: if it cannot be written, or a label cannot be kept in a file.
        """
        from quickstudy.estimators.saving import save_classifier

        self._check_fitted()
        if not str(path) or Path(path).is_dir():
            raise CheckpointError(f"save needs the name of a file; got {str(path)!r}.")
        save_classifier(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, encoder: Any = None, device: str = "auto") -> Self:
        """Read a task that :meth:`save` wrote.

        Args:
            path: the file.
            encoder: the callable or module that the task was made with, which no file can hold;
                not needed for encoders that have a name.
            device: where to embed.

        Raises:
            CheckpointError: if the file is damaged, altered, foreign, made by a newer version, or
                the encoder is not the one that the task was made with.
        """
        from quickstudy.estimators.saving import load_classifier

        return load_classifier(cls, Path(path), encoder=encoder, device=device)

    def export_onnx(self, path: str | Path, *, support_as_input: bool | None = None) -> Exported:
        """Write encoder, head and calibration as one ONNX graph for other runtimes.

        Inputs, float32: ``query`` and, if the support set is an input, ``support`` and
        ``membership`` ``[S, C]``, 1 where an example is of a class; any number of examples,
        queries and classes. :meth:`inputs` makes ``query`` and ``support`` of images; with text, a
        table or a function the graph takes embeddings, and :meth:`inputs` gives them. Outputs:
        ``logits`` and ``probabilities`` ``[Q, C]``. The calibration is that of this task.

        Args:
            path: the file.
            support_as_input: learn anew at each call, from any support set; the heads
                ``"prototype"``, ``"class-mean"`` and ``"ridge"`` can. ``False`` = the graph
                answers for this task. ``None`` = as the head allows.

        Raises:
            ConfigError: if the head cannot learn in a graph, or the encoder cannot be traced.
            MissingExtraError: if onnx or onnxscript is not installed.
            CheckpointError: if the file cannot be written.
        """
        from quickstudy.estimators.export import export_onnx

        self._check_fitted()
        return export_onnx(self, path, support_as_input=support_as_input)

    def inputs(self, X: Any) -> Floats:
        """Return what the graph of :meth:`export_onnx` takes for these inputs, float32 ``[N,
        ...]``."""
        self._check_fitted()
        return self.embedder_.inputs(X)

    # ------------------------------------------------------------ inside

    @property
    def fitted_task(self) -> FittedTask:
        """The task with its head, for those who look inside."""
        self._check_fitted()
        return self._model.task

    def __sklearn_tags__(self) -> Tags:
        """Return what scikit-learn may give: tables may hold text, which is a category."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    @property
    def support_(self) -> Support:
        """The labelled examples of the task."""
        self._check_fitted()
        return self._support

    @property
    def head_(self) -> str:
        """The name of the head in use."""
        self._check_fitted()
        return self._model.head_name

    def _embed_support(self, items: list[Item]) -> tuple[Floats, list[Item]]:
        """Return embeddings, and the items without what only the encoder needed."""
        z = self.embedder_.embed(items, progress=True)
        if self.embedder_.fitted:
            return z, items
        kept = [replace(i, value=None, preview=self.embedder_.preview(i)) for i in items]
        return z, kept

    def _set(self, support: Support) -> None:
        # heads are cheap: made anew for every version, so that an edit equals a refit
        self._model = Model(support, self.prior_, head=self.head)
        self._support = support
        self.classes_ = label_array(support.classes)

    def _edit(self, support: Support, what: str, start: float, *, renamed: bool = False) -> Edit:
        if not support.classes:
            raise TaskError("that would leave a task without classes. Fit another task instead.")
        embedder = self.embedder_
        if embedder.fitted:
            # its scales are those of the support, so they change with it
            embedder = embedder.fit(support.items)
            support = replace(support, z=embedder.embed(support.items))
        before = self._support, self.embedder_
        self._set(support)
        self.embedder_ = embedder
        self._past.append(before)
        return self._record(what, start, before[1], renamed=renamed)

    def _record(
        self, what: str, start: float, embedder: Embedder, *, renamed: bool = False
    ) -> Edit:
        # all other heads see a task from its own middle, which moves when a class comes or goes
        same_space = embedder.fingerprint == self.embedder_.fingerprint
        others_unchanged = renamed or (self.head_ == "class-mean" and same_space)
        s = self._support
        return Edit(what, s.n_way, len(s.items), others_unchanged, time.perf_counter() - start)

    def _row(self, row: int) -> int:
        n = len(self._support.items)
        if isinstance(row, bool) or not isinstance(row, (int, np.integer)) or not 0 <= row < n:
            raise ConfigError(f"rows of the support are 0 to {n - 1}; got {row!r}.")
        return int(row)

    def _embed(self, X: Any) -> Floats:
        self._check_fitted()
        _refuse_sparse(X)
        wanted, width = getattr(self, "n_features_in_", None), _width(X)
        if None not in (wanted, width) and width != wanted:
            raise DataError(
                f"X has {width} features, but FewShotClassifier is expecting {wanted} features as "
                "input. Give the columns that it was fitted on."
            )
        return self.embedder_.embed(self.embedder_.read(X), progress=True)

    def _restore(self, embedder: Embedder, prior: TaskPrior, support: Support) -> None:
        """Take over a task that was read from a file."""
        self.embedder_, self.prior_ = embedder, prior
        self._past = []
        self._set(support)

    def features(self, rows: npt.NDArray[np.int64]) -> Floats:
        """Return the embeddings of supports as the head sees them, ``[len(rows), D]``."""
        self._check_fitted()
        return self._model.z[rows]

    def _known(self, z: Floats) -> npt.NDArray[np.bool_]:
        return self._model.known(z, self.false_rejects)

    def _check_settings(self) -> None:
        rejects = self.false_rejects
        if not isinstance(rejects, int | float) or not 0 < rejects < 1:
            raise ConfigError(f"false_rejects must lie between 0 and 1; got {self.false_rejects}.")

    def _check_fitted(self) -> None:
        check_is_fitted(self, "embedder_")


def _width(X: Any) -> int | None:
    """Return the number of columns of a table, or ``None`` if it is none."""
    shape: tuple[int, ...] = getattr(X, "shape", ())
    return int(shape[1]) if len(shape) == 2 else None


def _refuse_none(label: Any) -> None:
    if is_missing(label):
        raise TaskError(f"{label!r} is no label. Give the class a name.")


def _refuse_sparse(X: Any) -> None:
    if issparse(X):
        raise DataError("sparse input is not supported. Give X.toarray().")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _named(labels: Any) -> str:
    names = [repr(label) for label in labels]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

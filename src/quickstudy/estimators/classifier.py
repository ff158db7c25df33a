"""``FewShotClassifier``: a scikit-learn classifier from a handful of examples, edited at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from quickstudy.core import CheckpointError, ConfigError, TaskError
from quickstudy.embedders.base import Embedder
from quickstudy.embedders.choose import get_embedder
from quickstudy.estimators.answers import Answer, Conflict, Edit, Explanation, Suspect
from quickstudy.estimators.export import Exported, export_onnx
from quickstudy.estimators.labels import Label, label_array, plain_label
from quickstudy.estimators.saving import load_task, save_task
from quickstudy.estimators.support import Bools, Floats, Ints, Support
from quickstudy.estimators.version import TaskVersion, edit_between
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import Estimate, FittedTask

__all__ = ["FewShotClassifier"]


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns classes from a handful of examples each, in a moment; classes can be added any time.

    A frozen encoder embeds the examples. The prior, what was learned from auxiliary tasks about
    embeddings of this encoder, is applied. Then a head learns the task.

    Args:
        encoder: ``"image"`` (EfficientNet-lite0), ``"characters"`` (our own net for handwriting and
            drawings), ``"text"`` (MiniLM), ``"table"`` (standardised columns), ``"array"``
            (embeddings), the folder of a run of ours or of a Hugging Face text model, an
            ``nn.Module``, any callable that returns embeddings ``[N, D]``, or an :class:`Embedder`.
        head: ``"auto"``, ``"prototype"``, ``"ridge"``, ``"logistic"``, ``"kernel"`` (logistic
            with a Gaussian kernel), ``"neighbours"``, ``"gradient"``, or ``"class-mean"``, with
            which the scores of a class do not change by a single bit if other classes come or go.
        unknown: what :meth:`predict` returns for inputs that are too far from every class;
            ``None`` = always the nearest class.
        false_rejects: share of the inputs of known classes that may be taken for unknown, from 0
            to 1.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...

    Several threads may predict and edit at the same time: edits are made one after the other, and
    each prediction is by one version of the task, the newest when it began (see
    :class:`~quickstudy.estimators.version.TaskVersion`).

    Example::

        from quickstudy.estimators import FewShotClassifier
        clf = FewShotClassifier("table").fit([[1.0, 2.0], [8.0, 9.0]], ["small", "large"])
        clf.add_class("medium", [[4.0, 5.0], [5.0, 4.0]])
        print(clf.predict([[7.0, 9.0]]), clf.predict_proba([[4.0, 4.0]]), clf.classes_)
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
        """Learn a task from labelled examples; what was learned before is forgotten.

        Args:
            X: inputs of the encoder's kind: paths, PIL images or arrays; texts; a table.
            y: their labels ``[N]``, of any type that can be compared and hashed.

        Raises:
            DataError: if an input cannot be used; the row is named.
            TaskError: if there are no examples, or the labels do not fit them.
        """
        rejects = self.false_rejects
        if not isinstance(rejects, int | float) or not 0 < rejects < 1:
            raise ConfigError(f"false_rejects must lie between 0 and 1; got {rejects}.")
        embedder = get_embedder(self.encoder, device=self.device)
        version = TaskVersion.fit(X, y, embedder=embedder, head=self.head)
        with self._edit_lock():
            # all that is learned is in this tuple: past versions, and last the current one
            self._versions: tuple[TaskVersion, ...] = (version,)
        return self

    def add_examples(self, X: Any, y: Any) -> Edit:
        """Add labelled examples, of classes that exist or are new.

        Args:
            X: inputs ``[M]``.
            y: their labels ``[M]``, or one label for all of them.
        """
        return self._change(lambda version: version.add_examples(X, y))

    def add_class(self, label: Label, X: Any) -> Edit:
        """Add a class with its examples; its column is the last.

        Raises:
            ConfigError: if there is a class of that label already.
        """
        return self._change(lambda version: version.add_class(label, X))

    def remove_class(self, label: Label) -> Edit:
        """Remove a class and its examples.

        Raises:
            ConfigError: if there is no such class; the nearest names are offered.
            TaskError: if it is the only one.
        """
        return self._change(lambda version: version.remove_class(label))

    def rename_class(self, old: Label, new: Label) -> Edit:
        """Give a class another name; nothing else changes.

        Raises:
            ConfigError: if there is no class ``old``, or ``new`` is taken.
        """
        return self._change(lambda version: version.rename_class(old, new))

    def remove_examples(self, rows: Sequence[int]) -> Edit:
        """Remove examples by row of :attr:`support_`, and classes that have no examples left."""
        return self._change(lambda version: version.remove_examples(rows))

    def relabel(self, row: int, label: Label) -> Edit:
        """Correct the label of the example in a row of :attr:`support_`."""
        return self._change(lambda version: version.relabel(row, label))

    def undo(self) -> Edit:
        """Undo the last change; the task is exactly what it was before.

        Raises:
            TaskError: if there is nothing to undo.
        """
        start = time.perf_counter()
        check_is_fitted(self)
        with self._edit_lock():
            *past, last = self._versions
            if not past:
                raise TaskError("there is nothing to undo: the task is as it was fitted or loaded.")
            self._versions = tuple(past)
        return edit_between(last, past[-1], "undid the last change", start)

    # ------------------------------------------------------------ answering

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the label of each input ``[Q]``; if ``unknown`` is set, it is the label of inputs
        that are far from every class."""
        version, unknown = self.version_, self.unknown
        z = version.embed(X)
        known = None if unknown is None else version.known(z, self.false_rejects)
        return version.labels(version.scores(z), known, unknown=unknown)

    def predict_proba(self, X: Any) -> Floats:
        """Return calibrated probabilities ``[Q, C]``, given that inputs belong to some class."""
        version = self.version_
        return version.probabilities(version.scores(version.embed(X)))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on labelled inputs.

        An input of no class may be labelled ``unknown``: then the answer ``unknown`` is right.

        Args:
            X: inputs ``[Q]``.
            y: their labels ``[Q]``.
            sample_weight: weights ``[Q]``; ``None`` = all equal.
        """
        answers = self.predict(X)
        # a list of texts and numbers stays a list: numpy would turn the numbers into text
        labels = [plain_label(label) for label in (y.tolist() if hasattr(y, "tolist") else y)]
        if len(answers) != len(labels):
            raise TaskError(
                f"got {len(answers)} inputs and {len(labels)} labels. Give one of each."
            )
        # scikit-learn's accuracy refuses labels of several types
        pairs = zip(answers.tolist(), labels, strict=True)
        return float(np.average([a == b for a, b in pairs], weights=sample_weight))

    def decision_function(self, X: Any) -> Floats:
        """Return the head's scores before calibration, ``[Q, C]``; for two classes ``[Q]``, the
        second's minus the first's, as in scikit-learn."""
        version = self.version_
        scores = version.scores(version.embed(X), calibrated=False)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def answer(self, X: Any, *, coverage: float | None = None) -> list[Answer]:
        """Return everything about each input at once: label, probability, whether it is known.

        Args:
            X: inputs ``[Q]``.
            coverage: also return the labels that cannot be ruled out, see :meth:`predict_set`.
        """
        version = self.version_
        return version.answers(
            version.embed(X),
            unknown=self.unknown,
            false_rejects=self.false_rejects,
            coverage=coverage,
        )

    def predict_set(self, X: Any, coverage: float = 0.9) -> list[list[Label]]:
        """Return for each input the labels that cannot be ruled out, most likely first.

        This is conformal prediction: over tasks, a set contains the right label with probability
        ``coverage`` (see :meth:`quickstudy.fitting.task.FittedTask.sets`). A set is empty if no
        class fits.

        Args:
            X: inputs ``[Q]``.
            coverage: between 0 and 1.
        """
        version = self.version_
        return version.label_sets(version.scores(version.embed(X)), coverage)

    def known_score(self, X: Any) -> Floats:
        """Return how near each input is to the classes ``[Q]``; higher = more likely of one."""
        version = self.version_
        return version.known_score(version.embed(X))

    def is_known(self, X: Any) -> Bools:
        """Return whether each input is near enough to belong to a class ``[Q]``; it is ``False``
        for about ``false_rejects`` of the inputs that do."""
        version = self.version_
        return version.known(version.embed(X), self.false_rejects)

    # ------------------------------------------------------------ explaining and checking

    def explain(self, X: Any, *, n: int = 3) -> list[Explanation]:
        """Return why each input gets its label: nearest support examples, distances, margin.

        Args:
            X: inputs ``[Q]``.
            n: number of support examples to name.
        """
        version = self.version_
        return version.explain(version.embed(X), n=n, false_rejects=self.false_rejects)

    def estimate_accuracy(self) -> Estimate:
        """Return the accuracy to expect on new inputs of these classes, with a 90 % interval."""
        return self.version_.estimate_accuracy()

    def suspects(self, *, all: bool = False) -> list[Suspect]:
        """Return the examples whose label the others contradict, worst first.

        Args:
            all: rank all examples, also those that no other contradicts.
        """
        return self.version_.suspects(all=all)

    def conflicts(self) -> list[Conflict]:
        """Return the examples that were given more than once, under different labels."""
        return self.support_.conflicts()

    def label_next(self, X: Any, n: int = 10) -> Ints:
        """Return the rows of ``X`` whose labels would help most, best first.

        These are the least certain inputs (smallest difference between the two largest
        probabilities; Scheffer et al. 2001), leaving out inputs that are much like a chosen one.

        Args:
            X: inputs without labels ``[Q]``.
            n: largest number of rows.
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ConfigError(f"n must be a whole number of at least 1; got {n!r}.")
        version = self.version_
        return version.label_next(version.embed(X), int(n))

    # ------------------------------------------------------------ files

    def save(self, path: str | Path) -> None:
        """Write the task into one file, without pickle and with hashes, see
        :mod:`quickstudy.estimators.taskfile`. Earlier versions (:meth:`undo`) are not written.

        Raises:
            CheckpointError: if it cannot be written, or a label of this type cannot be saved.
        """
        version = self.version_.with_head(self.head)
        if not str(path) or Path(path).is_dir():
            raise CheckpointError(f"save needs the name of a file; got {str(path)!r}.")
        save_task(version, Path(path), unknown=self.unknown, false_rejects=self.false_rejects)

    @classmethod
    def load(cls, path: str | Path, *, encoder: Any = None, device: str = "auto") -> Self:
        """Read a task that :meth:`save` wrote.

        Args:
            path: the file.
            encoder: the callable or module that the task was made with, which no file can contain;
                not needed for encoders that have a name.
            device: where to embed.

        Raises:
            CheckpointError: if the file is damaged, altered, no task file or made by a newer
                version, or the encoder is not the one that the task was made with.
        """
        saved = load_task(Path(path), encoder=encoder, device=device)
        clf = cls(
            saved.encoder,
            head=saved.version.head,
            unknown=saved.unknown,
            false_rejects=saved.false_rejects,
            device=device,
        )
        clf._versions = (saved.version,)
        return clf

    def export_onnx(self, path: str | Path, *, support_as_input: bool | None = None) -> Exported:
        """Write encoder, head and calibration as one ONNX graph for other runtimes.

        The inputs are float32: ``query`` and, if the support set is an input too, ``support`` and
        ``membership`` ``[S, C]``, which is 1 where an example belongs to a class and else 0. There
        may be any number of examples, queries and classes. Make ``query`` and ``support`` with
        :meth:`inputs`: pixels of images; embeddings of texts, tables and what a function embeds.
        The outputs are ``logits`` and ``probabilities`` ``[Q, C]``, calibrated for this task.

        Args:
            path: the file.
            support_as_input: whether the graph learns from a support set at each call; the heads
                ``"prototype"``, ``"class-mean"`` and ``"ridge"`` can. ``False`` = the graph
                contains this task. ``None`` = ``True`` if the head can.

        Raises:
            ConfigError: if the head cannot learn in a graph, or the encoder cannot be traced.
            MissingExtraError: if onnx or onnxscript is not installed.
            CheckpointError: if the file cannot be written.
        """
        return export_onnx(self.version_, path, support_as_input=support_as_input)

    def inputs(self, X: Any) -> Floats:
        """Return the inputs in the form that the graph of :meth:`export_onnx` takes, float32
        ``[N, ...]``."""
        return self.embedder_.inputs(X)

    # ------------------------------------------------------------ what was learned

    @property
    def version_(self) -> TaskVersion:
        """The current version of the task.

        To read several of its parts, get it once: the next edit replaces it.
        """
        check_is_fitted(self)
        return self._versions[-1]

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Labels in the order of the columns of :meth:`predict_proba` ``[C]``. :meth:`fit` sorts
        them; a class that is added later comes last."""
        return label_array(self.version_.classes)

    @property
    def support_(self) -> Support:
        """The labelled examples of the task."""
        return self.version_.support

    @property
    def head_(self) -> str:
        """The name of the head in use."""
        return self.version_.head_name

    @property
    def embedder_(self) -> Embedder:
        """What makes embeddings of inputs."""
        return self.version_.embedder

    @property
    def prior_(self) -> TaskPrior:
        """What was learned from auxiliary tasks about embeddings of this encoder."""
        return self.version_.prior

    @property
    def fitted_task(self) -> FittedTask:
        """The fitted head with its state and calibration."""
        return self.version_.task

    @property
    def n_features_in_(self) -> int:
        """The number of columns seen by :meth:`fit`, where it was given a table."""
        n_features = self.version_.n_features
        if n_features is None:
            raise AttributeError("n_features_in_: the inputs of fit had no columns.")
        return n_features

    # ------------------------------------------------------------ inside

    def _change(self, edit: Callable[[TaskVersion], TaskVersion]) -> Edit:
        """Replace the current version by an edited one, and keep it for :meth:`undo`."""
        check_is_fitted(self)
        with self._edit_lock():
            versions = self._versions
            # set_params may have changed the head since fit: the next edit uses the new one
            after = edit(versions[-1].with_head(self.head))
            self._versions = (*versions, after)
        assert after.edit is not None  # an edited version has one
        return after.edit

    def _edit_lock(self) -> threading.RLock:
        # not made in __init__, where scikit-learn allows nothing but parameters; setdefault is
        # atomic, so two threads get the same lock
        lock: threading.RLock = self.__dict__.setdefault("_lock", threading.RLock())
        return lock

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle contains: all but the lock, which cannot be copied."""
        state = dict(super().__getstate__())
        state.pop("_lock", None)
        return state

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether there is a task: what was learned are properties, not attributes."""
        return hasattr(self, "_versions")

    def __sklearn_tags__(self) -> Tags:
        """Return which inputs scikit-learn's tests may use: tables may hold text, as categories."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags

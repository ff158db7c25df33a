"""``FewShotClassifier``: a scikit-learn classifier from a handful of examples, edited at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from quickstudy.core import CheckpointError, ConfigError, TaskError
from quickstudy.core.arguments import checked
from quickstudy.embedders.base import Embedder
from quickstudy.embedders.choose import get_embedder
from quickstudy.estimators.answers import Answer, Conflict, Edit, Explanation, Suspect
from quickstudy.estimators.by_class import ClassEstimate, class_estimates
from quickstudy.estimators.editing import edit_between
from quickstudy.estimators.export import Exported, export_onnx
from quickstudy.estimators.given import answer_for_strangers, share, whole_number
from quickstudy.estimators.history import History
from quickstudy.estimators.labels import Label, label_array, match_labels
from quickstudy.estimators.report import Report, report_on
from quickstudy.estimators.saving import load_task, save_task
from quickstudy.estimators.support import Bools, Floats, Ints, Support
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import Estimate, FittedTask
from quickstudy.tasks.roles import Roles

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
            with a Gaussian kernel), ``"neighbours"``, ``"gradient"``, ``"lda"``, ``"extra-trees"``,
            ``"random-forest"``, ``"vote"`` (``"auto"`` on tables), ``"incontext"`` (not on tables),
            ``"class-mean"``, whose scores do not change by a bit if other classes come or go.
        unknown: what :meth:`predict` returns for inputs that are too far from every class;
            ``None`` = always the nearest class. No class may have this name, at no time.
        false_rejects: share of the inputs of known classes that may be taken for unknown, from 0
            to 1.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...

    Several threads may predict and edit at the same time: edits are made one after the other, and
    each prediction is by one version of the task, the newest when it began (see
    :class:`~quickstudy.estimators.version.TaskVersion`). The last 20 edits can be undone; copies,
    pickles and files hold the current version alone.

    Example::

        from quickstudy.estimators import FewShotClassifier
        clf = FewShotClassifier("table").fit([[1.0, 2.0], [8.0, 9.0]], ["small", "large"])
        clf.add_class("medium", [[4.0, 5.0], [5.0, 4.0]])
        print(clf.predict([[7.0, 9.0]]), clf.predict_proba([[4.0, 4.0]]), clf.classes_)
    """

    roles_: Roles | None = None
    """What the columns of the table were taken for, if the task was learned from a file."""

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

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Learn a task from labelled examples; what was learned before is forgotten.

        Args:
            X: inputs of the encoder's kind: paths, PIL images or arrays; texts; a table.
            y: their labels ``[N]``: text, whole numbers or truth values; 1 and ``"1"`` together
                are refused.
            groups: what belongs together ``[N]``: the frames of one film, the photos of one object.
                They are held out together: what the task says of itself holds for new films and
                objects. ``None`` = every example stands alone.

        Raises:
            DataError: if an input cannot be used; the row is named.
            TaskError: if there are no examples, or a label or group is missing; the row is named.
            ConfigError: if a parameter is not usable, or ``unknown`` is a class.
        """
        share(self.false_rejects, "false_rejects")
        if not isinstance(self.head, str):
            raise ConfigError(f"there is no head {self.head!r}. Give its name, or 'auto'.")
        embedder = get_embedder(self.encoder, device=self.device)
        version = TaskVersion.fit(X, y, embedder=embedder, head=self.head, groups=groups)
        self._unknown(version)
        with self._edit_lock():
            self.roles_ = None
            # all that is learned is in this pair, which is replaced as a whole
            self._task: tuple[TaskVersion, History] = version, History()
        return self

    def add_examples(self, X: Any, y: Any, *, groups: Any = None) -> Edit:
        """Add labelled examples, of classes that exist or are new; ``"1"`` names the class 1.

        Args:
            X: inputs ``[M]``.
            y: their labels ``[M]``, or one label for all of them.
            groups: what belongs together ``[M]``, also with examples of the task, see :meth:`fit`.

        Raises:
            DataError: if an input cannot be used; the row is named.
            TaskError: if the labels do not fit the inputs, one is missing or cannot be a label.
            ConfigError: if a label is ``unknown``.
        """
        return self._change(lambda version: version.add_examples(X, y, groups=groups))

    @checked
    def add_class(self, label: Label, X: Any, *, groups: Any = None) -> Edit:
        """Add a class with its examples (and their groups); its column is the last.

        Raises:
            ConfigError: if there is a class of that label already.
        """
        return self._change(lambda version: version.add_class(label, X, groups=groups))

    @checked
    def remove_class(self, label: Label) -> Edit:
        """Remove a class and its examples.

        Raises:
            ConfigError: if there is no such class; the nearest names are offered.
            TaskError: if it is the only one.
        """
        return self._change(lambda version: version.remove_class(label))

    @checked
    def rename_class(self, old: Label, new: Label) -> Edit:
        """Give a class another name; nothing else changes.

        Raises:
            ConfigError: if there is no class ``old``, or ``new`` is taken.
        """
        return self._change(lambda version: version.rename_class(old, new))

    def remove_examples(self, rows: Iterable[int]) -> Edit:
        """Remove examples by row of :attr:`support_`, and classes that have no examples left."""
        return self._change(lambda version: version.remove_examples(rows))

    @checked
    def relabel(self, row: int, label: Label) -> Edit:
        """Correct the label of the example in a row of :attr:`support_`."""
        return self._change(lambda version: version.relabel(row, label))

    def undo(self) -> Edit:
        """Undo the last change; the task is exactly what it was before.

        Raises:
            TaskError: if there is nothing to undo, or 20 changes were undone: what lies before
                them is not kept.
        """
        start = time.perf_counter()
        check_is_fitted(self)
        with self._edit_lock():
            last, history = self._task
            before, history = history.back(last)
            self._unknown(before)
            self._task = before, history
        return edit_between(last, before, "undid the last change", start)

    @checked
    def name_examples(self, names: Sequence[str]) -> Self:
        """Name the examples ``[N]`` that have no name, for people. This is no edit."""
        check_is_fitted(self)
        with self._edit_lock():
            version, history = self._task
            self._task = version.with_names(names), history
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the label of each input ``[Q]``; if ``unknown`` is set, it is the label of inputs
        that are far from every class.

        The type of the array does not depend on the inputs: it is one of objects if ``unknown`` is
        of another type than the classes.
        """
        version = self.version_
        unknown = self._unknown(version)
        z = version.embed(X)
        known = None if unknown is None else version.known(z, self.false_rejects)
        return version.labels(version.scores(z), known, unknown=unknown)

    def predict_proba(self, X: Any) -> Floats:
        """Return calibrated probabilities ``[Q, C]``, given that inputs belong to some class."""
        version = self.version_
        return version.probabilities(version.scores(version.embed(X)))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on labelled inputs.

        An input of no class may be labelled ``unknown``: then the answer ``unknown`` is right. A
        label in another spelling of the same value (``"1"`` for 1) is the same label.

        Args:
            X: inputs ``[Q]``.
            y: their labels ``[Q]``.
            sample_weight: weights ``[Q]``; ``None`` = all equal.
        """
        answers = self.predict(X)
        labels = list(y)
        if len(answers) != len(labels):
            raise TaskError(
                f"got {len(answers)} inputs and {len(labels)} labels. Give one of each."
            )
        names = [*self.classes_.tolist(), *([] if self.unknown is None else [self.unknown])]
        given = match_labels(labels, names).columns
        # scikit-learn's accuracy refuses labels of several types
        right = [a == names[c] and c >= 0 for a, c in zip(answers.tolist(), given, strict=True)]
        return float(np.average(right, weights=sample_weight))

    def decision_function(self, X: Any) -> Floats:
        """Return the head's scores before calibration, ``[Q, C]``; for two classes ``[Q]``, the
        second's minus the first's, as in scikit-learn."""
        version = self.version_
        scores = version.scores(version.embed(X), calibrated=False)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    @checked
    def answer(self, X: Any, *, coverage: float | None = None) -> list[Answer]:
        """Return everything about each input at once: label, probability, whether it is known.

        Args:
            X: inputs ``[Q]``.
            coverage: also return the labels that cannot be ruled out, see :meth:`predict_set`.
        """
        version = self.version_
        return version.answers(
            version.embed(X),
            unknown=self._unknown(version),
            false_rejects=self.false_rejects,
            coverage=coverage,
        )

    @checked
    def predict_set(self, X: Any, coverage: float = 0.9) -> list[list[Label]]:
        """Return for each input the labels that cannot be ruled out, most likely first.

        Over tasks, a set contains the right label with probability ``coverage`` (see
        :meth:`quickstudy.fitting.task.FittedTask.sets`). A set is empty if no class fits.

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

    @checked
    def explain(self, X: Any, *, n: int = 3) -> list[Explanation]:
        """Return why each input gets its label: nearest support examples, distances, margin.

        Args:
            X: inputs ``[Q]``.
            n: number of support examples to name.
        """
        n = whole_number(n, "n")
        version = self.version_
        return version.explain(version.embed(X), n=n, false_rejects=self.false_rejects)

    def estimate_accuracy(self) -> Estimate:
        """Return the accuracy to expect on new inputs of these classes, with a 90 % interval."""
        return self.version_.estimate_accuracy()

    def report(self) -> Report:
        """Return whether the prior knows such tasks, and what each number rests on, in words."""
        return report_on(self.version_.task, self.false_rejects)

    def class_estimates(self) -> list[ClassEstimate]:
        """Return what to expect of each class ``[C]``; rare ones hide in :meth:`estimate_accuracy`
        and :meth:`predict_set`, which average over inputs."""
        version = self.version_
        return class_estimates(version.support, version.task)

    @checked
    def suspects(self, *, all: bool = False) -> list[Suspect]:
        """Return the examples whose label is as likely wrong as right, worst first; with ``all``
        a ranking of all examples."""
        return self.version_.suspects(all=all)

    def conflicts(self) -> list[Conflict]:
        """Return the examples that were given more than once, under different labels."""
        return self.support_.conflicts()

    def label_next(self, X: Any, n: int = 10) -> Ints:
        """Return the rows of ``X`` whose labels would help most, best first: see
        :func:`~quickstudy.estimators.explaining.rows_to_label`.

        Args:
            X: inputs without labels ``[Q]``.
            n: largest number of rows.
        """
        n = whole_number(n, "n")
        version = self.version_
        return version.label_next(version.embed(X), n)

    @checked
    def save(self, path: str | Path) -> None:
        """Write the task into one file, without pickle and with hashes, see
        :mod:`quickstudy.estimators.taskfile`. Earlier versions (:meth:`undo`) are not written.

        Raises:
            CheckpointError: if it cannot be written, or a label of this type cannot be saved.
        """
        version = self.version_.with_head(self.head)
        if not str(path) or Path(path).is_dir():
            raise CheckpointError(f"save needs the name of a file; got {str(path)!r}.")
        save_task(
            version,
            Path(path),
            unknown=self._unknown(version),
            false_rejects=share(self.false_rejects, "false_rejects"),
            roles=self.roles_,
        )

    @classmethod
    @checked
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
        clf.roles_ = saved.roles
        clf._task = saved.version, History()
        return clf

    @checked
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
                ``"prototype"``, ``"class-mean"``, ``"ridge"`` and ``"incontext"`` can. ``False`` =
                the graph contains this task. ``None`` = ``True`` if the head can.

        Raises:
            ConfigError: if the head cannot learn in a graph, or the encoder cannot be traced.
            MissingExtraError: if onnx or onnxscript is not installed.
            CheckpointError: if the file cannot be written.
        """
        return export_onnx(self.version_, path, support_as_input=support_as_input)

    def inputs(self, X: Any) -> Floats:
        """Return the inputs that the graph of :meth:`export_onnx` takes, float32 ``[N, ...]``."""
        return self.embedder_.inputs(X)

    @property
    def version_(self) -> TaskVersion:
        """The current version of the task.

        To read several of its parts, get it once: the next edit replaces it.
        """
        check_is_fitted(self)
        return self._task[0]

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
        if (n_features := self.version_.n_features) is None:
            raise AttributeError("n_features_in_: the inputs of fit had no columns.")
        return n_features

    def set_params(self, **params: Any) -> Self:
        """Set parameters, as scikit-learn does; ``unknown`` may not become the name of a class.

        Raises:
            ConfigError: if it would; then nothing is set.
        """
        if "unknown" in params and hasattr(self, "_task"):
            answer_for_strangers(params["unknown"], self.version_.classes)
        super().set_params(**params)
        return self

    def _unknown(self, version: TaskVersion) -> Label | None:
        return answer_for_strangers(self.unknown, version.classes)

    def _change(self, edit: Callable[[TaskVersion], TaskVersion]) -> Edit:
        """Replace the current version by an edited one, and keep what :meth:`undo` needs."""
        check_is_fitted(self)
        with self._edit_lock():
            before, history = self._task
            # set_params may have changed the head since fit: the next edit uses the new one
            after = edit(before.with_head(self.head))
            self._unknown(after)
            if after.support is not before.support:
                self._task = after, history.after(before, after)
        assert after.edit is not None  # an edited version has one
        return after.edit

    def _edit_lock(self) -> threading.RLock:
        # not made in __init__, where scikit-learn allows parameters alone; setdefault is atomic
        return cast(threading.RLock, self.__dict__.setdefault("_lock", threading.RLock()))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle contains: the current version, no history, no lock."""
        state = dict(super().__getstate__())
        state.pop("_lock", None)
        if "_task" in state:
            state["_task"] = state["_task"][0], History()
        return state

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether there is a task: what was learned are properties, not attributes."""
        return hasattr(self, "_task")

    def __sklearn_tags__(self) -> Tags:
        """Return which inputs scikit-learn's tests may use: tables may hold text, as categories."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags

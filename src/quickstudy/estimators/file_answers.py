"""Classifies files with a task file: ``quickstudy predict``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.core import ConfigError
from quickstudy.core.words import count, quiet, shortened, some
from quickstudy.estimators.agreement import Agreement, agreement
from quickstudy.estimators.answers import Answer
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.embedding import embed_each
from quickstudy.estimators.file_inputs import Given, folder_labels, inputs_of, roles_of, texts_of
from quickstudy.estimators.labels import Label
from quickstudy.tasks.labelled import LabelledFiles

__all__ = ["FileAnswers", "predict_files"]

_MOST_CHARACTERS = {"input": 60, "label": 30, "error": 200}  # in a line for people
_MOST_LABELS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class FileAnswers:
    """The answers of a task to inputs from files.

    Args:
        task: the task file.
        inputs: as they were read, with the right labels if the table or the folder has them.
        answers: one for each input; ``None`` = the input could not be used.
        errors: why, by the position of such an input.
        classes: of the task ``[C]``.
        probabilities: of each class, given that the input belongs to one ``[N, C]``; NaN where
            there is no answer.
        top: how many of the most likely classes each record lists; 0 = only the answer.
        agreement: answers beside the right labels; ``None`` if those are not known.
        labels_from: where the right labels stand, in words.

    Example::

        from quickstudy.estimators.files import fit_files, predict_files
        Path("sizes.csv").write_text("width,height,label\\n1,2,small\\n2,1,small\\n8,9,large\\n9,8,large\\n")
        fit_files("sizes.csv", "sizes.task")
        found = predict_files("sizes.task", "sizes.csv", label="label", top=2)
        print(found.accuracy, found.errors, found.rows()[0]["top"])
    """

    task: Path
    inputs: LabelledFiles = field(repr=False)
    answers: tuple[Answer | None, ...] = field(repr=False)
    errors: Mapping[int, str] = field(default_factory=dict)
    classes: tuple[Label, ...] = ()
    probabilities: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    top: int = 0
    agreement: Agreement | None = field(default=None, repr=False)
    labels_from: str = "the column of labels"

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; ``None`` if the right labels are not known."""
        return None if self.agreement is None else self.agreement.accuracy

    @property
    def counts(self) -> dict[Label, int]:
        """How many inputs were answered with each label, most frequent first."""
        given = Counter(answer.label for answer in self.answers if answer is not None)
        return dict(given.most_common())

    @property
    def n_unknown(self) -> int:
        """How many inputs are far from every class."""
        return sum(answer is not None and not answer.known for answer in self.answers)

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-ready record for each input.

        Where an input could not be used, ``error`` says why, and the other values are ``None``.
        """
        return [self._row(row) for row in range(len(self.answers))]

    def _row(self, row: int) -> dict[str, Any]:
        answer = self.answers[row]
        record: dict[str, Any] = {"input": self.inputs.names[row]}
        if answer is None:
            nothing = dict.fromkeys(("label", "nearest", "probability", "known"))
            return record | nothing | {"error": self.errors[row]}
        record |= {
            "label": answer.label,
            "nearest": answer.nearest,
            "probability": round(answer.probability, 4),
            "known": answer.known,
        }
        if answer.labels is not None:
            record["set"] = list(answer.labels)
        if self.top and self.probabilities is not None:
            p = self.probabilities[row]
            best = np.argsort(-p, kind="stable")[: self.top]
            record["top"] = [
                {"label": self.classes[c], "probability": round(float(p[c]), 4)} for c in best
            ]
        return record

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        document: dict[str, Any] = {
            "task": str(self.task),
            "answers": self.rows(),
            "counts": [{"label": label, "n": n} for label, n in self.counts.items()],
            "unknown": self.n_unknown,
            "errors": len(self.errors),
        }
        if self.agreement is None or self.agreement.accuracy is None:
            return document
        return document | self.agreement.to_dict()

    def text(self, *, each: bool = True) -> str:
        """Return the report for people.

        Args:
            each: whether to begin with a line for each input.

        Returns:
            These lines, then a summary; if the right labels are known, a table by class, what was
            mistaken for what, and last the accuracy.
        """
        lines = [_line(row) for row in self.rows()] if each else []
        lines.append(self._summary())
        if self.agreement is not None and self.accuracy is not None:
            share = f"{100 * self.accuracy:.2f} % of {self.agreement.n}"
            lines.append(self.agreement.text())
            lines.append(f"accuracy against {self.labels_from}: {share}")
        return "\n".join(lines)

    def _summary(self) -> str:
        """Return how many inputs got which answer."""
        counts = list(self.counts.items())
        parts = [f"{n:,} {_short('label', label)}" for label, n in counts[:_MOST_LABELS_SHOWN]]
        if rest := counts[_MOST_LABELS_SHOWN:]:
            parts.append(f"{sum(n for _, n in rest):,} of {len(rest):,} other classes")
        parts += [f"{len(self.errors):,} without an answer"] if self.errors else []
        far = f"; {self.n_unknown:,} far from every class" if self.n_unknown else ""
        return f"{count(len(self.answers), 'input')}: {', '.join(parts)}{far}"


def predict_files(
    task: str | Path,
    inputs: Sequence[Given] | Given | None = (),
    *,
    texts: Sequence[str] | str | None = (),
    coverage: float | None = None,
    label: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    top: int = 0,
    say: Callable[[str], None] = quiet,
) -> FileAnswers:
    """Classify images, folders of images, a table or texts with a task file.

    An input that cannot be used costs only its own answer: see :attr:`FileAnswers.errors`.

    Args:
        task: the file.
        inputs: images (paths, or open files such as ``io.BytesIO``), folders of images, or one
            table.
        texts: texts, instead of inputs.
        coverage: also return the labels that cannot be ruled out, see
            :meth:`FewShotClassifier.predict_set`.
        label: column of a table with the right labels, to compute the accuracy. In a folder whose
            folders have the names of classes these are the right labels.
        encoder: folder of the run or model that the task was made with, if it was moved.
        device: where to embed.
        top: how many of the most likely classes to list; more than there are = all.
        say: called with notes about files that were not read.

    Raises:
        ConfigError: if inputs and texts are both given or both missing, are not of the task's
            kind, or an argument is of a wrong type or out of its range.
        CheckpointError: if the task cannot be read.
        DataError: if there is nothing to read, or a table does not fit the task.
    """
    if coverage is not None and not (_is_number(coverage) and 0 < coverage < 1):
        raise ConfigError(f"coverage must lie between 0 and 1; got {coverage!r}.")
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 0:
        raise ConfigError(f"top must be a whole number of at least 0; got {top!r}.")
    wanted, written = inputs_of(inputs), texts_of(texts)
    if bool(wanted) == bool(written):
        raise ConfigError("give inputs of one kind: images, folders, one table, or texts.")
    clf = FewShotClassifier.load(task, encoder=encoder, device=device)
    version, modality = clf.version_, clf.embedder_.modality
    if written:
        read = LabelledFiles(written, None, "text", [str(text) for text in written])
    else:
        read = wanted.read(modality=modality, label=label, say=say, roles=roles_of(clf))
    if modality != "array" and read.kind != modality:
        raise ConfigError(f"{task} classifies {modality}s; got {read.kind}s.")
    names = [*version.classes, *([] if clf.unknown is None else [clf.unknown])]
    source = "the column of labels"
    if read.y is None and (y := folder_labels(wanted, read, names)) is not None:
        read, source = replace(read, y=y), "the names of the folders"
    answers, errors, p = _answered(clf, read, coverage)
    agreed = None
    if read.y is not None:
        labels = [None if answer is None else answer.label for answer in answers]
        agreed = agreement(labels, read.y, version.classes, clf.unknown)
    return FileAnswers(
        Path(task), read, tuple(answers), errors, version.classes, p, int(top), agreed, source
    )


def _answered(
    clf: FewShotClassifier, read: LabelledFiles, coverage: float | None
) -> tuple[list[Answer | None], dict[int, str], npt.NDArray[np.float32]]:
    """Return the answers, the reasons where there is none, and the probabilities ``[N, C]``."""
    version = clf.version_
    z, good, errors = embed_each(version, read)
    answers: list[Answer | None] = [None] * len(read.names)
    p = np.full((len(answers), len(version.classes)), np.nan, np.float32)
    if good:
        found = version.answers(
            z, unknown=clf.unknown, false_rejects=clf.false_rejects, coverage=coverage
        )
        for row, answer in zip(good, found, strict=True):
            answers[row] = answer
        p[good] = version.probabilities(version.scores(z))
    return answers, errors, p


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _short(kind: str, value: object) -> str:
    return shortened(str(value), _MOST_CHARACTERS[kind])


def _line(row: dict[str, Any]) -> str:
    """Return the line for people of a record."""
    name = _short("input", row["input"])
    if "error" in row:
        why = str(row["error"]).removeprefix(str(row["input"])).lstrip(",: ")  # once is enough
        return f"{name}: no answer: {_short('error', why)}"
    sure = f"{100 * row['probability']:.0f} %"
    answer = f"{_short('label', row['label'])} {sure}"
    if row["label"] != row["nearest"]:
        nearest = _short("label", row["nearest"])
        answer = f"{_short('label', row['label'])} (nearest: {nearest}, {sure} of the classes here)"
    unsure = "" if row["known"] else "  (far from every class)"
    others = [
        f"{_short('label', one['label'])} {100 * one['probability']:.0f} %"
        for one in row.get("top", ())[1:]
    ]
    then = f"  then {some(others, _MOST_LABELS_SHOWN)}" if others else ""
    options = ""
    if "set" in row:
        labels = [_short("label", one) for one in row["set"]]
        options = f"  one of: {some(labels, _MOST_LABELS_SHOWN) or 'none'}"
    return f"{name}: {answer}{unsure}{then}{options}"

"""Classifies files with a task file: ``quickstudy predict``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError
from quickstudy.estimators.answers import Answer
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.tasks.labelled import LabelledFiles, read_inputs

__all__ = ["FileAnswers", "predict_files"]


@dataclass(frozen=True, slots=True)
class FileAnswers:
    """The answers of a task to inputs from files.

    Args:
        task: the task file.
        inputs: as they were read, with the right labels if the table has them.
        answers: one for each input.
    """

    task: Path
    inputs: LabelledFiles = field(repr=False)
    answers: tuple[Answer, ...] = field(repr=False)

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; ``None`` if the right labels are not known."""
        y = self.inputs.y
        if y is None:
            return None
        right = [str(a.label) == str(label) for a, label in zip(self.answers, y, strict=True)]
        return sum(right) / len(right)

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-ready record for each input."""
        return [_row(n, a) for n, a in zip(self.inputs.names, self.answers, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        document: dict[str, Any] = {"task": str(self.task), "answers": self.rows()}
        return document if self.accuracy is None else document | {"accuracy": self.accuracy}

    def text(self) -> str:
        """Return the report for people: one line for each input, then the accuracy if known."""
        lines = [_line(row) for row in self.rows()]
        if self.accuracy is not None:
            share = f"{100 * self.accuracy:.2f} % of {len(self.answers)}"
            lines.append(f"accuracy against the column of labels: {share}")
        return "\n".join(lines)


def predict_files(
    task: str | Path,
    inputs: Sequence[str | Path] | str | Path = (),
    *,
    texts: Sequence[str] | str = (),
    coverage: float | None = None,
    label: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
) -> FileAnswers:
    """Classify images, folders of images, a table or texts with a task file.

    Args:
        task: the file.
        inputs: images, folders of images, or one table.
        texts: texts, instead of inputs.
        coverage: also return the labels that cannot be ruled out, see
            :meth:`FewShotClassifier.predict_set`.
        label: column of a table with the right labels, to compute the accuracy.
        encoder: folder of the run or model that the task was made with, if it was moved.
        device: where to embed.

    Raises:
        ConfigError: if inputs and texts are both given or both missing, or are not of the task's
            kind.
        CheckpointError: if the task cannot be read.
        DataError: if an input cannot be used.
    """
    inputs = [inputs] if isinstance(inputs, (str, Path)) else inputs
    texts = [texts] if isinstance(texts, str) else texts
    if bool(inputs) == bool(texts):
        raise ConfigError("give inputs of one kind: images, a table, or --text 'some text'.")
    if coverage is not None and not 0 < coverage < 1:
        raise ConfigError(f"--coverage must lie between 0 and 1; got {coverage}.")
    clf = FewShotClassifier.load(task, encoder=encoder, device=device)
    modality = clf.embedder_.modality
    if texts:
        read = LabelledFiles(list(texts), None, "text", list(texts))
    else:
        read = read_inputs(inputs, label=label)
    if modality != "array" and read.kind != modality:
        raise ConfigError(f"{task} classifies {modality}s; got {read.kind}s.")
    return FileAnswers(Path(task), read, tuple(clf.answer(read.x, coverage=coverage)))


def _row(name: str, answer: Answer) -> dict[str, Any]:
    """Return the JSON-ready record of an answer."""
    row = {
        "input": name,
        "label": answer.label,
        "nearest": answer.nearest,
        "probability": round(answer.probability, 4),
        "known": answer.known,
    }
    return row if answer.labels is None else row | {"set": list(answer.labels)}


def _line(row: dict[str, Any]) -> str:
    """Return the line for people of a record."""
    unsure = "" if row["known"] else "  (far from every class)"
    options = "" if "set" not in row else "  one of: " + (", ".join(map(str, row["set"])) or "none")
    sure = f"{100 * row['probability']:.0f} %"
    answer = f"{row['label']} {sure}"
    if row["label"] != row["nearest"]:
        answer = f"{row['label']} (nearest: {row['nearest']}, {sure} of the classes here)"
    return f"{row['input']}: {answer}{unsure}{options}"

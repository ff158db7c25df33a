"""Learns a task from files: ``quickstudy fit``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError
from quickstudy.core.words import quiet
from quickstudy.embedders.choose import get_embedder
from quickstudy.estimators.answers import Conflict, Suspect
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.file_answers import FileAnswers, predict_files
from quickstudy.fitting.task import Estimate
from quickstudy.tasks.labelled import (
    LabelledFiles,
    continuous,
    grouped,
    read_examples,
)

__all__ = ["FileAnswers", "FileTask", "fit_files", "predict_files"]

_MOST_DOUBTS_SHOWN = 5  # suspects, and as many conflicts, in the text for people
_EXAMPLE_INPUTS = {"image": "FOLDER", "text": "--text 'your text'", "table": "new.csv"}


@dataclass(frozen=True, slots=True)
class FileTask:
    """A task that was learned from files and saved.

    Args:
        path: of the task file.
        encoder: name of what embeds the examples.
        classifier: the one that learned the task.
        examples: as they were read.
        expected: accuracy to expect on further examples.
        suspects: examples whose label the others contradict, worst first.
        conflicts: examples that were given twice under different labels.
        group: column whose equal values mark examples that belong together, if one was named.

    Example::

        from quickstudy.estimators.files import fit_files
        Path("sizes.csv").write_text("width,height,label\\n1,2,small\\n2,1,small\\n8,9,large\\n9,8,large\\n")
        fitted = fit_files("sizes.csv", "sizes.task")
        print(fitted.text())
    """

    path: Path
    encoder: str
    classifier: FewShotClassifier = field(repr=False)
    examples: LabelledFiles = field(repr=False)
    expected: Estimate
    suspects: tuple[Suspect, ...] = field(repr=False)
    conflicts: tuple[Conflict, ...] = field(repr=False)
    group: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        clf, names = self.classifier, self.examples.names
        support = clf.support_
        return {
            "task": str(self.path),
            "encoder": self.encoder,
            "head": clf.head_,
            "classes": {
                str(name): int(n) for name, n in zip(support.classes, support.counts, strict=True)
            },
            "expected_accuracy": asdict(self.expected),
            "suspects": [
                {
                    "source": names[s.row],
                    "label": s.label,
                    "suggestion": s.suggestion,
                    "evidence": s.evidence,
                }
                for s in self.suspects
            ],
            "conflicts": [
                {"sources": [names[row] for row in c.rows], "labels": list(c.labels)}
                for c in self.conflicts
            ],
        }

    def text(self) -> str:
        """Return the report for people: classes, accuracy, labels to check, next command."""
        clf, names = self.classifier, self.examples.names
        n_way, n = clf.support_.n_way, len(names)
        lines = [f"{self.path}: {n_way} classes, {n} examples, head {clf.head_}"]
        if n_way > 1:
            lines.append(f"expected accuracy on new examples: {self.expected}")
        else:
            lines.append("expected accuracy: not defined, as there is only one class")
        if self.group is not None:
            lines.append(
                f"  this is for further examples of the groups in {self.group}; for new groups, "
                "'quickstudy advise --group' measures the accuracy"
            )
        suspects = self.suspects
        lines += [
            f"check {names[s.row]}: labelled {s.label}, looks like {s.suggestion}"
            for s in suspects[:_MOST_DOUBTS_SHOWN]
        ]
        if len(suspects) > _MOST_DOUBTS_SHOWN:
            more = len(suspects) - _MOST_DOUBTS_SHOWN
            lines.append(f"... and {more} more; 'quickstudy show {self.path}' lists them")
        lines += [
            "the same example under different labels: "
            + ", ".join(
                f"{names[row]} ({name})" for row, name in zip(c.rows, c.labels, strict=True)
            )
            for c in self.conflicts[:_MOST_DOUBTS_SHOWN]
        ]
        inputs = _EXAMPLE_INPUTS[self.examples.kind]
        lines.append(f"next: quickstudy predict {shlex.quote(str(self.path))} {inputs}")
        return "\n".join(lines)


def fit_files(
    examples: str | Path,
    out: str | Path,
    *,
    encoder: str | None = None,
    head: str = "auto",
    label: str | None = None,
    group: str | None = None,
    unknown: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] = quiet,
) -> FileTask:
    """Learn a task from a folder or table of examples, and save it.

    Args:
        examples: folder of class folders, or a table, see
            :func:`quickstudy.tasks.labelled.read_examples`.
        out: the task file to write.
        encoder: as for :class:`FewShotClassifier`; ``None`` = the one for this kind of examples.
        head: as for :class:`FewShotClassifier`.
        label: column of the labels; ``None`` = found by its name.
        group: column whose equal values mark examples that belong together; it is not an input.
        unknown: the label of inputs that fit no class.
        device: where to embed.
        say: called with lines about what was read and what was left out.

    Raises:
        ConfigError: if the encoder does not take such examples, or ``unknown`` is a class.
        DataError: if the examples cannot be read.
        CheckpointError: if the file cannot be written.
    """
    read = read_examples(examples, label=label)
    if read.note:
        say(f"note: {read.note}")
    read, _ = grouped(read, group)
    assert read.y is not None
    if continuous(list(map(str, set(read.y)))):
        say(
            "note: the labels look like measurements; here each different number is a class of its "
            "own."
        )
    chosen = encoder or read.kind
    say(f"{len(read.y)} examples of {len(set(read.y))} classes; encoder: {chosen}")
    modality = get_embedder(chosen, device=device).modality
    if modality != read.kind:
        raise ConfigError(
            f"the encoder {chosen!r} takes {modality}s; {examples} holds {read.kind}s. Leave "
            "--encoder out, or name one that takes them."
        )
    if unknown is not None and unknown in map(str, read.y):
        raise ConfigError(f"there is a class {unknown!r}; choose another word for --unknown.")
    clf = FewShotClassifier(chosen, head=head, unknown=unknown, device=device)
    clf.fit(read.x, read.y)
    clf.save(out)
    return FileTask(
        Path(out),
        chosen,
        clf,
        read,
        clf.estimate_accuracy(),
        tuple(clf.suspects()),
        tuple(clf.conflicts()),
        group,
    )

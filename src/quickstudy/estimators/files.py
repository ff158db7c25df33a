"""Learns a task from files: ``quickstudy fit``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError, DataError
from quickstudy.core.arguments import checked
from quickstudy.core.words import quiet, shortened
from quickstudy.embedders.choose import get_embedder
from quickstudy.estimators.answers import Conflict, Suspect
from quickstudy.estimators.by_class import rare_classes_text
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.file_answers import FileAnswers, predict_files
from quickstudy.fitting.task import Estimate
from quickstudy.tables.read import Rows
from quickstudy.tasks.labelled import (
    LabelledFiles,
    continuous,
    grouped,
    read_examples,
    without_damaged,
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
            "columns": self._columns(),
            "head": clf.head_,
            "classes": {
                str(name): int(n) for name, n in zip(support.classes, support.counts, strict=True)
            },
            "expected_accuracy": asdict(self.expected),
            "expected_by_class": [asdict(one) for one in clf.class_estimates()],
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

    def _columns(self) -> dict[str, Any] | None:
        """Return what each column was taken for; ``None`` = the examples are no table."""
        roles = self.examples.roles
        if roles is None:
            return None
        left_out = [{"column": name, "why": why} for name, why in roles.left_out]
        return {**roles.to_dict(), "left_out": left_out}

    def text(self) -> str:
        """Return the report for people: classes, accuracy, labels to check, next command."""
        clf, names = self.classifier, self.examples.names
        n_way, n = clf.support_.n_way, len(names)
        lines = [f"{self.path}: {n_way} classes, {n} examples, head {clf.head_}"]
        if n_way > 1:
            lines.append(f"expected accuracy on new examples: {self.expected}")
            if clf.fitted_task.nothing_learned:
                lines.append(
                    "this cannot be told from guessing: nothing was learned, or too few examples "
                    "tell"
                )
            lines += rare_classes_text(clf.class_estimates())
        else:
            lines.append("expected accuracy: not defined, as there is only one class")
        if self.group is not None:
            lines.append(
                f"  this is for new groups in {self.group}: examples of one group are held out "
                "together"
            )
        suspects = self.suspects
        lines += [
            f"check {names[s.row]}: labelled {s.label}, looks like {s.suggestion}"
            for s in suspects[:_MOST_DOUBTS_SHOWN]
        ]
        if len(suspects) > _MOST_DOUBTS_SHOWN:
            more = len(suspects) - _MOST_DOUBTS_SHOWN
            lines.append(f"... and {more} more; 'quickstudy show {self.path}' lists them")
        lines += [_conflict_text(c, names) for c in self.conflicts[:_MOST_DOUBTS_SHOWN]]
        if (more := len(self.conflicts) - _MOST_DOUBTS_SHOWN) > 0:
            lines.append(f"... and {more} more such examples")
        inputs = _EXAMPLE_INPUTS[self.examples.kind]
        lines.append(f"next: quickstudy predict {shlex.quote(str(self.path))} {inputs}")
        return "\n".join(lines)


def _conflict_text(conflict: Conflict, names: Sequence[str]) -> str:
    """Return the line for people of an example that was given under different labels."""
    most = 3  # copies in a line; labels and names may be long, so each is shortened
    given = [
        f"{shortened(names[row], 40)} ({shortened(str(label), 30)})"
        for row, label in zip(conflict.rows, conflict.labels, strict=True)
    ]
    rest = f" and {len(given) - most:,} more" if len(given) > most else ""
    return f"the same example under different labels: {', '.join(given[:most])}{rest}"


@checked
def fit_files(
    examples: str | Path | Rows,
    out: str | Path,
    *,
    encoder: Any = None,
    head: str = "auto",
    label: str | None = None,
    column: str | None = None,
    group: str | None = None,
    unknown: Hashable | None = None,
    device: str = "auto",
    format: str | None = None,
    say: Callable[[str], None] = quiet,
) -> FileTask:
    """Learn a task from a folder or table of examples, and save it.

    The task remembers which columns were labels and inputs: later tables are read by their names.

    Args:
        examples: folder of class folders, or a table (a path, an open file, records, a data frame),
            see :func:`quickstudy.tasks.labelled.read_examples`.
        out: the task file to write.
        encoder: as for :class:`FewShotClassifier`; ``None`` = the one for this kind of examples.
        head: as for :class:`FewShotClassifier`.
        label: column of the labels; ``None`` = found by its name.
        column: column of texts or images, where there are several; ``None`` = found.
        group: column whose equal values mark examples that belong together (the frames of one
            film): they are held out together; it is not an input.
        unknown: the label of inputs that fit no class.
        device: where to embed.
        format: of a table without an ending: ``"csv"``, ``"jsonl"``, ...
        say: called with lines about what was read and what was left out.

    Raises:
        ConfigError: if a column is not there, the encoder does not take such examples, or
            ``unknown`` is a class.
        DataError: if the examples cannot be read; the row is named.
        TaskError: if the labels cannot be learned.
        CheckpointError: if the file cannot be written.
    """
    read = read_examples(examples, label=label, column=column, group=group, format=format)
    if read.note:
        say(f"note: {read.note}")
    read, groups = grouped(read, group)
    labels = read.y or []
    names = list(dict.fromkeys(map(str, labels)))
    if read.roles is not None:
        say(read.roles.text())
    if continuous(names):
        say(
            "note: the labels look like measurements; here each different number is a class of its "
            "own."
        )
    chosen = read.kind if encoder is None else encoder
    named = chosen if isinstance(chosen, str) else type(chosen).__name__
    say(f"{len(labels)} examples of {len(names)} classes; encoder: {named}")
    modality = get_embedder(chosen, device=device).modality
    if modality not in (read.kind, "array"):
        raise ConfigError(
            f"the encoder {named!r} takes {modality}s; {_named(examples)} holds {read.kind}s. "
            "Leave the encoder out, or name one that takes them."
        )
    clf = FewShotClassifier(chosen, head=head, unknown=unknown, device=device)
    try:
        clf.fit(read.x, labels, groups)
    except DataError:
        if (sound := without_damaged(read)) is None:
            raise
        say(f"note: {sound.note}")
        read = sound
        clf.fit(read.x, read.y)
    clf.name_examples(read.names)
    clf.roles_ = read.roles
    clf.save(out)
    return FileTask(
        Path(out),
        named,
        clf,
        read,
        clf.estimate_accuracy(),
        tuple(clf.suspects()),
        tuple(clf.conflicts()),
        group,
    )


def _named(examples: Any) -> str:
    return str(examples) if isinstance(examples, str | Path) else "the table"

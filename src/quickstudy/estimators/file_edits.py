"""Edits task files: ``quickstudy add``, ``remove``, ``relabel``, ``rename``, ``correct``, undo.

No edit is lost where several processes edit one file: they take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.core.words import quiet
from quickstudy.estimators.answers import Edit
from quickstudy.estimators.corrections import corrections
from quickstudy.estimators.editing import edit_between
from quickstudy.estimators.given import answer_for_strangers
from quickstudy.estimators.history import History
from quickstudy.estimators.labels import Label, counted, named
from quickstudy.estimators.naming import example_rows
from quickstudy.estimators.saving import SavedTask, load_task, save_task
from quickstudy.estimators.version import TaskVersion
from quickstudy.storage.locks import changing
from quickstudy.storage.outputs import is_task_file, refuse_foreign
from quickstudy.tasks.labelled import LabelledFiles, grouped, read_examples, read_inputs

__all__ = [
    "EditedTask",
    "add_files",
    "correct_files",
    "relabel_file",
    "remove_files",
    "rename_file",
    "undo_file",
]

_MOST_CLASSES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class EditedTask:
    """A task file after a change.

    Args:
        path: of the file that was written.
        edit: what was changed.
        classes: number of examples of each class now.
        can_undo: how many changes can be undone.

    Example::

        from quickstudy.estimators.file_edits import rename_file, undo_file
        clf = FewShotClassifier("table").fit([[1.0, 2.0], [8.0, 9.0]], ["small", "large"])
        clf.save("sizes.task")
        print(rename_file("sizes.task", "large", "big").text())
        print(undo_file("sizes.task").classes)
    """

    path: Path
    edit: Edit
    classes: dict[Label, int]
    can_undo: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "task": str(self.path),
            "what": self.edit.what,
            "n_classes": self.edit.n_classes,
            "n_examples": self.edit.n_examples,
            "others_unchanged": self.edit.others_unchanged,
            "classes": {str(name): n for name, n in self.classes.items()},
            "can_undo": self.can_undo,
        }

    def text(self) -> str:
        """Return the report for people: what was done, the classes, how to go back."""
        shown = [f"{name} {n:,}" for name, n in list(self.classes.items())[:_MOST_CLASSES_SHOWN]]
        more = len(self.classes) - len(shown)
        lines = [
            f"{self.path}: {self.edit}",
            f"classes: {', '.join(shown)}{f' and {more:,} more' if more else ''}",
        ]
        if self.can_undo:
            lines.append(f"{counted(self.can_undo, 'change')} can be undone")
        return "\n".join(lines)


@checked
def add_files(
    task: str | Path,
    examples: Sequence[str | Path] = (),
    *,
    name: Label | None = None,
    texts: Sequence[str] = (),
    label: str | None = None,
    group: str | None = None,
    out: str | Path | None = None,
    encoder: Any = None,
    device: str = "auto",
    forget: bool = False,
    say: Callable[[str], None] = quiet,
) -> EditedTask:
    """Add examples from files to a task, of classes that exist or are new.

    Args:
        task: the task file.
        examples: a folder of class folders or a table with labels; with ``name`` also images,
            folders of images, or a table without labels.
        name: the class of all examples; ``None`` = each has its own label.
        texts: texts instead of files; they need a ``name``.
        label: column of the labels in a table; ``None`` = that of the task, or found by its name.
        group: column of a table that names what belongs together; ``None`` = nothing does.
        out: the file to write; ``None`` = the task file itself.
        encoder: what the task was made with, if no file can contain it.
        device: where to embed.
        forget: keep no former version in the file, so that nothing can be undone.
        say: called with notes about what was read.

    Raises:
        ConfigError: if the examples have no labels and no name is given, or are of another kind.
        DataError: if an example cannot be used; the row is named.
        TaskError: if a label is missing or cannot be one.
        CheckpointError: if a file cannot be read or written.
    """
    if bool(examples) == bool(texts):
        raise ConfigError("give examples as files or as texts: one of the two.")

    def change(saved: SavedTask) -> TaskVersion:
        read = _read(saved, examples, texts, name, label)
        if read.note:
            say(f"note: {read.note}")
        modality = saved.version.embedder.modality
        if modality not in (read.kind, "array"):
            raise ConfigError(f"the task is one of {modality}s; got {read.kind}s.")
        read, groups = grouped(read, group)
        labels: Any = read.y if name is None else name
        return saved.version.add_examples(read.x, labels, names=read.names, groups=groups)

    return _edited(task, change, out=out, encoder=encoder, device=device, forget=forget)


def _read(
    saved: SavedTask,
    examples: Sequence[str | Path],
    texts: Sequence[str],
    name: Label | None,
    label: str | None,
) -> LabelledFiles:
    """Return new examples of a task, with their labels unless a name is given.

    Raises:
        ConfigError: if they have none.
    """
    if texts and name is None:
        raise ConfigError("texts have no labels of their own: name their class.")
    if texts:
        return LabelledFiles(list(texts), None, "text", list(texts))
    sources = [Path(example) for example in examples]
    if name is None and sources[0].is_dir():
        if len(sources) > 1:
            raise ConfigError("give one folder of class folders, or name the class of all.")
        return read_examples(sources[0], label=label)
    read = read_inputs(sources, label=label, roles=saved.roles)
    if name is None and read.y is None:
        raise ConfigError(
            f"{sources[0]} has no labels: name the class of all examples, or the column of labels."
        )
    return read


@checked
def remove_files(
    task: str | Path,
    *,
    classes: Sequence[Label] = (),
    examples: Sequence[str] = (),
    out: str | Path | None = None,
    encoder: Any = None,
    forget: bool = False,
) -> EditedTask:
    """Remove classes or examples from a task.

    Args:
        task: the task file.
        classes: their names.
        examples: see :func:`~quickstudy.estimators.naming.example_rows`.
        out: the file to write; ``None`` = the task file itself.
        encoder: what the task was made with, if no file can contain it.
        forget: keep no former version in the file: what was removed is in no part of it.

    Raises:
        ConfigError: if there is no such class or example, or nothing is named.
        TaskError: if nothing would be left.
        CheckpointError: if a file cannot be read or written.
    """
    if bool(classes) == bool(examples):
        raise ConfigError("name classes or examples to remove: one of the two.")

    def change(saved: SavedTask) -> TaskVersion:
        version = saved.version
        if examples:
            rows = [row for name in examples for row in example_rows(version.support, name)]
            return version.remove_examples(rows)
        for label in classes:
            version = version.remove_class(label)
        return version

    what = f"removed {named(classes)}" if len(classes) > 1 else None
    return _edited(task, change, out=out, encoder=encoder, forget=forget, what=what)


@checked
def relabel_file(
    task: str | Path,
    example: str,
    label: Label,
    *,
    out: str | Path | None = None,
    encoder: Any = None,
    forget: bool = False,
) -> EditedTask:
    """Correct the label of an example of a task; the label may be of a new class.

    Args:
        task: the task file.
        example: see :func:`~quickstudy.estimators.naming.example_rows`.
        label: the right one.
        out: the file to write; ``None`` = the task file itself.
        encoder: what the task was made with, if no file can contain it.
        forget: keep no former version in the file.

    Raises:
        ConfigError: if there is no such example.
        TaskError: if the label is missing or cannot be one.
        CheckpointError: if a file cannot be read or written.
    """

    def change(saved: SavedTask) -> TaskVersion:
        version, rows = saved.version, example_rows(saved.version.support, example)
        for row in rows:  # several if the same example was given more than once
            version = version.relabel(row, label)
        return version

    return _edited(
        task,
        change,
        out=out,
        encoder=encoder,
        forget=forget,
        what=f"relabelled {example} as {label!r}",
    )


@checked
def rename_file(
    task: str | Path,
    old: Label,
    new: Label,
    *,
    out: str | Path | None = None,
    encoder: Any = None,
    forget: bool = False,
) -> EditedTask:
    """Give a class of a task another name.

    Args:
        task: the task file.
        old: its name.
        new: the other one.
        out: the file to write; ``None`` = the task file itself.
        encoder: what the task was made with, if no file can contain it.
        forget: keep no former version in the file.

    Raises:
        ConfigError: if there is no such class, or the name is taken.
        CheckpointError: if a file cannot be read or written.
    """
    return _edited(
        task,
        lambda saved: saved.version.rename_class(old, new),
        out=out,
        encoder=encoder,
        forget=forget,
    )


@checked
def correct_files(
    task: str | Path,
    answers: str | Path,
    *,
    out: str | Path | None = None,
    encoder: Any = None,
    device: str = "auto",
    forget: bool = False,
) -> EditedTask:
    """Learn from a file of answers in which somebody corrected labels.

    Each corrected input becomes an example of the right class; if it is an example already, its
    label is corrected. See :func:`~quickstudy.estimators.corrections.corrections` for what counts
    as a correction.

    Args:
        task: the task file.
        answers: the file that ``predict --out`` wrote.
        out: the file to write; ``None`` = the task file itself.
        encoder: what the task was made with, if no file can contain it.
        device: where to embed.
        forget: keep no former version in the file.

    Raises:
        ConfigError: if the file holds no answers, or nothing was corrected.
        DataError: if an input cannot be used; the row is named.
        TaskError: if a label cannot be one.
        CheckpointError: if a file cannot be read or written.
    """
    done: list[str] = []

    def change(saved: SavedTask) -> TaskVersion:
        version = saved.version
        read = corrections(answers, saved)
        labels = list(read.y or [])
        keys = [item.key for item in version.embedder.read(read.x)]
        rows_of: dict[str, list[int]] = {}
        for row, item in enumerate(version.support.items):
            rows_of.setdefault(item.key, []).append(row)
        new = [i for i, key in enumerate(keys) if key not in rows_of]
        if new:  # first: a correction of an old example may leave its class without any
            added = read.take(new)
            version = version.add_examples(added.x, added.y, names=added.names)
        for key, label in zip(keys, labels, strict=True):
            for row in rows_of.get(key, ()):
                version = version.relabel(row, label)
        old = len(labels) - len(new)
        done.append(
            f"learned {counted(len(labels), 'correction')} ({len(new):,} new, {old:,} of examples "
            f"that it had)"
        )
        return version

    return _edited(
        task, change, out=out, encoder=encoder, device=device, forget=forget, what=lambda: done[-1]
    )


@checked
def undo_file(
    task: str | Path, *, out: str | Path | None = None, encoder: Any = None
) -> EditedTask:
    """Undo the last change that a command made to a task file.

    Args:
        task: the task file; it holds what it was before its last 20 changes.
        out: the file to write; ``None`` = the task file itself.
        encoder: what the task was made with, if no file can contain it.

    Raises:
        TaskError: if there is nothing to undo.
        CheckpointError: if a file cannot be read or written.
    """
    start, path = time.perf_counter(), Path(task)
    with changing(path):
        saved = load_task(path, encoder=encoder)
        last = saved.history.past[-1].what if saved.history.past else ""
        before, history = saved.history.back(saved.version)
        edit = edit_between(saved.version, before, f"undid: {last}", start)
        return _write(saved, before, history, edit, path if out is None else Path(out))


def _edited(
    task: str | Path,
    change: Callable[[SavedTask], TaskVersion],
    *,
    out: str | Path | None,
    encoder: Any,
    device: str = "auto",
    forget: bool = False,
    what: str | Callable[[], str] | None = None,
) -> EditedTask:
    """Read a task, change it and write it; nobody else changes the file meanwhile.

    Args:
        task: the task file.
        change: returns the version after the change.
        out: the file to write; ``None`` = the task file itself.
        encoder: what the task was made with.
        device: where to embed.
        forget: keep no former version.
        what: was done, if the change is made of several; ``None`` = what the version says.
    """
    start, path = time.perf_counter(), Path(task)
    target = path if out is None else Path(out)
    refuse_foreign(target, name="out", ours=is_task_file)
    with changing(path):
        saved = load_task(path, encoder=encoder, device=device)
        after = change(saved)
        if what is not None or after.edit is None:
            words = what() if callable(what) else what or "changed the task"
            edit = edit_between(saved.version, after, words, start)
            after = replace(after, edit=edit)
        assert after.edit is not None
        answer_for_strangers(saved.unknown, after.classes)
        history = saved.history
        if after.support is not saved.version.support:
            history = history.after(saved.version, after)
        return _write(saved, after, History() if forget else history, after.edit, target)


def _write(
    saved: SavedTask, version: TaskVersion, history: History, edit: Edit, path: Path
) -> EditedTask:
    save_task(
        version,
        path,
        unknown=saved.unknown,
        false_rejects=saved.false_rejects,
        roles=saved.roles,
        history=history,
    )
    counts = version.support.counts.tolist()
    classes = dict(zip(version.classes, counts, strict=True))
    return EditedTask(path, edit, classes, len(history.past))

"""``quickstudy add``, ``remove``, ``relabel``, ``rename``, ``correct``, ``undo``: edit a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.output import emit, say, writable
from quickstudy.cli.protocol import AsJson, Device, EncoderPlace, TaskFile
from quickstudy.core import ConfigError
from quickstudy.storage.outputs import is_task_file

if TYPE_CHECKING:
    from quickstudy.estimators.file_edits import EditedTask

__all__ = [
    "add_command",
    "correct_command",
    "relabel_command",
    "remove_command",
    "rename_command",
    "undo_command",
]

Out = Annotated[
    Path | None, typer.Option(help="Write the task there and leave TASK as it is; TASK by default.")
]
Forget = Annotated[
    bool,
    typer.Option(
        "--forget",
        help="Keep no former version in the file: nothing can be undone, and what was removed is "
        "gone.",
    ),
]


def add_command(
    task: TaskFile,
    examples: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folder of class folders, or a table with labels; with --class also images, "
            "folders of images, or a table without labels."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--class", help="The class of all examples, old or new.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text as an example of --class; may be repeated.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the labels in a table; by default the task's.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column that names what belongs together, as for 'fit'.")
    ] = None,
    out: Out = None,
    forget: Forget = False,
    encoder: EncoderPlace = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Add examples to a task, of classes that exist or are new.

    Example: quickstudy add zoo.task okapi1.jpg okapi2.jpg --class okapi

    The file is changed in place; 'quickstudy undo' takes the last change back.
    """
    from quickstudy.estimators.file_edits import add_files

    if bool(examples) == bool(text):
        raise ConfigError("give examples as files, or as --text 'some text'.")
    if text and name is None:
        raise ConfigError("name the class of the texts with --class.")
    target = _target(task, out, examples or [])
    _emit(
        "add",
        add_files(
            task,
            examples or [],
            name=name,
            texts=text or [],
            label=label,
            group=group,
            out=target,
            encoder=encoder,
            device=device,
            forget=forget,
            say=say,
        ),
        as_json,
    )


def remove_command(
    task: TaskFile,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="A class to remove; may be repeated.")
    ] = None,
    examples: Annotated[
        list[str] | None,
        typer.Option(
            "--example",
            "--examples",
            help="An example to remove, by its file, its line in the table or its text; may be "
            "repeated.",
        ),
    ] = None,
    out: Out = None,
    forget: Forget = False,
    encoder: EncoderPlace = None,
    as_json: AsJson = False,
) -> None:
    """Remove classes or examples from a task.

    Example: quickstudy remove zoo.task --class okapi

    The file is changed in place; 'quickstudy undo' takes the last change back.
    """
    from quickstudy.estimators.file_edits import remove_files

    if bool(classes) == bool(examples):
        raise ConfigError("name what to remove: --class NAME or --example NAME.")
    target = _target(task, out)
    edited = remove_files(
        task,
        classes=classes or [],
        examples=examples or [],
        out=target,
        encoder=encoder,
        forget=forget,
    )
    _emit("remove", edited, as_json)


def relabel_command(
    task: TaskFile,
    example: Annotated[
        str, typer.Argument(help="Its file, the number of its line in the table, or its text.")
    ],
    label: Annotated[str, typer.Argument(help="The right class, old or new.")],
    out: Out = None,
    forget: Forget = False,
    encoder: EncoderPlace = None,
    as_json: AsJson = False,
) -> None:
    """Correct the label of an example of a task.

    Example: quickstudy relabel zoo.task zebra/7.jpg okapi

    The file is changed in place; 'quickstudy undo' takes the last change back.
    """
    from quickstudy.estimators.file_edits import relabel_file

    target = _target(task, out)
    edited = relabel_file(task, example, label, out=target, encoder=encoder, forget=forget)
    _emit("relabel", edited, as_json)


def rename_command(
    task: TaskFile,
    old: Annotated[str, typer.Argument(help="A class of the task.")],
    new: Annotated[str, typer.Argument(help="Its new name.")],
    out: Out = None,
    forget: Forget = False,
    encoder: EncoderPlace = None,
    as_json: AsJson = False,
) -> None:
    """Give a class of a task another name; nothing else changes.

    Example: quickstudy rename zoo.task okapi 'forest giraffe'

    The file is changed in place; 'quickstudy undo' takes the last change back.
    """
    from quickstudy.estimators.file_edits import rename_file

    target = _target(task, out)
    edited = rename_file(task, old, new, out=target, encoder=encoder, forget=forget)
    _emit("rename", edited, as_json)


def correct_command(
    task: TaskFile,
    answers: Annotated[
        Path,
        typer.Argument(help="What 'predict --out' wrote, with corrected labels: csv, jsonl, ..."),
    ],
    out: Out = None,
    forget: Forget = False,
    encoder: EncoderPlace = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Learn from answers that somebody corrected.

    Example: quickstudy correct zoo.task answers.csv

    Write the answers with 'quickstudy predict TASK INPUTS --out answers.csv' and
    correct them: change a label, or write the right one into a column "correct".
    Each corrected input becomes an example of the right class.

    The file is changed in place; 'quickstudy undo' takes the last change back.
    """
    from quickstudy.estimators.file_edits import correct_files

    target = _target(task, out, [str(answers)])
    edited = correct_files(task, answers, out=target, encoder=encoder, device=device, forget=forget)
    _emit("correct", edited, as_json)


def undo_command(
    task: TaskFile,
    out: Out = None,
    encoder: EncoderPlace = None,
    as_json: AsJson = False,
) -> None:
    """Undo the last change that a command made to a task.

    Example: quickstudy undo zoo.task

    A task file holds what it was before its last 20 changes. After that, and
    after --forget, there is nothing to undo.
    """
    from quickstudy.estimators.file_edits import undo_file

    _emit("undo", undo_file(task, out=_target(task, out), encoder=encoder), as_json)


def _target(task: Path, out: Path | None, inputs: list[str] | None = None) -> Path:
    """Return the file to write, after checking that it can be: before the work."""
    return writable(out or task, "--out" if out else "TASK", inputs=inputs or [], ours=is_task_file)


def _emit(command: str, edited: EditedTask, as_json: bool) -> None:
    emit({"command": command, **edited.to_dict()}, as_json=as_json, text=edited.text())

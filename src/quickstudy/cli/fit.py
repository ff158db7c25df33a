"""``quickstudy fit``: a task file from a handful of examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, say, writable
from quickstudy.cli.protocol import AsJson, Device
from quickstudy.storage.outputs import is_task_file

__all__ = ["fit_command"]

Examples = Annotated[
    str,
    typer.Argument(
        help="Folder of class folders, or a table: csv, tsv, json, jsonl, parquet, xlsx; - for "
        "one on standard input."
    ),
]
TaskOut = Annotated[Path, typer.Option(help="The task file to write.")]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="image, characters, text, table, or the folder of a run or a text model; by default "
        "the one for this kind of data."
    ),
]
Head = Annotated[
    str,
    typer.Option(
        help="What learns the task: auto, prototype, ridge, logistic, kernel, neighbours, "
        "gradient, class-mean, incontext, lda, extra-trees, random-forest, vote."
    ),
]
Label = Annotated[
    str | None, typer.Option(help="Column of the labels; by default found by its name.")
]
Column = Annotated[
    str | None,
    typer.Option(help="Column of the texts or image paths; by default found, see below."),
]
Format = Annotated[
    str | None, typer.Option(help="Format of a table whose name does not tell it: csv, jsonl, ...")
]
Group = Annotated[
    str | None,
    typer.Option(
        help="Column that names what belongs together, like the frames of one film: held out "
        "together, not used as an input."
    ),
]
Unknown = Annotated[str | None, typer.Option(help="Label to give inputs that fit no class.")]


def fit_command(
    examples: Examples,
    out: TaskOut = Path("examples.task"),
    encoder: Encoder = None,
    head: Head = "auto",
    label: Label = None,
    column: Column = None,
    group: Group = None,
    unknown: Unknown = None,
    format: Format = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Learn a task from a handful of examples and save it as a file.

    Example: quickstudy fit photos/ --out zoo.task

    A folder of examples has one folder for each class. A table has a column of
    labels and, as inputs, a column of images, a column of texts, or columns of
    numbers, dates and categories; what was taken for what is said. Later tables
    are read by the names of these columns. If there is a column "split", only its
    rows "train" are used; of folders train/ and test/, only train/.
    """
    # imported here, as it takes a second that the other commands need not wait
    from quickstudy.estimators.files import fit_files

    fitted = fit_files(
        examples,
        writable(out, "--out", inputs=[Path(examples)], ours=is_task_file),
        encoder=encoder,
        head=head,
        label=label,
        column=column,
        group=group,
        unknown=unknown,
        format=format,
        device=device,
        say=say,
    )
    emit({"command": "fit", **fitted.to_dict()}, as_json=as_json, text=fitted.text())

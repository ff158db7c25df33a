"""``quickstudy fit``, ``predict``, ``show``, ``export``: task files from a handful of examples."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.cli.output import emit, say, writable
from quickstudy.cli.protocol import AsJson, Device

__all__ = ["export_command", "fit_command", "predict_command", "show_command"]

Examples = Annotated[
    Path, typer.Argument(help="Folder of class folders, or a table: csv, tsv, jsonl, parquet.")
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
        "gradient, class-mean."
    ),
]
Label = Annotated[
    str | None, typer.Option(help="Column of the labels; by default found by its name.")
]
Group = Annotated[
    str | None,
    typer.Option(
        help="Column that names what belongs together; not used as an input. See 'advise --group'."
    ),
]
Unknown = Annotated[str | None, typer.Option(help="Label to give inputs that fit no class.")]
TaskFile = Annotated[Path, typer.Argument(help="A task file that 'quickstudy fit' wrote.")]
Inputs = Annotated[
    list[Path] | None, typer.Argument(help="Images, folders of images, or one table.")
]
Texts = Annotated[list[str] | None, typer.Option(help="A text to classify; may be repeated.")]
AnswersOut = Annotated[
    Path | None, typer.Option(help="File for the answers, ending in .csv, .jsonl or .parquet.")
]
Coverage = Annotated[
    float | None,
    typer.Option(
        help="Also list the labels that cannot be ruled out; with 0.9 the right one is among them "
        "in 90 % of cases."
    ),
]
RightLabel = Annotated[
    str | None,
    typer.Option(help="Column of a table with the right labels, to compute the accuracy."),
]
EncoderPlace = Annotated[
    str | None, typer.Option(help="Folder of the task's run or model, if it was moved.")
]


def fit_command(
    examples: Examples,
    out: TaskOut = Path("examples.task"),
    encoder: Encoder = None,
    head: Head = "auto",
    label: Label = None,
    group: Group = None,
    unknown: Unknown = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Learn a task from a handful of examples and save it as a file.

    Example: quickstudy fit photos/ --out zoo.task

    A folder of examples has one folder for each class. A table has a column of
    labels and, as inputs, a column "path", a column "text", or columns of
    numbers. If it has a column "split", only its rows "train" are used; of
    folders train/ and test/, only train/.
    """
    # imported here, as it takes a second that the other commands need not wait
    from quickstudy.estimators.files import fit_files

    fitted = fit_files(
        examples,
        writable(out, "--out"),
        encoder=encoder,
        head=head,
        label=label,
        group=group,
        unknown=unknown,
        device=device,
        say=say,
    )
    emit({"command": "fit", **fitted.to_dict()}, as_json=as_json, text=fitted.text())


def predict_command(
    task: TaskFile,
    inputs: Inputs = None,
    text: Texts = None,
    out: AnswersOut = None,
    coverage: Coverage = None,
    label: RightLabel = None,
    encoder: EncoderPlace = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Classify inputs with a task file.

    Example: quickstudy predict zoo.task new/*.jpg --json
    """
    from quickstudy.cli.rows import write_rows
    from quickstudy.estimators.files import predict_files

    found = predict_files(
        task,
        inputs or [],
        texts=text or [],
        coverage=coverage,
        label=label,
        encoder=encoder,
        device=device,
    )
    if out is not None:
        write_rows(out, [_flat(row) for row in found.rows()])
        say(f"wrote {len(found.answers)} answers to {out}")
    emit({"command": "predict", **found.to_dict()}, as_json=as_json, text=found.text())


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose set of labels fits into a cell."""
    return row | ({"set": " | ".join(map(str, row["set"]))} if "set" in row else {})


def show_command(
    task: TaskFile,
    out: Annotated[
        Path | None, typer.Option(help="File for the page; TASK.html by default.")
    ] = None,
    encoder: EncoderPlace = None,
    as_json: AsJson = False,
) -> None:
    """Write a page about a task: its examples, expected accuracy, labels to check, a map.

    Example: quickstudy show zoo.task --out zoo.html
    """
    from quickstudy.estimators import FewShotClassifier
    from quickstudy.estimators.page import write_page

    target = out or task.with_suffix(".html")
    clf = FewShotClassifier.load(task, encoder=encoder)
    write_page(clf.version_, target, title=task.stem)
    document = {"command": "show", "task": str(task), "page": str(target)}
    emit(document, as_json=as_json, text=f"{target}: open it in a browser")


def export_command(
    task: TaskFile,
    out: Annotated[
        Path | None, typer.Option(help="File for the graph; TASK.onnx by default.")
    ] = None,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Write a graph for this task only, whatever the head.")
    ] = False,
    encoder: EncoderPlace = None,
    as_json: AsJson = False,
) -> None:
    """Write a task as an ONNX graph: encoder, head and calibration.

    Example: quickstudy export zoo.task --out zoo.onnx

    With the heads prototype, class-mean and ridge the support set is an input
    of the graph, so that it learns any task. With other heads, or with --fixed,
    the graph is for this task only.
    """
    from quickstudy.estimators import FewShotClassifier

    clf = FewShotClassifier.load(task, encoder=encoder)
    made = clf.export_onnx(
        out or task.with_suffix(".onnx"), support_as_input=False if fixed else None
    )
    lines = [
        f"{made.path}: " + ("learns any support set" if made.support else "answers for this task")
    ]
    lines += [f"input {n} {shape}" for n, shape in made.inputs.items()]
    lines += [f"output {n} {shape}" for n, shape in made.outputs.items()]
    document = {"command": "export", "task": str(task), **asdict(made)}
    emit(document, as_json=as_json, text="\n".join(lines))

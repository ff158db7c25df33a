"""``quickstudy predict``: classifies inputs with a task file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import AsJson, Device, EncoderPlace, TaskFile

__all__ = ["predict_command"]

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

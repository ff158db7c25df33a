"""``quickstudy predict``: classifies inputs with a task file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.output import FAILED, emit, say, writable
from quickstudy.cli.protocol import AsJson, Device, EncoderPlace, TaskFile
from quickstudy.core import ConfigError, QuickstudyError
from quickstudy.storage.outputs import answers_with

if TYPE_CHECKING:
    from quickstudy.estimators.file_answers import FileAnswers

__all__ = ["SOME_FAILED", "predict_command"]

SOME_FAILED = 3
"""Exit code if some inputs, or all of them, got no answer."""

_EVERY_CLASS = 2**31 - 1  # more classes than any task has

Inputs = Annotated[
    list[Path] | None, typer.Argument(help="Images, folders of images, or one table.")
]
Texts = Annotated[list[str] | None, typer.Option(help="A text to classify; may be repeated.")]
AnswersOut = Annotated[
    Path | None,
    typer.Option(
        help="File for the answers, ending in .csv, .jsonl or .parquet; a table's own columns "
        "come first."
    ),
]
Coverage = Annotated[
    float | None,
    typer.Option(
        help="Also list the labels that cannot be ruled out; with 0.9 the right one is among them "
        "in 90 % of cases."
    ),
]
Top = Annotated[
    int | None, typer.Option(help="Also list so many of the most likely classes, best first.")
]
EveryClass = Annotated[
    bool, typer.Option("--all", help="Also give the probability of every class.")
]
RightLabel = Annotated[
    str | None,
    typer.Option(
        help="Column of a table with the right labels, to compute the accuracy. In a folder, "
        "folders named as the classes are the right labels."
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print the summary alone, no line for each input.")
]


def predict_command(
    task: TaskFile,
    inputs: Inputs = None,
    text: Texts = None,
    out: AnswersOut = None,
    coverage: Coverage = None,
    top: Top = None,
    every_class: EveryClass = False,
    label: RightLabel = None,
    encoder: EncoderPlace = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Classify inputs with a task file.

    Example: quickstudy predict zoo.task new/*.jpg --top 3

    An input that cannot be used is marked, and costs no other its answer; the
    exit code is 3 then.
    """
    from quickstudy.cli.rows import check_ending
    from quickstudy.estimators.files import predict_files

    sources = inputs or []
    if out is not None:
        check_ending(out, "--out")
        writable(out, "--out", inputs=[task, *sources], ours=answers_with())
    _check_options(sources, text, coverage, top, every_class)
    found = predict_files(
        task,
        sources,
        texts=text or [],
        coverage=coverage,
        label=label,
        encoder=encoder,
        device=device,
        top=_EVERY_CLASS if every_class else top or 0,
        say=say,
    )
    document = {"command": "predict", **found.to_dict()}
    failure = None
    if out is not None:
        try:
            _write(out, found, every_class)
            say(f"wrote {len(found.answers)} answers to {out}")
        except (QuickstudyError, OSError) as error:  # the answers are printed all the same
            failure = str(error)
            document["out_error"] = failure
    emit(document, as_json=as_json, text=found.text(each=not quiet))
    if found.errors:
        n = len(found.answers)
        say(f"error: {len(found.errors):,} of {n:,} input{'' if n == 1 else 's'} got no answer.")
    if failure:
        say(f"error: {failure}")
        raise typer.Exit(FAILED)
    if found.errors:
        raise typer.Exit(SOME_FAILED)


def _check_options(
    sources: list[Path],
    texts: list[str] | None,
    coverage: float | None,
    top: int | None,
    every_class: bool,
) -> None:
    """Refuse what the function behind the command would refuse too, in the words of options."""
    if bool(sources) == bool(texts):
        raise ConfigError(
            "give inputs of one kind: images, folders, a table, or --text 'some text'."
        )
    if coverage is not None and not 0 < coverage < 1:
        raise ConfigError(f"--coverage must lie between 0 and 1; got {coverage}.")
    if top is not None and top < 1:
        raise ConfigError(f"--top must be at least 1; got {top}.")
    if top is not None and every_class:
        raise ConfigError("--all lists every class, so --top is not needed. Leave one out.")


def _write(out: Path, found: FileAnswers, every_class: bool) -> None:
    """Write the answers; those for the rows of a table beside its own columns."""
    from quickstudy.cli.rows import answer_columns, beside, write_columns

    own = {} if found.inputs.table is None else found.inputs.table.columns
    write_columns(out, beside(own, answer_columns(found, every_class=every_class)))

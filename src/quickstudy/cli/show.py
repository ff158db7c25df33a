"""``quickstudy show`` and ``export``: a task file as a page, and as an ONNX graph."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.output import emit, emit_written, writable
from quickstudy.cli.protocol import AsJson, EncoderPlace, TaskFile
from quickstudy.core.words import count
from quickstudy.storage.outputs import is_graph, is_page

__all__ = ["export_command", "show_command"]


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
    from quickstudy.estimators.contents import task_contents
    from quickstudy.estimators.page import write_page

    target = out or task.with_suffix(".html")
    writable(target, "--out", inputs=[task], ours=is_page)
    clf = FewShotClassifier.load(task, encoder=encoder)
    contents = task_contents(clf.version_)
    expected, n_way = clf.version_.estimate_accuracy(), len(contents["classes"])
    lines = [
        f"{task}: {n_way:,} class{'es' * (n_way != 1)}, "
        f"{count(len(contents['examples']), 'example')}",
        f"expected accuracy on new examples: {expected}",
        f"labels to check: {len(contents['suspects'])}",
        str(clf.report()),
    ]
    emit_written(
        {"command": "show", "task": str(task), "unknown": clf.unknown, **contents},
        as_json=as_json,
        text="\n".join(lines),
        page=target,
        write=lambda path: write_page(clf.version_, path, title=task.stem),
    )


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

    target = out or task.with_suffix(".onnx")
    writable(target, "--out", inputs=[task], ours=is_graph)
    clf = FewShotClassifier.load(task, encoder=encoder)
    made = clf.export_onnx(target, support_as_input=False if fixed else None)
    lines = [
        f"{made.path}: " + ("learns any support set" if made.support else "answers for this task")
    ]
    lines += [f"input {n} {shape}" for n, shape in made.inputs.items()]
    lines += [f"output {n} {shape}" for n, shape in made.outputs.items()]
    document = {"command": "export", "task": str(task), **asdict(made)}
    emit(document, as_json=as_json, text="\n".join(lines))

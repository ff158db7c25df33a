"""``quickstudy fit``, ``predict``, ``show``, ``export``: a task from a handful of examples."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.cli.output import emit, say, writable
from quickstudy.core import ConfigError

__all__ = ["export_command", "fit_command", "predict_command", "show_command"]


def fit_command(
    examples: Annotated[
        Path, typer.Argument(help="Folder of class folders, or a table: csv, tsv, jsonl, parquet.")
    ],
    out: Annotated[Path, typer.Option(help="The task file to write.")] = Path("examples.task"),
    encoder: Annotated[
        str | None,
        typer.Option(help="image, characters, text, table, a run or a model folder; else by data."),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            help="auto, prototype, ridge, logistic, kernel, neighbours, gradient, class-mean."
        ),
    ] = "auto",
    label: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column of what belongs together: no input. See 'advise --group'."),
    ] = None,
    unknown: Annotated[
        str | None, typer.Option(help="What to answer for inputs that fit no class.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Learn a task from a handful of examples and keep it as a file.

    Example: quickstudy fit photos/ --out zoo.task

    The folder holds one folder for each class. A table has a column of labels and a column "path",
    a column "text", or columns of numbers. Of a column "split" only the rows "train" are learned
    from, of folders train/ and test/ only the first.
    """
    # imported here: the other commands need not wait for these
    from quickstudy.estimators import FewShotClassifier, get_embedder
    from quickstudy.tasks.labelled import continuous, grouped, read_examples

    read = read_examples(examples, label=label)
    writable(out, "--out")
    if read.note:
        say(f"note: {read.note}")
    read, _ = grouped(read, group)
    assert read.y is not None
    if continuous(list(map(str, set(read.y)))):
        say("note: the labels are numbers like measurements; each different one is a class here.")
    chosen = encoder or read.kind
    say(f"{len(read.y)} examples of {len(set(read.y))} classes; encoder: {chosen}")
    modality = get_embedder(chosen, device=device).modality
    if modality != read.kind:
        raise ConfigError(
            f"the encoder {chosen!r} takes {modality}s; {examples} holds {read.kind}s. Leave "
            "--encoder out, or name one that takes them."
        )
    if unknown is not None and unknown in map(str, read.y):
        raise ConfigError(f"there is a class {unknown!r}; give --unknown another word.")
    clf = FewShotClassifier(chosen, head=head, unknown=unknown, device=device)
    clf.fit(read.x, read.y)
    clf.save(out)
    estimate, suspects, conflicts = clf.estimate_accuracy(), clf.suspects(), clf.conflicts()
    document = {
        "command": "fit",
        "task": str(out),
        "encoder": chosen,
        "head": clf.head_,
        "classes": {
            str(name): int(n)
            for name, n in zip(clf.support_.classes, clf.support_.counts, strict=True)
        },
        "expected_accuracy": asdict(estimate),
        "suspects": [
            {
                "source": read.names[s.row],
                "label": s.label,
                "suggestion": s.suggestion,
                "evidence": s.evidence,
            }
            for s in suspects
        ],
        "conflicts": [
            {"sources": [read.names[row] for row in c.rows], "labels": list(c.labels)}
            for c in conflicts
        ],
    }
    lines = [f"{out}: {clf.support_.n_way} classes, {len(read.y)} examples, head {clf.head_}"]
    if clf.support_.n_way > 1:
        lines.append(f"expected accuracy on new examples: {estimate}")
    else:
        lines.append("expected accuracy: nothing to say, there is one class only")
    if group is not None:
        lines.append(
            f"  of the groups in {group} that are here; of others expect what 'quickstudy advise "
            "--group' measures"
        )
    lines += [
        f"check {read.names[s.row]}: labelled {s.label}, looks like {s.suggestion}"
        for s in suspects[:5]
    ]
    if len(suspects) > 5:
        lines.append(f"... and {len(suspects) - 5} more; 'quickstudy show {out}' lists them")
    lines += [
        "the same example under different labels: "
        + ", ".join(
            f"{read.names[row]} ({name})" for row, name in zip(c.rows, c.labels, strict=True)
        )
        for c in conflicts[:5]
    ]
    lines.append(f"next: quickstudy predict {shlex.quote(str(out))} {_next(read.kind)}")
    emit(document, as_json=as_json, text="\n".join(lines))


def _next(kind: str) -> str:
    return {"image": "FOLDER", "text": "--text 'your text'", "table": "new.csv"}[kind]


def predict_command(
    task: Annotated[Path, typer.Argument(help="A task file made by fit.")],
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Images, folders of images, or one table.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text; may be repeated.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the answers: .csv, .jsonl or .parquet.")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Add the labels that cannot be ruled out, e.g. 0.9.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of right labels in a table, to score against.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Where the run or model folder of the task lies now.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Classify with a task file.

    Example: quickstudy predict zoo.task new/*.jpg --json
    """
    from quickstudy.cli.rows import write_rows
    from quickstudy.estimators import FewShotClassifier
    from quickstudy.tasks.labelled import LabelledFiles, read_inputs

    if bool(inputs) == bool(text):
        raise ConfigError("give inputs: images, a table, or --text 'some text' (one kind).")
    if coverage is not None and not 0 < coverage < 1:
        raise ConfigError(f"--coverage must lie between 0 and 1; got {coverage}.")
    clf = FewShotClassifier.load(task, encoder=encoder, device=device)
    modality = clf.embedder_.modality
    if text:
        read = LabelledFiles(list(text), None, "text", list(text))
    else:
        read = read_inputs(inputs or [], label=label)
    if modality != "array" and read.kind != modality:
        raise ConfigError(f"{task} classifies {modality}s; got {read.kind}s.")
    answers = clf.answer(read.x, coverage=coverage)
    rows = [_row(name, answer) for name, answer in zip(read.names, answers, strict=True)]
    document: dict[str, Any] = {"command": "predict", "task": str(task), "answers": rows}
    lines = [_line(row) for row in rows]
    if read.y is not None:
        right = [str(row["label"]) == str(y) for row, y in zip(rows, read.y, strict=True)]
        document["accuracy"] = sum(right) / len(right)
        lines.append(
            f"accuracy against the column of labels: {100 * document['accuracy']:.2f} % of "
            f"{len(right)}"
        )
    if out is not None:
        write_rows(out, [_flat(row) for row in rows])
        say(f"wrote {len(rows)} answers to {out}")
    emit(document, as_json=as_json, text="\n".join(lines))


def _row(name: str, answer: Any) -> dict[str, Any]:
    row = {
        "input": name,
        "label": answer.label,
        "nearest": answer.nearest,
        "probability": round(answer.probability, 4),
        "known": answer.known,
    }
    return row if answer.labels is None else row | {"set": list(answer.labels)}


def _line(row: dict[str, Any]) -> str:
    unsure = "" if row["known"] else "  (far from every class)"
    options = "" if "set" not in row else "  one of: " + (", ".join(map(str, row["set"])) or "none")
    sure = f"{100 * row['probability']:.0f} %"
    answer = f"{row['label']} {sure}"
    if row["label"] != row["nearest"]:
        answer = f"{row['label']} (nearest: {row['nearest']}, {sure} of the classes here)"
    return f"{row['input']}: {answer}{unsure}{options}"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return row | ({"set": " | ".join(map(str, row["set"]))} if "set" in row else {})


def show_command(
    task: Annotated[Path, typer.Argument(help="A task file made by fit.")],
    out: Annotated[Path | None, typer.Option(help="The page; else TASK.html.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Where the run or model folder of the task lies now.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Write a page about a task: classes with their examples, expected accuracy, suspects, a map.

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
    task: Annotated[Path, typer.Argument(help="A task file made by fit.")],
    out: Annotated[Path | None, typer.Option(help="The graph; else TASK.onnx.")] = None,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="For this task; else it learns any support set.")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Where the run or model folder of the task lies now.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Write a task as an ONNX graph: encoder, head and calibration.

    Example: quickstudy export zoo.task --out zoo.onnx

    With the heads prototype, class-mean and ridge the support set is an input, so the graph learns
    any task; with the others, or --fixed, it answers for this one.
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

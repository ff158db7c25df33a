"""The tables of docs/few-shot.md, from docs/results/estimators-*.json and estimator-costs.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from result_tables import RESULTS, load

# accuracy wanted by (set, task)
WANTED = {
    ("banking77", "5-way 5-shot"): 95.0,
    ("clinc150", "5-way 5-shot"): 99.0,
    ("omniglot", "20-way 1-shot"): 97.0,
}


def tables(kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return set, name and content of all tables of a kind."""
    files = sorted(RESULTS.glob(f"estimators-{kind}*.json"))
    scores: dict[str, Any] = {}
    for file in files:
        scores |= json.loads(file.read_text(encoding="utf-8"))["scores"]
    return [(data, key, t) for data, named in scores.items() for key, t in named.items()]


def filled(rows: list[str]) -> str:
    """Return a table, or nothing if it has only its two lines of heading."""
    return "\n".join(rows) if len(rows) > 2 else ""


def number(score: dict[str, float]) -> str:
    """Return ``96.31 ± 0.24``."""
    return f"{score['mean']:.2f} ± {score['ci95']:.2f}"


def accuracy_table(kind: str) -> str:
    """Return accuracy of ``auto`` against the baselines, with paired differences."""
    rows: list[str] = []
    for data, key, t in tables(kind):
        if "auto" not in t:
            continue
        names = list(t["baselines"])
        if not rows:
            rows = [
                f"| set | tasks | `auto` | {' | '.join(names)} | fixed heads | number of tasks |",
                "|---|---|---|" + "---|" * (len(names) + 2),
            ]
        goal = WANTED.get((data, key))
        said = "" if goal is None else f" (wanted {goal:g})"
        cells = []
        for name in names:
            other = t["baselines"][name]
            difference = other["ours_minus_it"]
            cells.append(
                f"{other['mean']:.2f} ({difference['mean']:+.2f} ± {difference['ci95']:.2f})"
            )
        heads = ", ".join(f"{name} {score['mean']:.2f}" for name, score in t["fixed"].items())
        rows.append(
            f"| {data} | {key} | {number(t['auto'])}{said} | {' | '.join(cells)} | {heads} | "
            f"{t['tasks']} |"
        )
    return "\n".join(rows)


def means_table(kind: str) -> str:
    """Return the mean over sets for each number of shots, ours and the baselines'."""
    found: dict[str, dict[str, list[float]]] = {}
    for _, key, t in tables(kind):
        if "auto" in t:
            row = found.setdefault(key, {})
            row.setdefault("`auto`", []).append(t["auto"]["mean"])
            for name, other in t["baselines"].items():
                row.setdefault(name, []).append(other["mean"])
    if not found:
        return ""
    names = list(next(iter(found.values())))
    rows = [f"| mean over sets | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for key, row in found.items():
        values = [f"{sum(row[name]) / len(row[name]):.2f}" for name in names]
        rows.append(f"| {key} | {' | '.join(values)} |")
    return "\n".join(rows)


def encoders_table() -> str:
    """Return the character encoder against EfficientNet on the same tasks."""
    rows = ["| set | tasks | `characters` | `image` |", "|---|---|---|---|"]
    for data, key, t in tables("characters"):
        if "efficientnet" in t:
            rows.append(
                f"| {data} | {key} | {number(t['auto'])} | {number(t['efficientnet']['auto'])} |"
            )
    return filled(rows)


def costs_list() -> str:
    """Return times and memory."""
    document = load("estimator-costs")
    if document is None:
        return ""
    scores, cores = document["scores"], document["machine"]["cores"]
    first, onnx = scores["first_answer_25_pictures"], scores["onnx_conv4"]
    lines = [
        f"* A new process learns 25 JPEG files and answers for 25 in {first['seconds']} s with "
        f"all imports, and takes {first['peak_megabytes']} MB at most ({cores} cores).",
    ]
    for name, value in onnx.items():
        if isinstance(value, dict):
            lines.append(
                f"* Conv-4 with its head as a graph ({name}): {value['times_faster']} times as "
                f"fast as eager torch ({value['onnxruntime_milliseconds']} against "
                f"{value['eager_milliseconds']} ms, one thread each; wanted: "
                f"{onnx['wanted_times_faster']} times); it differs by "
                f"{value['largest_difference']:.0e}."
            )
    for name, value in scores["class_added_to_1000"].items():
        if isinstance(value, dict):
            lines.append(
                f"* A class of 5 pictures is added to a task of 1,000 classes in "
                f"{value['seconds']} s ({name}), at most {value['slowest']} s."
            )
    return "\n".join(lines)


PARTS = {
    "all": "all columns",
    "first column": "the first column alone",
    "first two columns": "the first two columns alone",
    "as they come": "all columns, rows drawn whatever their class is",
}


def columns_table() -> str:
    """Return the mean accuracy over real tables, and what classes on a line give."""
    document = load("tables")
    if document is None:
        return ""
    methods = list(document["all"]["all"][0]["means"])
    lines = [
        f"| columns | rows per class | {' | '.join(methods)} | `auto` 2 points below the best of "
        "the others (by two standard errors) |",
        "|---|---|" + "---|" * (len(methods) + 1),
    ]
    for part, words in PARTS.items():
        for row in document.get(part, {"all": []})["all"]:
            means = " | ".join(f"{row['means'][m]:.1f}" for m in methods)
            below = f"{row['below_the_best_by_more_than_2']} of {row['tables']}"
            sure = row["and_by_two_standard_errors"] if part == "all" else "-"
            lines.append(f"| {words} | {row['shots']} | {means} | {below} ({sure}) |")
    if "line" in document:
        lines += [
            "",
            f"| classes on a line | rows per class | {' | '.join(methods)} |",
            "|---|---|" + "---|" * len(methods),
        ]
        for row in document["line"]:
            means = " | ".join(f"{row['means'][m]:.1f}" for m in methods)
            lines.append(f"| {row['classes']} | {row['shots']} | {means} |")
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "estimators-text": lambda: accuracy_table("text"),
    "estimators-image": lambda: accuracy_table("image") + "\n\n" + means_table("image"),
    "estimators-characters": lambda: accuracy_table("characters") + "\n\n" + encoders_table(),
    "estimators-costs": costs_list,
    "estimators-tables": columns_table,
}

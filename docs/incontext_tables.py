"""The tables of docs/incontext.md, from docs/results/incontext-*.json and memorise.json."""

from __future__ import annotations

from typing import Any

from result_tables import load

_MISSING = "Not measured yet."
_NAMES = {"cifar_fs": "CIFAR-FS", "gtsrb": "GTSRB", "dtd10": "DTD", "quickdraw": "QuickDraw"}


def _difference(found: dict[str, float]) -> str:
    return f"{found['difference']:+.2f} ± {found['ci95']:.2f}"


def heads_table() -> str:
    """Return the accuracies of the heads on kinds of data that were left out."""
    document = load("incontext-heads-image")
    if document is None:
        return _MISSING
    lines = [
        "5-way accuracy in %, image encoder; differences in points with 95 % intervals over tasks.",
        "",
        "| data | shots | nearest class mean | auto | incontext | over nearest mean | over auto | "
        "calibration error: auto, incontext |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        name = _NAMES.get(row["set"], f"**{row['set']}**")
        cells = [name, str(row["shots"])]
        cells += [f"{row[head]:.2f}" for head in ("prototype", "auto", "incontext")]
        cells += [_difference(row[f"over_{other}"]) for other in ("prototype", "auto")]
        errors = [row.get(f"{head}_calibration_error") for head in ("auto", "incontext")]
        cells.append(", ".join("" if e is None else f"{e:.3f}" for e in errors).strip(", "))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def omniglot_table() -> str:
    """Return the accuracies from pixels beside those of the encoder that was started from."""
    document = load("incontext-omniglot")
    if document is None:
        return _MISSING
    trained = document["trained"]
    lines = [
        f"Omniglot's test characters (Vinyals split, rotations as classes), inductive, "
        f"{document['episodes']} tasks. The Prototypical Network was trained for "
        f"{trained['omniglot-protonet']:,} steps, the transformer for "
        f"{trained['omniglot-incontext']:,} more; both are far from done "
        f"({document['planned']['omniglot-protonet']:,} and "
        f"{document['planned']['omniglot-incontext']:,} in the recipes).",
        "",
        "| tasks | ProtoNet it started from | class means of the trained encoder | in-context | "
        "over ProtoNet | over its class means |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        cells = [f"{row['n_way']}-way {row['k_shot']}-shot"]
        cells += [f"{100 * row[name]:.2f}" for name in ("protonet", "means", "incontext")]
        cells += [_difference(row[f"over_{other}"]) for other in ("protonet", "means")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memorise_table() -> str:
    """Return the accuracies on seen and unseen tasks by the number of training tasks."""
    document = load("memorise")
    if document is None:
        return _MISSING

    def cell(found: dict[str, float]) -> str:
        return f"{100 * found['mean']:.1f} ± {100 * found['ci95']:.1f}"

    rows: list[dict[str, Any]] = document["rows"]
    lines = [
        "A task is a random projection of 8x8 digits, five classes, one example each "
        "(benchmarks/memorise.py, after Kirsch et al. 2022). The class means are silenced, so that "
        f"the transformer knows only what it learned in {rows[0]['steps']} steps. The nearest "
        f"class mean has {cell(document['nearest_class_mean'])} %.",
        "",
        "| training tasks | seen projections, new images | unseen projections | the watch warns |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['tasks']:,} | {cell(row['seen'])} | {cell(row['unseen'])} | "
        f"{'yes' if row['watch'] else 'no'} |"
        for row in rows
    ]
    return "\n".join(lines)


BLOCKS = {
    "incontext-heads": heads_table,
    "incontext-omniglot": omniglot_table,
    "memorise": memorise_table,
}

"""The tables of docs/honesty.md, from docs/results/honesty-*.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from result_tables import load

ENCODERS = ("text", "image", "characters")
Row = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A number that is wanted in every cell.

    Args:
        name: of the number, for people.
        value: of a row; ``None`` = the row has none.
        holds: whether it is as wanted.
        shots: of the cells that it is wanted in.
        worst: of two values the worse one is that with the larger result.
    """

    name: str
    value: Callable[[Row], float | None]
    holds: Callable[[float], bool]
    shots: tuple[int, ...]
    worst: Callable[[float], float]


def fact(name: str) -> Callable[[Row], float | None]:
    """Return a function that reads a number of a row, as a percentage."""
    return lambda row: None if name not in row else 100 * row[name]


def lead(name: str) -> Callable[[Row], float | None]:
    """Return a function that reads by how much ours is above plain nearest neighbour."""

    def read(row: Row) -> float | None:
        key = f"{name}_auroc"
        return None if key not in row else 100 * (row[key] - row[f"{key}_nearest"])

    return read


MANY, ONE = (5, 10), (1,)
WANTED = [
    Wanted(
        "90 % sets: coverage, 87 to 95 %",
        fact("covered"),
        lambda v: 87 <= v <= 95,
        MANY,
        lambda v: abs(v - 91),
    ),
    Wanted(
        "90 % sets: coverage, 85 % or more", fact("covered"), lambda v: v >= 85, ONE, lambda v: -v
    ),
    Wanted("90 % sets: empty, 5 % or less", fact("empty"), lambda v: v <= 5, ONE, lambda v: v),
    Wanted(
        "false rejects at 5 %, 2 to 9 %",
        fact("false_rejects"),
        lambda v: 2 <= v <= 9,
        MANY,
        lambda v: abs(v - 5.5),
    ),
    Wanted(
        "false rejects at 5 %, 12 % or less",
        fact("false_rejects"),
        lambda v: v <= 12,
        ONE,
        lambda v: v,
    ),
    *(
        Wanted(
            f"{words} strangers: AUROC against nearest neighbour, not 1 point below",
            lead(name),
            lambda v: v >= -1,
            (1, 5, 10),
            lambda v: -v,
        )
        for name, words in (("near", "near"), ("far", "far"))
    ),
    Wanted(
        "calibration error, 4 points or less",
        fact("calibration_error"),
        lambda v: v <= 4,
        MANY,
        lambda v: v,
    ),
    Wanted(
        "calibration error, 10 points or less",
        fact("calibration_error"),
        lambda v: v <= 10,
        ONE,
        lambda v: v,
    ),
    Wanted(
        "expected accuracy: mean error, 5 points",
        fact("missed_by"),
        lambda v: v <= 5,
        MANY,
        lambda v: v,
    ),
    Wanted(
        "expected accuracy: mean error, 12 points",
        fact("missed_by"),
        lambda v: v <= 12,
        ONE,
        lambda v: v,
    ),
    Wanted(
        "its 90 % interval holds, 85 % or more",
        fact("held"),
        lambda v: v >= 85,
        (1, 5, 10),
        lambda v: -v,
    ),
    Wanted(
        "correct labels listed as suspect, 5 % or less",
        fact("suspects"),
        lambda v: v <= 5,
        MANY,
        lambda v: v,
    ),
]


def rows_of(encoder: str, mode: str = "") -> list[Row]:
    """Return the rows of an encoder; none if it was not scored."""
    document = load(f"honesty-{encoder}{mode}")
    return [] if document is None else list(document["rows"])


def cell(row: Row) -> str:
    """Return the name of a cell."""
    return f"{row['set']} {row['ways']}-way {row['shots']}-shot"


def summary(mode: str = "") -> str:
    """Return for each wanted number in how many cells it holds, its mean and the worst cell."""
    names = " | ".join(ENCODERS)
    lines = [f"| wanted | shots | {names} |", "|---|---|" + "---|" * len(ENCODERS)]
    for wanted in WANTED:
        cells = []
        for encoder in ENCODERS:
            found = [
                (value, row)
                for row in rows_of(encoder, mode)
                if "labels" not in row and row["shots"] in wanted.shots
                if (value := wanted.value(row)) is not None
            ]
            if not found:
                cells.append("")
                continue
            held = sum(wanted.holds(value) for value, _ in found)
            worst, where = max(found, key=lambda one: wanted.worst(one[0]))
            mean = sum(value for value, _ in found) / len(found)
            cells.append(
                f"{held} of {len(found)}; mean {mean:.1f}, worst {worst:.1f} ({cell(where)})"
            )
        shots = "1" if wanted.shots == ONE else "5, 10" if wanted.shots == MANY else "1, 5, 10"
        lines.append(f"| {wanted.name} | {shots} | {' | '.join(cells)} |")
    return "\n".join(lines)


def every_cell(encoder: str, mode: str = "") -> str:
    """Return the numbers of every cell."""
    lines = [
        "| set, ways, shots | accuracy | expected, off by, interval holds | 90 % sets: coverage, "
        "size, empty | calibration error | false rejects | near strangers: caught, told, AUROC "
        "(nearest) "
        "| far: caught, AUROC (nearest) | suspects |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows_of(encoder, mode):
        if "labels" in row:
            continue
        p = {name: 100 * value for name, value in row.items() if isinstance(value, float)}
        near = ""
        if "near_caught" in p:
            told = f"{p['near_caught_told']:.0f}" if "near_caught_told" in p else "-"
            near = (
                f"{p['near_caught']:.0f}, {told}, {p['near_auroc']:.1f} "
                f"({p['near_auroc_nearest']:.1f})"
            )
        lines.append(
            f"| {cell(row)} | {p['accuracy']:.1f} | {p['expected']:.1f}, {p['missed_by']:.1f}, "
            f"{p['held']:.0f} | {p['covered']:.1f}, {row['set_size']:.2f}, {p['empty']:.1f} | "
            f"{row['calibration_error']:.3f} | {p['false_rejects']:.1f} | {near} | "
            f"{p['far_caught']:.0f}, {p['far_auroc']:.1f} ({p['far_auroc_nearest']:.1f}) | "
            f"{p['suspects']:.1f} |"
        )
    return "\n".join(lines)


def without_meaning() -> str:
    """Return what is said of labels that carry nothing, and how often a flipped label is found."""
    lines = [
        "| set | labels | shots | expected | interval holds chance | told that nothing was learned "
        "|",
        "|---|---|---|---|---|---|",
    ]
    flipped = []
    for encoder in ENCODERS:
        for row in rows_of(encoder):
            name = f"{row['set']} ({encoder})"
            if "interval_holds_chance" in row:
                shares = [row[n] for n in ("expected", "interval_holds_chance", "told")]
                said = " | ".join(f"{100 * share:.0f} %" for share in shares)
                lines.append(f"| {name} | {row['labels']} | {row['shots']} | {said} |")
            elif "among_first_two" in row:
                flipped.append(
                    f"{name} {100 * row['among_first_two']:.0f} % ({100 * row['first']:.0f} %)"
                )
    said = "One of 25 labels flipped: among the first two suspects (the first) in "
    return "\n".join(lines) + "\n\n" + said + ", ".join(flipped) + "."


def one_shot() -> str:
    """Return how far examples of one and of two classes lie apart, and how hard tasks are."""
    document = load("one-shot")
    lines = [
        "| set (encoder) | of two classes | of one class | right at one shot | correlation of the "
        "first and the last, over tasks |",
        "|---|---|---|---|---|",
    ]
    for row in [] if document is None else document["rows"]:
        lines.append(
            f"| {row['set']} ({row['encoder']}) | {row['between']:.2f} | {row['within']:.2f} | "
            f"{100 * row['accuracy']:.0f} % | {row['correlation']:.2f} |"
        )
    return "\n".join(lines)


def lengths() -> str:
    """Return the accuracy of the estimator beside logistic regression."""
    document = load("lengths")
    rows = [] if document is None else document["rows"]
    if not rows:
        return ""
    methods = list(rows[0]["accuracy"])
    lines = [f"| set (encoder), shots | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
    for row in rows:
        cells = [
            f"{100 * one['mean']:.1f} ± {100 * one['ci95']:.1f}" for one in row["accuracy"].values()
        ]
        lines.append(f"| {row['set']} ({row['encoder']}), {row['shots']} | {' | '.join(cells)} |")
    for shots in sorted({row["shots"] for row in rows}):
        means = [
            sum(r["accuracy"][m]["mean"] for r in rows if r["shots"] == shots)
            / sum(r["shots"] == shots for r in rows)
            for m in methods
        ]
        cells = [f"**{100 * mean:.1f}**" for mean in means]
        lines.append(f"| mean over all, {shots} | {' | '.join(cells)} |")
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "honesty-summary": summary,
    "honesty-own": lambda: summary("-own"),
    "honesty-text": lambda: every_cell("text"),
    "honesty-image": lambda: every_cell("image"),
    "honesty-characters": lambda: every_cell("characters"),
    "honesty-meaningless": without_meaning,
    "honesty-films": lambda: every_cell("image", "-films"),
    "honesty-one-shot": one_shot,
    "honesty-lengths": lengths,
}

"""The tables of docs/processes.md, from docs/results/processes.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from result_tables import load

_HEADS = (
    "| points | learner | squared error | negative log-likelihood, nats | in 90 % intervals, % |"
)


def processes_table() -> str:
    """Return squared error, likelihood and coverage on sine waves and on functions."""
    document = load("processes")
    if document is None:
        return "Not measured yet: `python benchmarks/processes.py` does it."
    waves, functions = document["sine_waves"], document["gaussian_processes"]
    n = waves[0]["episodes"]
    times = [
        f"* `{name}`: {one['steps']:,} steps in {one['seconds'] / 60:.1f} minutes"
        + ("." if one["steps"] >= one["recipe_steps"] else _shorter(one))
        for name, one in document["training"].items()
    ]
    return "\n".join(
        [
            "Sine waves:",
            "",
            *_rows(waves),
            "",
            "Functions of Gaussian processes:",
            "",
            *_rows(functions),
            "",
            f"Means with 95 % CI over {n:,} test tasks of 100 queries, seed 0. \\* deviation "
            "estimated from held-out support.",
            "",
            *times,
        ]
    )


def _shorter(one: dict[str, Any]) -> str:
    """Return how much less a run was trained than its recipe says."""
    wanted, done = one["recipe_steps"], one["steps"]
    return f", not the recipe's {wanted:,}: `-s steps={done}`. It would go on learning."


def _rows(found: list[dict[str, Any]]) -> list[str]:
    rows = [_HEADS, "|---|---|---|---|---|"]
    for row in found:
        for name, one in row.items():
            if not isinstance(one, dict) or "mse" not in one:
                continue
            cells = [_cell(one.get(key), scale) for key, scale in _COLUMNS]
            mark = " \\*" if one.get("deviation") == "held-out support" else ""
            rows.append(f"| {row['k_shot']} | {name}{mark} | {' | '.join(cells)} |")
    return rows


_COLUMNS = (("mse", 1), ("nll", 1), ("coverage90", 100))


def _cell(score: dict[str, float] | None, scale: int) -> str:
    if score is None:
        return ""
    digits = 3 if scale == 1 else 1
    return f"{scale * score['mean']:.{digits}f} ± {scale * score['ci95']:.{digits}f}"


BLOCKS: dict[str, Callable[[], str]] = {"processes": processes_table}

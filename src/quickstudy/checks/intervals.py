"""Is an interval what it says? By simulation, and by computing that of a document again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.checks.findings import Finding, Outcome, Passed, Skipped
from quickstudy.core import DataError
from quickstudy.evaluation.report import Report
from quickstudy.evaluation.statistics import mean_interval, paired_p_value

__all__ = [
    "check_differences",
    "check_document",
    "check_interval",
    "check_protocol",
    "episode_interval",
]

Floats = npt.NDArray[np.float64]

COVERAGE = (0.93, 0.97)
"""What the coverage of a 95 % interval must lie in; 2,000 simulations have an error of 0.005."""

_TASKS = 2000
_EXACT = 1e-6  # documents round


def episode_interval(right: Floats) -> float:
    """Return the interval that reports carry: Student's t over the means of episodes.

    Args:
        right: 1 for each query that was answered rightly, else 0, ``[E, Q]``.
    """
    return mean_interval(right.mean(1))


def check_interval(
    interval: Callable[[Floats], float] = episode_interval,
    *,
    simulations: int = 2000,
    episodes: int = 100,
    queries: int = 75,
    seed: int = 0,
) -> Outcome:
    """Simulate evaluations whose true mean is known, and count how often an interval holds it.

    A fixed pool of 2,000 tasks has accuracies drawn from a beta distribution with mean 0.6 and
    standard deviation 0.1, as 5-way 1-shot tasks of photographs have; an evaluation draws tasks
    and answers of their queries.

    Args:
        interval: takes answers ``[E, Q]`` (1 right, 0 wrong), gives the half-width of a 95 %
            interval of their mean.
        simulations: number of evaluations.
        episodes: of each, ``E``.
        queries: of an episode, ``Q``.
        seed: of the simulation.

    Returns:
        A finding if the coverage lies outside 93 to 97 %.
    """
    random = np.random.default_rng(seed)
    strength = 0.6 * 0.4 / 0.1**2 - 1
    accuracies = random.beta(0.6 * strength, 0.4 * strength, _TASKS)
    truth, held, widths = float(accuracies.mean()), 0, []
    for _ in range(simulations):
        drawn = accuracies[random.integers(_TASKS, size=episodes)]
        right = (random.random((episodes, queries)) < drawn[:, None]).astype(np.float64)
        width = float(interval(right))
        held += abs(float(right.mean()) - truth) <= width
        widths.append(width)
    coverage = held / simulations
    text = f"a 95 % interval over {episodes} episodes holds the truth in {100 * coverage:.1f} %"
    if COVERAGE[0] <= coverage <= COVERAGE[1]:
        return Passed("interval", f"{text} of {simulations:,} simulations")
    why = "too narrow: it counts something else than episodes" if coverage < 0.95 else "too wide"
    return Finding(
        "interval",
        "fault",
        f"By simulation {text} of cases: it is {why}.",
        {
            "coverage": coverage,
            "simulations": simulations,
            "episodes": episodes,
            "queries": queries,
            "mean_half_width": float(np.mean(widths)),
        },
        "Take the interval over the means of episodes (evaluation.mean_interval): queries of an "
        "episode share its support.",
    )


def check_document(document: Mapping[str, Any] | Report) -> Outcome:
    """Compute the mean and the interval of a document again.

    Args:
        document: as ``quickstudy evaluate --json`` prints it, with ``"scores"``, one per episode,
            beside ``"accuracy"`` or ``"mse"``; or a report.

    Returns:
        A finding if they are not what is written; skipped if there are no scores.

    Raises:
        DataError: if it is no such document.
    """
    if isinstance(document, Report):
        document = {**document.to_dict(), "scores": document.scores.tolist()}
    metric = next((name for name in ("accuracy", "mse") if name in document), None)
    try:
        stated = document[metric or "accuracy"]
        mean, ci95 = float(stated["mean"]), stated["ci95"]
        protocol = document.get("protocol", {})
        scores = np.asarray(document.get("scores", []), dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"this is no document of 'quickstudy evaluate --json' ({type(error).__name__}: "
            f"{error}). It needs accuracy or mse with mean and ci95."
        ) from error
    if metric != "mse" and (bad := [v for v in (mean, *scores) if not 0 <= v <= 1]):
        return Finding(
            "interval",
            "fault",
            f"{bad[0]:g} is no accuracy: it must lie between 0 and 1.",
            {"outside": len(bad), "first": bad[0]},
            "Write accuracies as fractions: right answers over all answers of an episode.",
        )
    if not len(scores):
        return Skipped("interval", "the document holds no scores of episodes")
    said = float("nan") if ci95 is None else float(ci95)
    right = mean_interval(scores)
    expected = protocol.get("episodes", len(scores))
    same = math.isclose(mean, float(scores.mean()), abs_tol=_EXACT) and expected == len(scores)
    if same and (math.isclose(said, right, abs_tol=_EXACT) or math.isnan(said + right)):
        return Passed("interval", f"mean and interval follow from {len(scores):,} scores")
    return Finding(
        "interval",
        "fault",
        f"The document says {mean:.6f} ± {said:.6f} over {expected:,} episodes; its "
        f"{len(scores):,} scores give {scores.mean():.6f} ± {right:.6f}.",
        {
            "stated": {"mean": mean, "ci95": ci95, "episodes": expected},
            "computed": {
                "mean": float(scores.mean()),
                "ci95": None if math.isnan(right) else right,
            },
        },
        "Take the interval over episodes, never over queries, and write both anew.",
    )


def check_protocol(document: Mapping[str, Any]) -> list[Finding]:
    """Return what a document says about itself that spoils its number, or what it leaves out.

    Args:
        document: as ``quickstudy evaluate --json`` prints it.
    """
    protocol = document.get("protocol")
    if not isinstance(protocol, Mapping):
        return [
            Finding(
                "protocol",
                "note",
                "The document does not say what its number is over: it has no protocol.",
                {},
                "Give data, split, way, shot, queries, episodes and seed beside every accuracy.",
            )
        ]
    found = []
    for key, severity, what, remedy in (
        ("trained_on", "fault", "was trained or validated on these classes", "Judge on others."),
        ("chosen_on", "note", "was chosen by its score on these classes", "Judge on others."),
        (
            "transductive",
            "note",
            "looks at all queries of a task together",
            "Say so beside the number, or judge each query on its own.",
        ),
    ):
        if protocol.get(key):
            text = f"The learner {what}, as the document says ({key})."
            found.append(Finding("protocol", severity, text, {key: True}, remedy))  # type: ignore[arg-type]
    error = document.get("calibration_error")
    if isinstance(error, int | float) and not 0 <= error <= 1:
        found.append(
            Finding(
                "protocol",
                "fault",
                f"{error:g} is no calibration error: it lies between 0 and 1.",
                {"calibration_error": error},
                "Take the mean gap between confidence and accuracy.",
            )
        )
    return found


def check_differences(document: Mapping[str, Any]) -> Outcome:
    """Compute the paired differences of a comparison again.

    Args:
        document: ``comparison.json`` of ``quickstudy compare``, with the scores of every result.
    """
    check = "paired-differences"
    try:
        scores = {
            (r["tasks"], r["learner"]): np.asarray(r["scores"], dtype=np.float64)
            for r in document["results"]
        }
        stated = [
            (d["tasks"], d["first"], d["second"], d["mean"], d["p"])
            for d in document.get("paired", [])
        ]
        gaps = [scores[t, a] - scores[t, b] for t, a, b, _, _ in stated]
    except (KeyError, TypeError, ValueError) as error:
        return Skipped(check, f"the document holds no scores to compute them from ({error!r})")
    for (tasks, first, second, mean, p), gap in zip(stated, gaps, strict=True):
        right, right_p = float(gap.mean()), paired_p_value(gap)
        if not (
            math.isclose(mean, right, abs_tol=_EXACT) and math.isclose(p, right_p, abs_tol=_EXACT)
        ):
            return Finding(
                check,
                "fault",
                f"{first} minus {second} on {tasks} is said to be {mean:.6f} (p {p:.2g}); their "
                f"scores give {right:.6f} (p {right_p:.2g}).",
                {"stated": {"mean": mean, "p": p}, "computed": {"mean": right, "p": right_p}},
                "Take the difference on each episode, and its mean over episodes.",
            )
    return Passed(check, f"{len(stated):,} differences follow from the scores")

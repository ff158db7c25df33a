"""Does a 95 % interval cover the truth in 95 % of cases, and does a document's follow from its
scores?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.checks.findings import Finding, Outcome, Passed, Skipped
from quickstudy.core import DataError
from quickstudy.core.arguments import checked
from quickstudy.core.words import count
from quickstudy.evaluation.metrics import ACCURACY, METRICS
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
"""Range in which the coverage of a 95 % interval must lie: 4 standard errors of 2,000 simulations,
0.005 each, to both sides."""

_TASKS_IN_POOL = 2000
_LARGEST = 1e100  # of a score: squares of differences stay finite
_ROUNDING = 1e-6  # documents may hold rounded numbers


def episode_interval(right: Floats) -> float:
    """Return the half-width of the interval in reports: Student's t over the means of episodes.

    Args:
        right: 1 for each query that was answered correctly, else 0, ``[E, Q]``.
    """
    return mean_interval(right.mean(1))


@checked
def check_interval(
    interval: Callable[[Floats], float] = episode_interval,
    *,
    simulations: int = 2000,
    episodes: int = 100,
    queries: int = 75,
    seed: int = 0,
) -> Outcome:
    """Simulate evaluations whose true mean is known, and count how often an interval covers it.

    A fixed pool of 2,000 tasks has accuracies drawn from a beta distribution with mean 0.6 and
    standard deviation 0.1, as 5-way 1-shot tasks of photographs have. Each evaluation draws tasks
    of the pool, and for each query whether it is answered correctly.

    Args:
        interval: takes answers ``[E, Q]`` (1 right, 0 wrong), returns the half-width of a 95 %
            interval of their mean.
        simulations: number of evaluations.
        episodes: number of episodes in an evaluation, ``E``.
        queries: number of queries in an episode, ``Q``.
        seed: of the simulation.

    Returns:
        A finding if the coverage lies outside 93 to 97 %.
    """
    random = np.random.default_rng(seed)
    # Beta(m s, (1 - m) s) has mean m and variance m (1 - m) / (s + 1): solved for s
    strength = 0.6 * 0.4 / 0.1**2 - 1
    accuracies = random.beta(0.6 * strength, 0.4 * strength, _TASKS_IN_POOL)
    truth, covered, widths = float(accuracies.mean()), 0, []
    for _ in range(simulations):
        drawn = accuracies[random.integers(_TASKS_IN_POOL, size=episodes)]
        right = (random.random((episodes, queries)) < drawn[:, None]).astype(np.float64)
        width = float(interval(right))
        covered += abs(float(right.mean()) - truth) <= width
        widths.append(width)
    coverage = covered / simulations
    text = f"a 95 % interval over {episodes} episodes covers the truth in {100 * coverage:.1f} %"
    if COVERAGE[0] <= coverage <= COVERAGE[1]:
        return Passed("interval", f"{text} of {simulations:,} simulations")
    why = "too wide"
    if coverage < 0.95:
        why = "too narrow, as it is if queries are counted in place of episodes"
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


@checked
def check_document(document: Mapping[str, Any] | Report) -> Outcome:
    """Compute the mean and the interval of a document again from its scores.

    Args:
        document: as ``quickstudy evaluate --json`` prints it, with ``"scores"``, one per episode,
            beside ``"accuracy"`` or ``"mse"``; or a report.

    Returns:
        A finding if the document states other numbers; skipped if there are no scores.

    Raises:
        DataError: if it is no such document.
    """
    if isinstance(document, Report):
        document = {**document.to_dict(), "scores": document.scores.tolist()}
    metric = next((METRICS[name] for name in METRICS if name in document), None)
    try:
        stated = document[(metric or ACCURACY).name]
        mean, ci95 = float(stated["mean"]), stated["ci95"]
        stated_ci95 = float("nan") if ci95 is None else float(ci95)
        scores = np.asarray(document.get("scores", []), dtype=np.float64)
        if scores.ndim != 1:
            raise TypeError("scores are one number for each episode")
        expected = int(document.get("protocol", {}).get("episodes", len(scores)))
        if isinstance(stated["mean"], bool) or isinstance(ci95, bool):
            raise TypeError("mean and ci95 are numbers")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"this is no document of 'quickstudy evaluate --json' ({type(error).__name__}: "
            f"{error}). It needs accuracy or mse with mean and ci95."
        ) from error
    most = 1.0 if metric is None or metric.fraction else math.inf
    if bad := [v for v in (mean, *scores) if not 0 <= v <= most]:
        return Finding(
            "interval",
            "fault",
            f"{bad[0]:g} is no accuracy: it must lie between 0 and 1."
            if most == 1
            else f"{bad[0]:g} is no {(metric or ACCURACY).title}: it must be a number from 0 on.",
            {"outside": len(bad), "first": bad[0] if math.isfinite(bad[0]) else str(bad[0])},
            "Write accuracies as fractions: the share of right answers in an episode."
            if most == 1
            else "Write the mean of the squared differences of each episode.",
        )
    if not len(scores):
        return Skipped("interval", "the document holds no scores of episodes")
    computed = mean_interval(scores)
    same = math.isclose(mean, float(scores.mean()), abs_tol=_ROUNDING) and expected == len(scores)
    close = math.isclose(stated_ci95, computed, abs_tol=_ROUNDING)
    # of one episode there is no interval: NaN
    if same and (close or math.isnan(stated_ci95 + computed)):
        return Passed("interval", f"mean and interval follow from {len(scores):,} scores")
    return Finding(
        "interval",
        "fault",
        f"The document says {_numbers(mean, stated_ci95)} over {count(expected, 'episode')}; its "
        f"{count(len(scores), 'score')} {'gives' if len(scores) == 1 else 'give'} "
        f"{_numbers(float(scores.mean()), computed)}.",
        {
            "stated": {"mean": mean, "ci95": ci95, "episodes": expected},
            "computed": {
                "mean": float(scores.mean()),
                "ci95": None if math.isnan(computed) else computed,
            },
        },
        "Compute the interval over episodes, never over queries, and write both numbers again.",
    )


def _numbers(mean: float, ci95: float) -> str:
    """Return a mean with its interval, to as many digits as are compared."""
    if math.isnan(ci95):
        return f"{mean:.6f} without an interval"
    return f"{mean:.6f} ± {ci95:.6f}"


@checked
def check_protocol(document: Mapping[str, Any]) -> list[Finding]:
    """Return what makes a document's score wrong or unclear, by what it says of its protocol.

    Args:
        document: as ``quickstudy evaluate --json`` prints it.
    """
    protocol = document.get("protocol")
    if not isinstance(protocol, Mapping):
        return [
            Finding(
                "protocol",
                "note",
                "The document has no protocol, so it does not say which tasks its score is of.",
                {},
                "Write data, split, way, shot, queries, episodes and seed beside every accuracy.",
            )
        ]
    found = []
    other_classes = "Score it on other classes."
    for key, severity, what, remedy in (
        ("trained_on", "fault", "was trained or validated on these classes", other_classes),
        ("chosen_on", "note", "was chosen by its score on these classes", other_classes),
        (
            "transductive",
            "note",
            "looks at all queries of a task together",
            "Say so beside the score, or predict each query on its own.",
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
                f"{str(error)[:20]} is no calibration error: it must lie between 0 and 1.",
                {"calibration_error": error},
                "Write the mean absolute difference between confidence and accuracy.",
            )
        )
    return found


@checked
def check_differences(document: Mapping[str, Any]) -> Outcome:
    """Compute the paired differences of a comparison again from its scores.

    Args:
        document: ``comparison.json`` of ``quickstudy compare``, with the scores of every result.

    Returns:
        A finding about the first difference that is stated otherwise; skipped if there are no
        scores.
    """
    check = "paired-differences"
    try:
        scores = {
            (r["tasks"], r["learner"]): np.asarray(r["scores"], dtype=np.float64)
            for r in document["results"]
        }
        stated = [
            (d["tasks"], d["first"], d["second"], float(d["mean"]), float(d["p"]))
            for d in document.get("paired", [])
        ]
        if any(s.ndim != 1 or not len(s) or not np.all(abs(s) < _LARGEST) for s in scores.values()):
            raise TypeError("scores are one number for each episode")
        gaps = [scores[t, a] - scores[t, b] for t, a, b, _, _ in stated]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return Skipped(check, f"the document holds no scores to compute them from ({error!r})")
    for (tasks, first, second, mean, p), gap in zip(stated, gaps, strict=True):
        own_mean, own_p = float(gap.mean()), paired_p_value(gap)
        if not (
            math.isclose(mean, own_mean, abs_tol=_ROUNDING)
            and math.isclose(p, own_p, abs_tol=_ROUNDING)
        ):
            return Finding(
                check,
                "fault",
                f"The document says that {first} minus {second} on {tasks} is {mean:.6f} (p "
                f"{p:.2g}); their scores give {own_mean:.6f} (p {own_p:.2g}).",
                {"stated": {"mean": mean, "p": p}, "computed": {"mean": own_mean, "p": own_p}},
                "Subtract the scores episode by episode, and take the mean over episodes.",
            )
    return Passed(check, f"{len(stated):,} differences follow from the scores")

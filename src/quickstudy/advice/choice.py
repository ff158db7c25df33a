"""Approaches on the same episodes, and the rule by which one is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from quickstudy.advice.approaches import Approach, Contender
from quickstudy.advice.episodes import Outcome, Sample, draw_trial
from quickstudy.advice.records import Measured
from quickstudy.evaluation.statistics import mean_interval

__all__ = ["choose", "run_trials", "run_until_clear"]

_QUERIES = 300  # of an episode, at least 15 of a class
_AT_MOST_WORSE, _CLEAR = 0.01, 0.02


def run_trials(
    sample: Sample,
    tried: Sequence[Contender],
    *,
    shots: Sequence[int],
    n_way: int,
    episodes: int,
    seed: int,
    first: int = 0,
    only: Sequence[str] | None = None,
    progress: bool = False,
) -> dict[int, dict[str, Outcome]]:
    """Return the outcome of every approach by shot and name; all answer the same episodes.

    Args:
        sample: what episodes are drawn from.
        tried: the approaches.
        shots: labels per class.
        n_way: classes of an episode.
        episodes: per shot.
        seed: of the episodes.
        first: index of the first episode.
        only: names of approaches; all by default.
        progress: show a bar on stderr if it takes more than two seconds.
    """
    n_query = max(15, _QUERIES // n_way)
    names = [a.name for c in tried for a in c.approaches]
    names = names if only is None else [n for n in names if n in only]
    found = {k: {name: Outcome.empty(sample) for name in names} for k in shots}
    todo = [(k, index) for k in shots for index in range(first, first + episodes)]
    hidden = None if progress else True
    for k, index in tqdm(todo, desc="episodes", delay=2, disable=hidden, leave=False):
        trial = draw_trial(sample, n_way=n_way, k_shot=k, n_query=n_query, seed=seed, index=index)
        for contender in tried:
            for name, answers in contender.answer(trial, names).items():
                found[k][name].add(trial, answers)
    return found


def run_until_clear(
    sample: Sample,
    tried: Sequence[Contender],
    *,
    shots: Sequence[int],
    n_way: int,
    episodes: int,
    most: int,
    seed: int,
    progress: bool = False,
) -> dict[int, dict[str, Outcome]]:
    """Return outcomes of as many episodes as the choice needs.

    The episodes are doubled for the approach that :func:`choose` would take, the best one, and all
    that may still be more than two points ahead of the one taken (upper end of the paired 95 %
    interval), until there is none of these or ``most`` episodes were drawn. Another that might be
    taken, or be ahead, gets the episodes that it lacks; the rest keep what they have.

    Args:
        sample: what episodes are drawn from.
        tried: the approaches.
        shots: labels per class.
        n_way: classes of an episode.
        episodes: per shot, at first.
        most: per shot, in the end.
        seed: of the episodes.
        progress: show a bar on stderr if it takes more than two seconds.
    """
    approaches = [a for contender in tried for a in contender.approaches]
    found: dict[int, dict[str, Outcome]] = {}
    drawn = {a.name: 0 for a in approaches}
    wanted, target = list(drawn), min(episodes, most)
    while wanted:
        for first in sorted({drawn[name] for name in wanted}):
            names = [name for name in wanted if drawn[name] == first]
            more = run_trials(
                sample,
                tried,
                shots=shots,
                n_way=n_way,
                episodes=target - first,
                seed=seed,
                first=first,
                only=names,
                progress=progress,
            )
            for k, by_name in more.items():
                for name, outcome in by_name.items():
                    known = found.setdefault(k, {}).get(name)
                    found[k][name] = outcome if known is None else known.joined(outcome)
            drawn |= dict.fromkeys(names, target)
        wanted, target = _next(found, approaches, target, most)
    return found


def _next(
    outcomes: Mapping[int, Mapping[str, Outcome]],
    approaches: Sequence[Approach],
    drawn: int,
    most: int,
) -> tuple[list[str], int]:
    """Return the approaches that need more episodes, and how many each is to have.

    First those that have fewer than ``drawn`` and might be taken, or be ahead, with all; then, if
    another may be ahead of the one taken, both and the best with twice as many.
    """
    means = _means(outcomes, approaches)
    taken, rows, _ = choose(outcomes, approaches)
    ahead = [
        row.name
        for row in rows
        if row.name != taken.name and _ahead(means[row.name], means[taken.name])
    ]
    behindhand = [
        row.name
        for row in rows
        if row.episodes < drawn and (_near(*row.behind) or row.name in ahead)
    ]
    if behindhand or not ahead or drawn == most:
        return behindhand, drawn
    return list(dict.fromkeys([taken.name, rows[0].name, *ahead])), min(2 * drawn, most)


def _ahead(mean: npt.NDArray[np.float64], taken: npt.NDArray[np.float64]) -> bool:
    """Return whether an approach may be clearly ahead, on the episodes that both answered."""
    gap = mean - taken[: len(mean)]
    return float(gap.mean()) + mean_interval(gap) > _CLEAR


def _near(behind: float, half: float) -> bool:
    """Return whether an approach is no clear step behind the best."""
    return behind <= _AT_MOST_WORSE and behind - half <= 0


def _means(
    outcomes: Mapping[int, Mapping[str, Outcome]], approaches: Sequence[Approach]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the mean over shots of each episode, by approach."""
    return {
        a.name: np.mean([by_name[a.name].scores for by_name in outcomes.values()], axis=0)
        for a in approaches
    }


def choose(
    outcomes: Mapping[int, Mapping[str, Outcome]], approaches: Sequence[Approach]
) -> tuple[Approach, list[Measured], str]:
    """Return the approach to take, all with their measurements (the best first), and why.

    The best is the one with the highest mean over all shots. Of those that are at most one point
    behind it, and not significantly (the paired 95 % interval of the difference over episodes holds
    0), the simplest is taken: ours before scikit-learn's, ``auto`` before a fixed head, the cheaper
    encoder before the dearer one. Only those with the most episodes can be the best or be taken;
    pairs are compared on the episodes that both answered.

    Args:
        outcomes: by shot and name.
        approaches: all of them.
    """
    shots = sorted(outcomes)
    means = _means(outcomes, approaches)
    full = max(len(mean) for mean in means.values())
    inside = [a for a in approaches if len(means[a.name]) == full]
    # rounded: the same answers, added up in another order, are the same accuracy
    best = max(inside, key=lambda a: (round(float(means[a.name].mean()), 12), -a.rank))
    table, equal = [], []
    for a in approaches:
        gap = means[best.name][: len(means[a.name])] - means[a.name]
        behind, half = float(gap.mean()), mean_interval(gap)
        if a is best or (_near(behind, half) and len(means[a.name]) == full):
            equal.append(a)
        scores = {k: np.array(outcomes[k][a.name].scores) for k in shots}
        cells = {k: (float(s.mean()), mean_interval(s)) for k, s in scores.items()}
        table.append(
            Measured(
                a.name,
                a.encoder,
                a.head,
                cells,
                float(means[a.name].mean()),
                (behind, half),
                len(means[a.name]),
            )
        )
    chosen = min(equal, key=lambda a: a.rank)
    table.sort(key=lambda m: (m.name != best.name, m.behind[0]))
    return chosen, table, _reason(chosen, best, table, full, shots)


def _reason(
    chosen: Approach, best: Approach, table: Sequence[Measured], episodes: int, shots: Sequence[int]
) -> str:
    over = f"mean over {', '.join(map(str, shots))} labels per class, {episodes} episodes each"
    mine = next(m for m in table if m.name == chosen.name)
    if chosen is best:
        others = [m for m in table if m.name != chosen.name]
        text = f"the highest accuracy, {100 * mine.mean:.1f} % ({over})"
        if others:
            gap, half = others[0].behind
            text += f"; next is {others[0].name}, {100 * gap:.1f} ± {100 * half:.1f} points behind"
        return text
    gap, half = mine.behind
    return (
        f"{100 * mine.mean:.1f} % ({over}); {best.name} is ahead by {100 * gap:.1f} ± "
        f"{100 * half:.1f} points (paired 95 % interval), which is no clear difference, and of "
        "such the simplest is taken"
    )

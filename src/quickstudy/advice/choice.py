"""All candidates on the same episodes, and the rule by which one of them is recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from quickstudy.advice.approaches import Candidate, CandidateFamily
from quickstudy.advice.episodes import EpisodeResults, Sample, draw_episode
from quickstudy.advice.records import Measured
from quickstudy.evaluation import Mean

__all__ = ["Choice", "Results", "choose", "run_episodes", "run_until_clear"]

Floats = npt.NDArray[np.float64]
Results = Mapping[int, Mapping[str, EpisodeResults]]
"""Results by shot and name of the candidate."""

_QUERIES_OF_EPISODE, _FEWEST_QUERIES_OF_CLASS = 300, 15
# differences of accuracy: what is given up for a simpler candidate, and what is worth more episodes
_NEGLIGIBLE, _CLEAR_LEAD = 0.01, 0.02


@dataclass(frozen=True, slots=True)
class Choice:
    """The recommended candidate and what it was chosen from.

    Args:
        chosen: the recommended one.
        table: all candidates with their measurements, the best first.
        reason: why it was chosen, as a clause of a sentence.
    """

    chosen: Candidate
    table: Sequence[Measured]
    reason: str


def run_episodes(
    sample: Sample,
    families: Sequence[CandidateFamily],
    *,
    shots: Sequence[int],
    n_way: int,
    episodes: int,
    seed: int,
    first: int = 0,
    only: Sequence[str] | None = None,
    progress: bool = False,
) -> dict[int, dict[str, EpisodeResults]]:
    """Return the results of every candidate by shot and name; all answer the same episodes.

    Args:
        sample: what episodes are drawn from.
        families: the candidates.
        shots: labels per class.
        n_way: classes of an episode.
        episodes: how many for each shot.
        seed: names the list of episodes.
        first: index of the first episode.
        only: names of the candidates that are to answer; all by default.
        progress: show a bar on stderr if it takes more than two seconds.
    """
    n_query = max(_FEWEST_QUERIES_OF_CLASS, _QUERIES_OF_EPISODE // n_way)
    names = [c.name for c in _all_candidates(families) if only is None or c.name in only]
    found = {k: {name: EpisodeResults.empty(sample) for name in names} for k in shots}
    todo = [(k, index) for k in shots for index in range(first, first + episodes)]
    hidden = None if progress else True
    for k, index in tqdm(todo, desc="episodes", delay=2, disable=hidden, leave=False):
        episode = draw_episode(
            sample, n_way=n_way, k_shot=k, n_query=n_query, seed=seed, index=index
        )
        for family in families:
            for name, answers in family.answer(episode, names).items():
                found[k][name].add(episode, answers)
    return found


def run_until_clear(
    sample: Sample,
    families: Sequence[CandidateFamily],
    *,
    shots: Sequence[int],
    n_way: int,
    episodes: int,
    most: int,
    seed: int,
    progress: bool = False,
) -> dict[int, dict[str, EpisodeResults]]:
    """Return results of as many episodes as the choice needs.

    The choice is open as long as a candidate may be more than two points ahead of the one that
    :func:`choose` would recommend (upper end of the paired 95 % interval). Then the number of
    episodes is doubled, up to ``most``, for all such candidates, for the recommended one and for
    the best. Any other candidate still in contention is brought up to the same number. The rest
    keep the episodes they have.

    Args:
        sample: what episodes are drawn from.
        families: the candidates.
        shots: labels per class.
        n_way: classes of an episode.
        episodes: for each shot, at first.
        most: for each shot, in the end.
        seed: names the list of episodes.
        progress: show a bar on stderr if it takes more than two seconds.
    """
    candidates = _all_candidates(families)
    found: dict[int, dict[str, EpisodeResults]] = {}
    answered = {c.name: 0 for c in candidates}
    wanted, target = list(answered), min(episodes, most)
    while wanted:
        for first in sorted({answered[name] for name in wanted}):
            names = [name for name in wanted if answered[name] == first]
            more = run_episodes(
                sample,
                families,
                shots=shots,
                n_way=n_way,
                episodes=target - first,
                seed=seed,
                first=first,
                only=names,
                progress=progress,
            )
            for k, by_name in more.items():
                for name, later in by_name.items():
                    known = found.setdefault(k, {}).get(name)
                    found[k][name] = later if known is None else known.joined(later)
            answered |= dict.fromkeys(names, target)
        wanted, target = _in_need_of_episodes(found, candidates, target, most)
    return found


def _all_candidates(families: Sequence[CandidateFamily]) -> list[Candidate]:
    return [candidate for family in families for candidate in family.candidates]


def _in_need_of_episodes(
    results: Results, candidates: Sequence[Candidate], episodes: int, most: int
) -> tuple[list[str], int]:
    """Return the names of candidates that need more episodes, and how many each is to have.

    First, those with fewer than ``episodes`` that are in contention get as many as the others: only
    so can they be recommended. If there are none, and a candidate may be clearly ahead of the
    recommended one, twice as many episodes are to tell them apart.

    Args:
        results: so far.
        candidates: all of them.
        episodes: that the candidates with the most episodes have.
        most: episodes that any may have.
    """
    scores = _scores(results, candidates)
    choice = choose(results, candidates)
    chosen, best = choice.chosen.name, choice.table[0].name
    ahead = [
        row.name
        for row in choice.table
        if row.name != chosen and _may_be_ahead(scores[row.name], scores[chosen])
    ]
    lacking = [
        row.name
        for row in choice.table
        if row.episodes < episodes and (_close(row.behind) or row.name in ahead)
    ]
    if lacking or not ahead or episodes == most:
        return lacking, episodes
    return list(dict.fromkeys([chosen, best, *ahead])), min(2 * episodes, most)


def _may_be_ahead(scores: Floats, chosen: Floats) -> bool:
    """Return whether a candidate may be clearly ahead, on the episodes that both answered."""
    return Mean.of(scores - chosen[: len(scores)], over="episodes").high > _CLEAR_LEAD


def _close(behind: Mean) -> bool:
    """Return whether a candidate is so close behind the best that a simpler one is preferred."""
    return behind.mean <= _NEGLIGIBLE and behind.low <= 0


def _scores(results: Results, candidates: Sequence[Candidate]) -> dict[str, Floats]:
    """Return the accuracy of each episode, mean over shots, by candidate.

    Episodes of one index have the same classes at every shot, so that their mean is one score.
    """
    return {
        c.name: np.mean([by_name[c.name].scores for by_name in results.values()], axis=0)
        for c in candidates
    }


def choose(results: Results, candidates: Sequence[Candidate]) -> Choice:
    """Recommend one of the candidates.

    The best is the one with the highest mean over all shots. Among the candidates not clearly
    behind the best, the simplest is recommended. A candidate is not clearly behind if it is at most
    one point behind and the paired 95 % interval of the difference over episodes holds 0. Simple
    is: ours before scikit-learn's, ``auto`` before a fixed head, the cheaper encoder before the
    dearer one. Only candidates with the most episodes can be the best or be recommended; pairs are
    compared on the episodes that both answered.

    Args:
        results: by shot and name.
        candidates: all of them.
    """
    scores = _scores(results, candidates)
    most = max(len(of_one) for of_one in scores.values())
    complete = [c for c in candidates if len(scores[c.name]) == most]
    # rounded: the same answers, added up in another order, are the same accuracy
    best = max(complete, key=lambda c: (round(float(scores[c.name].mean()), 12), -c.rank))
    rows = {c.name: _measured(c, results, scores[c.name], scores[best.name]) for c in candidates}
    equal = [c for c in complete if c is best or _close(rows[c.name].behind)]
    chosen = min(equal, key=lambda c: c.rank)

    def place(row: Measured) -> tuple[bool, float]:
        return row.name != best.name, row.behind.mean

    table = sorted(rows.values(), key=place)
    return Choice(chosen, table, _reason(chosen, best, table, episodes=most, shots=sorted(results)))


def _measured(candidate: Candidate, results: Results, scores: Floats, best: Floats) -> Measured:
    """Return the accuracies of one candidate, and how far it is behind the best one.

    Args:
        candidate: which one.
        results: of all.
        scores: its own of each episode, mean over shots ``[E]``.
        best: those of the best, of at least as many episodes.
    """
    return Measured(
        candidate.name,
        candidate.encoder,
        candidate.head,
        {k: Mean.of(results[k][candidate.name].scores, over="episodes") for k in sorted(results)},
        mean=float(scores.mean()),
        behind=Mean.of(best[: len(scores)] - scores, over="episodes"),
        episodes=len(scores),
    )


def _reason(
    chosen: Candidate,
    best: Candidate,
    table: Sequence[Measured],
    *,
    episodes: int,
    shots: Sequence[int],
) -> str:
    over = f"mean over {', '.join(map(str, shots))} labels per class, {episodes} episodes each"
    mine = next(row for row in table if row.name == chosen.name)
    if chosen is best:
        others = [row for row in table if row.name != chosen.name]
        text = f"the highest accuracy, {100 * mine.mean:.1f} % ({over})"
        if others:
            gap = others[0].behind.points(digits=1, signed=False)
            text += f"; next is {others[0].name}, {gap} behind"
        return text
    gap = mine.behind.points(digits=1, signed=False)
    return (
        f"{100 * mine.mean:.1f} % ({over}); {best.name} is ahead by {gap} (paired 95 % interval), "
        "which is no clear difference, and of such the simplest is taken"
    )

"""Checks on a source: do support and query share examples, is an episode the same whenever it is
made, can a label be guessed?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from quickstudy.checks.contents import HARMLESS, row_digests
from quickstudy.checks.findings import (
    MOST_PAIRS,
    CheckReport,
    Finding,
    Outcome,
    Pair,
    Passed,
    Skipped,
)
from quickstudy.checks.groups import check_groups
from quickstudy.checks.guessing import label_evenness, position_gain
from quickstudy.core import Episode, EpisodeSpec, Examples, TaskError
from quickstudy.core.arguments import checked
from quickstudy.core.words import quiet
from quickstudy.tasks import PoolSource, TaskSource

__all__ = ["check_source"]

Ints = npt.NDArray[np.int64]

_EPISODES_PER_BATCH = 50
# of more episodes only the rows in the pool are compared: making examples is slow
_MOST_EPISODES_MADE = 300
_LARGE_TASK_ID = 123_456_789_012
_MOST_COPIES_NAMED = 10  # in the evidence
# strict, so that a sound source is hardly ever refused: the list of episodes is fixed, and a false
# alarm would come back each time
_STANDARD_ERRORS_ABOVE_CHANCE = 4
_DEVIATIONS_ABOVE_MEAN = 6  # of a chi-squared variable


@checked
def check_source(
    source: TaskSource,
    spec: EpisodeSpec,
    *,
    episodes: int = 1000,
    seed: int = 0,
    target: str | None = None,
    names: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> CheckReport:
    """Check the episodes of a source: no leaks, reproducible, labels that cannot be guessed.

    Args:
        source: any source; some checks need a :class:`~quickstudy.tasks.PoolSource`.
        spec: way, shot and queries.
        episodes: how many to look at; the examples are made and compared of the first 300.
        seed: names the list of episodes.
        target: name of what is checked, for the report; the source's own by default.
        names: of each row of the pool, for example file names.
        progress: called with a line about each step.

    Returns:
        A report on ``shared-rows``, ``shared-content``, ``shared-groups``, ``episode-names``,
        ``labels``, ``position-tells-label`` and ``class-tells-label``.

    Raises:
        TaskError: if the source cannot give such episodes.
    """
    start, say = time.perf_counter(), progress or quiet
    n_made = min(episodes, _MOST_EPISODES_MADE)
    say(f"making the examples of {n_made:,} of {episodes:,} episodes")
    made = [
        source.episodes(spec, range(i, min(i + _EPISODES_PER_BATCH, n_made)), seed=seed)
        for i in range(0, n_made, _EPISODES_PER_BATCH)
    ]
    outcomes: list[Outcome] = [
        _shared_rows(source, spec, episodes, seed, made),
        _shared_content(made, names),
    ]
    say("comparing groups")
    outcomes += check_groups(source, spec, episodes=episodes, seed=seed)
    say("making the same episodes again")
    outcomes += [_episode_names(source, spec, seed), _labels(made)]
    if made[0].regression:
        outcomes += [
            Skipped(check, "targets are real numbers")
            for check in ("position-tells-label", "class-tells-label")
        ]
    else:
        outcomes += [*_position_tells_label(made), _class_tells_label(made)]
    seconds = time.perf_counter() - start
    return CheckReport(target or f"{source.name} ({source.split})", tuple(outcomes), seconds)


# ------------------------------------------------------------------ what support and query share


def _shared_rows(
    source: TaskSource, spec: EpisodeSpec, episodes: int, seed: int, made: list[Episode]
) -> Outcome:
    """Is a row of the pool in support and query of one episode, or twice in one of them?"""
    if isinstance(source, PoolSource):
        # rows of all episodes, which cost nothing to draw
        index = source.index(spec, range(episodes), seed=seed)
        sides = list(zip(index.support, index.query, strict=True))
    elif all("support_index" in e.info and "query_index" in e.info for e in made):
        sides = [
            (s, q)
            for e in made
            for s, q in zip(
                e.info["support_index"].numpy(), e.info["query_index"].numpy(), strict=True
            )
        ]
    else:
        return Skipped("shared-rows", "episodes of this source do not say which rows they hold")
    shared, twice, first = 0, 0, None
    for t, (support, query) in enumerate(sides):
        s, q = support[support >= 0], query[query >= 0]  # -1 is padding
        both = np.intersect1d(s, q)
        shared += bool(len(both))
        twice += len(np.unique(s)) < len(s) or len(np.unique(q)) < len(q)
        if first is None and len(both):
            first = {"episode": t, "row": int(both[0])}
    if not shared and not twice:
        return Passed("shared-rows", f"{len(sides):,} episodes: no row is support and query")
    return Finding(
        "shared-rows",
        "fault",
        f"In {shared:,} of {len(sides):,} episodes an example is support and query; in {twice:,} "
        "an example is twice in the support or twice in the query.",
        {"episodes": len(sides), "shared": shared, "twice": twice, "first": first},
        "Draw the k_shot + n_query examples of a class together, without replacement, then cut.",
    )


def _shared_content(made: list[Episode], names: Sequence[str] | None) -> Outcome:
    """Which share of the queries has an identical example in its support?"""
    queries, easy, pairs, first = 0, 0, list[Pair](), list[dict[str, object]]()
    for batch, episode in enumerate(made):
        s, q = episode.support, episode.query
        for t in range(episode.n_tasks):
            support = _by_digest(s, t)
            for digest, at in _by_digest(q, t).items():
                queries += len(at)
                if digest not in support:
                    continue
                easy += len(at)
                if len(first) < _MOST_COPIES_NAMED:
                    number, copied = batch * _EPISODES_PER_BATCH + t, support[digest][0]
                    original = _example_name(episode, "support", t, copied, names)
                    copy = _example_name(episode, "query", t, at[0], names)
                    first.append({"episode": number, "support": original, "query": copy})
                    captions = (
                        f"episode {number}, support: {original}",
                        f"episode {number}, query: {copy}",
                    )
                    pairs.append(Pair(s.x[t, copied], q.x[t, at[0]], captions))
    share, episodes = easy / max(queries, 1), sum(e.n_tasks for e in made)
    if share < HARMLESS:
        fact = f"{easy} of {queries:,} queries in {episodes} episodes have a copy in their support"
        return Passed("shared-content", fact)
    return Finding(
        "shared-content",
        "fault",
        f"{100 * share:.3g} % of the queries ({easy:,} of {queries:,}) are identical to a support "
        "example of their episode.",
        {"episodes": episodes, "queries": queries, "easy_queries": share, "first": first},
        "Delete the copies in the data, or keep support and query apart where they are drawn.",
        tuple(pairs[:MOST_PAIRS]),
    )


def _example_name(
    episode: Episode, side: str, t: int, place: int, names: Sequence[str] | None
) -> str:
    """Return the name of an example, else its row in the pool, else its place in the episode."""
    index = episode.info.get(f"{side}_index")
    if index is None:
        return f"place {place}"
    row = int(index[t, place])
    return f"row {row}" if names is None else names[row]


def _by_digest(side: Examples, t: int) -> dict[bytes, list[int]]:
    """Return the places of a task's examples by the hash of their content, without padding."""
    at = side.mask[t].nonzero().flatten()
    found: dict[bytes, list[int]] = {}
    for place, digest in zip(at.tolist(), row_digests(side.x[t][at]), strict=True):
        found.setdefault(digest, []).append(place)
    return found


# ------------------------------------------------------------------ names of episodes


def _episode_names(source: TaskSource, spec: EpisodeSpec, seed: int) -> Outcome:
    """Is episode ``(seed, id)`` the same when made again, alone, in a batch, in another order?"""
    ids = [7, 0, _LARGE_TASK_ID, 3]
    try:
        together = _digests(source.episodes(spec, ids, seed=seed))
    except TaskError:  # a published list has no episode of so large a number
        ids = [3, 0, 2]
        together = _digests(source.episodes(spec, ids, seed=seed))
    again = _digests(source.episodes(spec, ids, seed=seed))
    backwards = _digests(source.episodes(spec, ids[::-1], seed=seed))[::-1]
    alone = [_digests(source.episodes(spec, [i], seed=seed))[0] for i in ids]
    how = [
        words
        for words, other in (
            ("when it is made again", again),
            ("in another order", backwards),
            ("alone and in a batch", alone),
        )
        if other != together
    ]
    if not how and len(set(together)) == len(ids):
        return Passed("episode-names", f"episodes {ids} are the same alone, in batches and again")
    what = f"An episode differs {', '.join(how)}." if how else "Two numbers name the same episode."
    return Finding(
        "episode-names",
        "fault",
        what,
        {"task_ids": ids, "differs": how},
        "Derive all randomness of an episode from (seed, task_id), not from a generator that "
        "earlier calls move on.",
    )


def _digests(episode: Episode) -> list[bytes]:
    """Return one hash for each episode, without padding."""
    out = []
    for t in range(episode.n_tasks):
        parts = []
        for side in (episode.support, episode.query):
            mask = side.mask[t]
            parts += [*row_digests(side.x[t][mask]), side.y[t][mask].numpy().tobytes()]
        out.append(b"".join(parts))
    return out


# ------------------------------------------------------------------ labels


def _labels(made: list[Episode]) -> Outcome:
    """Are inputs finite, and is every query's class in the support?"""
    bad, first = 0, None
    for batch, episode in enumerate(made):
        s, q = episode.support, episode.query
        for t in range(episode.n_tasks):
            known = s.y[t][s.mask[t]]
            asked = q.y[t][q.mask[t]]
            finite = bool(s.x[t].isfinite().all()) and bool(q.x[t].isfinite().all())
            ok = finite and bool(s.mask[t].any()) and bool(q.mask[t].any())
            if not episode.regression:
                inside = bool(((known >= 0) & (known < episode.n_way)).all())
                ok = ok and inside and bool(np.isin(asked.numpy(), known.numpy()).all())
            bad += not ok
            if first is None and not ok:
                first = {"episode": batch * _EPISODES_PER_BATCH + t, "finite": finite}
    total = sum(e.n_tasks for e in made)
    if not bad:
        return Passed("labels", f"{total} episodes: inputs are finite, queries can be answered")
    return Finding(
        "labels",
        "fault",
        f"{bad} of {total} episodes have inputs that are not finite, no support, no query, a label "
        "outside [0, n_way), or a query whose class has no support.",
        {"episodes": total, "bad": bad, "first": first},
        "Draw support and query from the same classes, and number them from 0 in each episode.",
    )


def _position_tells_label(made: list[Episode]) -> Iterator[Outcome]:
    """Does the place of an example in its episode say which label it has?"""
    if len(made) < 2:  # one batch to learn from, one to be scored on
        yield Skipped("position-tells-label", f"needs more than {_EPISODES_PER_BATCH} episodes")
        return
    facts = []
    for side in ("support", "query"):
        gain, error = position_gain(made, side)
        facts.append(f"{side} {100 * gain:+.1f} points")
        if gain > _STANDARD_ERRORS_ABOVE_CHANCE * error + 1e-12:
            yield Finding(
                "position-tells-label",
                "fault",
                f"Guessing the label by the place in the {side} alone scores {100 * gain:.1f} "
                "points above chance.",
                {"side": side, "gain": gain, "standard_error": error},
                f"Shuffle the {side} examples of every episode.",
            )
            return
    yield Passed("position-tells-label", f"guessing by the place, over chance: {', '.join(facts)}")


def _class_tells_label(made: list[Episode]) -> Outcome:
    """Does a class get some labels more often than others?"""
    if not all("classes" in episode.info for episode in made):
        return Skipped(
            "class-tells-label", "episodes of this source do not say which classes they hold"
        )
    widths = {episode.info["classes"].shape[1] for episode in made}
    if any(a != b for a, b in pairwise(widths)):
        return Skipped("class-tells-label", "batches of episodes differ in their number of classes")
    chi2, freedom = label_evenness(made)
    # a chi-squared variable has mean k and standard deviation sqrt(2 k), k degrees of freedom
    if chi2 <= freedom + _DEVIATIONS_ABOVE_MEAN * np.sqrt(2 * freedom):
        fact = (
            f"each class gets all labels equally often (chi-squared {chi2:.0f} for {freedom} "
            "degrees of freedom)"
        )
        return Passed("class-tells-label", fact)
    return Finding(
        "class-tells-label",
        "fault",
        f"Classes do not get every label equally often (chi-squared {chi2:.0f} for {freedom} "
        "degrees of freedom): a learner can guess the label from the class.",
        {"chi_squared": chi2, "degrees_of_freedom": freedom},
        "Draw the label of a class anew in every episode.",
    )

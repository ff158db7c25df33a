"""Checks on a source: what its episodes share, whether they are the same for ever, whether a
label can be guessed."""

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
from quickstudy.tasks import PoolSource, TaskSource

__all__ = ["check_source"]

Ints = npt.NDArray[np.int64]

_BATCH = 50
_MADE = 300  # episodes whose examples are looked at; rows are looked at in all
_FAR = 123_456_789_012
_FIRST = 10  # that are named as evidence
_ERRORS = 4  # standard errors: the list of episodes is fixed, so an answer holds for ever


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
    """Look for what makes episodes of a source dishonest.

    Args:
        source: any source; of a pool more can be asked.
        spec: way, shot and queries.
        episodes: how many to look at; the examples themselves of at most 300.
        seed: names the list of episodes.
        target: what is checked, for the report.
        names: of each row of a pool, for example file names.
        progress: called with what is being done.

    Returns:
        A report on ``shared-rows``, ``shared-content``, ``shared-groups``, ``episode-names``,
        ``labels``, ``position-tells-label`` and ``class-tells-label``.

    Raises:
        TaskError: if the source cannot give such episodes.
    """
    start, said = time.perf_counter(), progress or (lambda _: None)
    said(f"making the examples of {min(episodes, _MADE):,} of {episodes:,} episodes")
    made = [
        source.episodes(spec, range(i, min(i + _BATCH, episodes, _MADE)), seed=seed)
        for i in range(0, min(episodes, _MADE), _BATCH)
    ]
    outcomes: list[Outcome] = [_rows(source, spec, episodes, seed, made), _content(made, names)]
    said("comparing groups")
    outcomes += check_groups(source, spec, episodes=episodes, seed=seed)
    said("asking for the same episodes again")
    outcomes += [_names(source, spec, seed), _labels(made)]
    if made[0].regression:
        outcomes += [
            Skipped(check, "targets are real numbers")
            for check in ("position-tells-label", "class-tells-label")
        ]
    else:
        outcomes += [*_position(made), _evenness(made)]
    seconds = time.perf_counter() - start
    return CheckReport(target or f"{source.name} ({source.split})", tuple(outcomes), seconds)


# ------------------------------------------------------------------ what support and query share


def _rows(
    source: TaskSource, spec: EpisodeSpec, episodes: int, seed: int, made: list[Episode]
) -> Outcome:
    """Does a row of the pool stand on both sides, or twice on one?"""
    if isinstance(source, PoolSource):
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
        return Skipped("shared-rows", "the source does not tell the rows of its episodes")
    shared, twice, first = 0, 0, None
    for t, (support, query) in enumerate(sides):
        s, q = support[support >= 0], query[query >= 0]
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
        "one stands twice on a side.",
        {"episodes": len(sides), "shared": shared, "twice": twice, "first": first},
        "Draw the k_shot + n_query examples of a class together, without replacement, then cut.",
    )


def _content(made: list[Episode], names: Sequence[str] | None) -> Outcome:
    """Which share of the queries has an identical support example?"""
    queries, easy, pairs, first = 0, 0, list[Pair](), list[dict[str, object]]()
    for number, episode in enumerate(made):
        s, q = episode.support, episode.query
        for t in range(episode.n_tasks):
            support = _by_digest(s, t)
            for digest, at in _by_digest(q, t).items():
                queries += len(at)
                if digest not in support:
                    continue
                easy += len(at)
                if len(first) < _FIRST:
                    places = (support[digest][0], at[0])
                    told = [
                        _told(episode, side, t, place, names)
                        for side, place in zip(("support", "query"), places, strict=True)
                    ]
                    first.append(
                        {"episode": number * _BATCH + t, "support": told[0], "query": told[1]}
                    )
                    captions = tuple(
                        f"episode {number * _BATCH + t}, {side}: {what}"
                        for side, what in zip(("support", "query"), told, strict=True)
                    )
                    pairs.append(
                        Pair(s.x[t, places[0]], q.x[t, places[1]], (captions[0], captions[1]))
                    )
    share, episodes = easy / max(queries, 1), sum(e.n_tasks for e in made)
    if share < HARMLESS:
        fact = f"{easy} of {queries:,} queries in {episodes} episodes are copies of a support"
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


def _told(episode: Episode, side: str, t: int, place: int, names: Sequence[str] | None) -> str:
    """Return the name of an example, else its row in the pool, else its place in the episode."""
    index = episode.info.get(f"{side}_index")
    if index is None:
        return f"place {place}"
    row = int(index[t, place])
    return f"row {row}" if names is None else names[row]


def _by_digest(side: Examples, t: int) -> dict[bytes, list[int]]:
    at = side.mask[t].nonzero().flatten()
    found: dict[bytes, list[int]] = {}
    for place, digest in zip(at.tolist(), row_digests(side.x[t][at]), strict=True):
        found.setdefault(digest, []).append(place)
    return found


# ------------------------------------------------------------------ names


def _names(source: TaskSource, spec: EpisodeSpec, seed: int) -> Outcome:
    """Is an episode the same twice, alone, in a batch and in another order?"""
    ids = [7, 0, _FAR, 3]
    try:
        together = _digests(source.episodes(spec, ids, seed=seed))
    except TaskError:  # a published list ends somewhere
        ids = [3, 0, 2]
        together = _digests(source.episodes(spec, ids, seed=seed))
    again = _digests(source.episodes(spec, ids, seed=seed))
    backwards = _digests(source.episodes(spec, ids[::-1], seed=seed))[::-1]
    alone = [_digests(source.episodes(spec, [i], seed=seed))[0] for i in ids]
    how = [
        words
        for words, other in (
            ("when it is asked for twice", again),
            ("in another order", backwards),
            ("alone and in a batch", alone),
        )
        if other != together
    ]
    if not how and len(set(together)) == len(ids):
        return Passed("episode-names", f"episodes {ids} are the same alone, in batches and again")
    what = f"differs {', '.join(how)}" if how else "is the same as another of another number"
    return Finding(
        "episode-names",
        "fault",
        f"An episode {what}.",
        {"task_ids": ids, "differs": how},
        "Derive all randomness from (seed, task_id), not from a stream or a global generator.",
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
    for number, episode in enumerate(made):
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
                first = {"episode": number * _BATCH + t, "finite": finite}
    total = sum(e.n_tasks for e in made)
    if not bad:
        return Passed("labels", f"{total} episodes: inputs are finite, queries can be answered")
    return Finding(
        "labels",
        "fault",
        f"{bad} of {total} episodes hold numbers that are not finite, an empty side, a label "
        "outside [0, n_way), or a query whose class has no support.",
        {"episodes": total, "bad": bad, "first": first},
        "Draw support and query from the same classes, and number them from 0 in each episode.",
    )


def _position(made: list[Episode]) -> Iterator[Outcome]:
    if len(made) < 2:
        yield Skipped("position-tells-label", f"needs more than {_BATCH} episodes")
        return
    facts = []
    for side in ("support", "query"):
        gain, error = position_gain(made, side)
        facts.append(f"{side} {100 * gain:+.1f} points")
        if gain > _ERRORS * error + 1e-12:
            yield Finding(
                "position-tells-label",
                "fault",
                f"A dummy that only knows the place of a {side} example is {100 * gain:.1f} "
                f"points above chance.",
                {"side": side, "gain": gain, "standard_error": error},
                f"Shuffle the {side} examples of every episode.",
            )
            return
    yield Passed("position-tells-label", f"gain over chance of the place: {', '.join(facts)}")


def _evenness(made: list[Episode]) -> Outcome:
    if not all("classes" in episode.info for episode in made):
        return Skipped("class-tells-label", "the source does not tell the classes of its episodes")
    widths = {episode.info["classes"].shape[1] for episode in made}
    if any(a != b for a, b in pairwise(widths)):
        return Skipped("class-tells-label", "batches of episodes differ in their width")
    chi2, freedom = label_evenness(made)
    # mean and spread of a chi-squared variable; 6 of its standard deviations
    if chi2 <= freedom + 6 * np.sqrt(2 * freedom):
        fact = f"classes get every label alike (chi-squared {chi2:.0f} for {freedom} degrees)"
        return Passed("class-tells-label", fact)
    return Finding(
        "class-tells-label",
        "fault",
        f"Classes do not get every label equally often (chi-squared {chi2:.0f} for {freedom} "
        "degrees of freedom): a learner can know a label by the class.",
        {"chi_squared": chi2, "degrees_of_freedom": freedom},
        "Draw the label of a class anew in every episode.",
    )

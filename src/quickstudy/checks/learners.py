"""Checks on a learner: do its predictions depend on what they must not, does evaluation change
it?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from quickstudy.checks.bench import Bench, copy_of, predict, task_scores, with_query
from quickstudy.checks.findings import CheckReport, Finding, Outcome, Passed, Skipped
from quickstudy.checks.snapshot import changed, snapshot
from quickstudy.core import Episode, EpisodeSpec, Examples, generator
from quickstudy.core.arguments import checked
from quickstudy.core.words import quiet
from quickstudy.evaluation.evaluate import evaluate
from quickstudy.learners.base import Learner
from quickstudy.tasks import TaskSource

__all__ = ["check_learner"]

_JUNK_PIXEL = 1e4  # large beside pixels in [0, 1], and finite
_LABEL_PERMUTATIONS = 4
_LEAST_ACCURACY_SPREAD = 0.005  # over numberings of the labels, that is worth a note
_MOST_EPISODES_COMPARED = 8  # of which predictions are compared


@checked
def check_learner(
    learner: Learner,
    source: TaskSource,
    spec: EpisodeSpec,
    *,
    episodes: int = 40,
    seed: int = 0,
    target: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> CheckReport:
    """Check a learner for what makes its score wrong: leaks, hidden dependences, side effects.

    A copy of the learner is checked, on the CPU, and in float64 if it can compute in float64.

    Args:
        learner: any learner; what it declares (``transductive``, ``order_sensitive``,
            ``label_sensitive``) is no fault.
        source: episodes that fit it.
        spec: way, shot and queries.
        episodes: how many the learner is evaluated on, at least 2; predictions are compared on 8 of
            them.
        seed: names the episodes.
        target: name of what is checked, for the report; the learner's class by default.
        progress: called with a line about each step.

    Returns:
        A report on ``finite``, ``repeatable``, ``query-statistics``, ``query-position``,
        ``support-order``, ``label-order``, ``task-independence`` and ``evaluation-changes-model``.
    """
    start, say = time.perf_counter(), progress or quiet
    name = target or type(learner).__name__
    checks: list[tuple[str, Callable[[], Iterator[Outcome]]]] = [
        ("finite", lambda: _finite(bench)),
        ("repeatable", lambda: _repeatable(bench)),
        ("query-statistics", lambda: _query_statistics(bench)),
        ("query-position", lambda: _query_position(bench)),
        ("support-order", lambda: _support_order(bench)),
        ("label-order", lambda: _label_order(bench)),
        ("task-independence", lambda: _task_independence(bench)),
        (
            "evaluation-changes-model",
            lambda: _evaluation(learner, source, spec, max(2, episodes), seed),
        ),
    ]
    try:
        n_tasks = max(2, min(episodes, _MOST_EPISODES_COMPARED))
        bench = Bench.set_up(learner, source, spec, n_tasks, seed)
    except Exception as error:
        shape = list(source.episodes(spec, [0], seed=seed).support.x.shape[2:])
        outcome = _failed("finite", f"on an ordinary episode of examples {shape}", error)
        others = [
            Skipped(check, "the learner fails on an ordinary episode") for check, _ in checks[1:]
        ]
        return CheckReport(name, (outcome, *others), time.perf_counter() - start)
    outcomes: list[Outcome] = []
    for check, run in checks:
        if any(isinstance(o, Finding) and o.check == "finite" for o in outcomes):
            why = "predictions that are not finite, or of the wrong shape, cannot be compared"
            outcomes.append(Skipped(check, why))
            continue
        say(f"checking {check}")
        try:
            outcomes += run()
        except Exception as error:
            outcomes.append(_failed(check, "in this check", error))
    return CheckReport(name, tuple(outcomes), time.perf_counter() - start)


def _failed(check: str, where: str, error: Exception) -> Finding:
    """Return the fault of a learner that raises an error, which no valid input may make it do.

    For example batch norm in training mode refuses a single query.
    """
    first_line = str(error).strip().split("\n")[0][:200]
    return Finding(
        check,
        "fault",
        f"The learner failed {where}: {type(error).__name__}: {first_line}",
        {"error": type(error).__name__, "message": first_line},
        "adapt and predict must take any number of tasks, support examples and queries. If the "
        "learner takes images of another size, say so (size, channels).",
    )


# ------------------------------------------------------------------ is there one valid answer?


def _finite(bench: Bench) -> Iterator[Outcome]:
    """Have predictions the right shape, and no NaN or +inf?

    Minus infinity is allowed: it is the logit of a class without support.
    """
    q, width = bench.episode.query, 1 if bench.episode.regression else bench.episode.n_way
    if tuple(bench.base.shape) != (*q.y.shape, width):
        yield Finding(
            "finite",
            "fault",
            f"Predictions have shape {list(bench.base.shape)}, not {[*q.y.shape, width]}.",
            {"shape": list(bench.base.shape)},
            "Return one logit per class for each query: [T, Q, C].",
        )
        return
    bad = float((~bench.base[q.mask].isfinite()).double().mean())
    if bad and bool(bench.base.isnan().any() or (bench.base == torch.inf).any()):
        yield Finding(
            "finite",
            "fault",
            f"{100 * bad:.1f} % of the predictions are NaN or infinite.",
            {"share": bad},
            "Look for a division by zero, a diverged inner loop, or a class without support.",
        )
        return
    yield Passed("finite", f"predictions of {len(q.y)} tasks are finite")


def _repeatable(bench: Bench) -> Iterator[Outcome]:
    """Are predictions the same with another random seed, and after other predictions?"""
    other = predict(bench.learner, bench.episode, seed=1)
    again = predict(bench.learner, bench.episode)
    gaps = [bench.compare(other), bench.compare(again)]
    worst = max(gaps, key=lambda gap: gap.relative)
    if not any(gap.beyond_tolerance for gap in gaps):
        yield Passed("repeatable", "the same episode gives the same predictions")
        return
    by_seed = gaps[0].beyond_tolerance and not gaps[1].beyond_tolerance
    why = "torch's global random generator" if by_seed else "what it predicted before"
    yield Finding(
        "repeatable",
        "fault",
        f"The same episode gives other predictions a second time: {worst}. They depend on {why}.",
        worst.facts(),
        "Switch off dropout in evaluation, take randomness as an argument, and keep what is "
        "learned of a task in the state that adapt returns.",
    )


# ------------------------------------------------------------------ queries and their places


def _query_statistics(bench: Bench) -> Iterator[Outcome]:
    """Are predictions the same for one query at a time, and beside a query of junk?"""
    check, learner, e = "query-statistics", bench.learner, bench.episode
    if learner.transductive:
        yield Skipped(check, "the learner declares that it is transductive")
        return
    q = e.query
    alone = torch.cat(
        [
            predict(
                learner, with_query(e, q.x[:, i : i + 1], q.y[:, i : i + 1], q.mask[:, i : i + 1])
            )
            for i in range(q.y.shape[1])
        ],
        1,
    )
    junk = with_query(
        e,
        torch.cat([q.x, torch.full_like(q.x[:, :1], _JUNK_PIXEL)], 1),
        torch.cat([q.y, q.y[:, :1]], 1),
        torch.cat([q.mask, torch.ones_like(q.mask[:, :1])], 1),
    )
    joined = predict(learner, junk)[:, :-1]
    gaps = {"one at a time": bench.compare(alone), "beside a junk query": bench.compare(joined)}
    if not any(gap.beyond_tolerance for gap in gaps.values()):
        yield Passed(
            check,
            f"{q.y.shape[1]} queries have the same predictions together, one at a time and beside "
            "a junk query",
        )
        return
    together, single = bench.score(bench.base), bench.score(alone)
    words = ""
    if not e.regression:
        words = f" Accuracy {100 * together:.1f} % together, {100 * single:.1f} % one at a time."
    yield Finding(
        check,
        "fault",
        "A prediction depends on the other queries: "
        + "; ".join(f"{how}, {gap}" for how, gap in gaps.items() if gap.beyond_tolerance)
        + f".{words}",
        {
            "score_together": together,
            "score_one_at_a_time": single,
            **{how.replace(" ", "_"): gap.facts() for how, gap in gaps.items()},
        },
        "Freeze batch norm in evaluation, or take its statistics from the support. If the learner "
        "is meant to use all queries, declare transductive = True: every score then says so.",
    )


def _query_position(bench: Bench) -> Iterator[Outcome]:
    """Do predictions move with their query to another place, and do equal queries get equal ones?

    Blank queries in the order of their labels show how far a learner gets by places alone.
    """
    check, learner, e = "query-position", bench.learner, bench.episode
    q = e.query
    order = torch.randperm(q.y.shape[1], generator=generator(0, 2))
    moved = predict(learner, with_query(e, q.x[:, order], q.y[:, order], q.mask[:, order]))
    gap = bench.compare(moved, bench.base[:, order])
    blank = q.x.mean((0, 1)).expand_as(q.x)
    by_label = q.y.argsort(dim=1, stable=True)
    cheat = with_query(e, blank, q.y.gather(1, by_label), q.mask.gather(1, by_label))
    output = predict(learner, cheat)
    score, chance = float(task_scores(output, cheat).mean()), 1 / e.n_way
    spread = bench.compare(output, output[:, :1].expand_as(output))
    if not gap.beyond_tolerance and not (spread.beyond_tolerance and bool(q.mask.all())):
        fact = "predictions move with their query"
        if not e.regression:
            fact += f"; blank queries in the order of their labels score {100 * score:.1f} %"
        yield Passed(check, fact)
        return
    words = (
        ""
        if e.regression
        else f" Blank queries in the order of their labels score {100 * score:.1f} %; chance is "
        f"{100 * chance:.1f} %."
    )
    yield Finding(
        check,
        "fault",
        f"The place of a query changes its prediction: {gap}.{words}",
        {**gap.facts(), "blank_score": score, "chance": chance},
        "A prediction may not depend on where its query stands: remove what counts places.",
    )


# ------------------------------------------------------------------ order of support and labels


def _support_order(bench: Bench) -> Iterator[Outcome]:
    """Are predictions the same for another order of the support examples?"""
    check, e = "support-order", bench.episode
    if bench.learner.order_sensitive:
        yield Skipped(check, "the learner declares that it is order-sensitive")
        return
    s = e.support
    order = torch.randperm(s.y.shape[1], generator=generator(0, 3))
    other = Examples(s.x[:, order], s.y[:, order], s.mask[:, order])
    output = predict(bench.learner, Episode(other, e.query, e.n_way))
    gap = bench.compare(output)
    if not gap.beyond_tolerance:
        yield Passed(check, "another order of the support changes nothing")
        return
    yield Finding(
        check,
        "fault",
        f"The order of the support examples changes predictions: {gap}.",
        {**gap.facts(), "score": bench.score(bench.base), "score_reordered": bench.score(output)},
        "Use the labels of the support, not the places of its examples, as a reshape to [way, "
        "shot] does; or declare order_sensitive = True.",
    )


def _label_order(bench: Bench) -> Iterator[Outcome]:
    """Does numbering the classes otherwise only reorder the columns of the predictions?

    The spread of the accuracy over numberings is reported too.
    """
    check, e = "label-order", bench.episode
    if e.regression:
        yield Skipped(check, "targets are real numbers")
        return
    gaps, scores = [], [task_scores(bench.base, e)]
    for number in range(_LABEL_PERMUTATIONS):
        names = torch.randperm(e.n_way, generator=generator(0, 4, number))
        if bool((names == torch.arange(e.n_way)).all()):
            names = names.roll(1)  # the same numbering would show nothing
        s = e.support
        renamed = Episode(Examples(s.x, names[s.y], s.mask), e.query, e.n_way)
        output = predict(bench.learner, renamed)[..., names]
        gaps.append(bench.compare(output))
        scores.append(task_scores(output, e))
    worst = max(gaps, key=lambda gap: gap.relative)
    spread = float(torch.stack(scores).std(0, unbiased=True).mean())
    facts = {**worst.facts(), "accuracy_spread": spread, "namings": len(scores)}
    if bench.learner.label_sensitive:
        if spread < _LEAST_ACCURACY_SPREAD:
            fact = (
                "the learner declares that it is label-sensitive; its accuracy spreads by "
                f"{100 * spread:.2f} points"
            )
            yield Passed(check, fact)
            return
        yield Finding(
            check,
            "note",
            f"Numbering the classes otherwise moves the accuracy of a task by {100 * spread:.1f} "
            f"points (standard deviation over {len(scores)} numberings), as the learner declares.",
            facts,
            "Average over numberings, or start the head from prototypes (ProtoMAML).",
        )
        return
    if not any(gap.beyond_tolerance for gap in gaps):
        fact = f"{len(gaps)} other numberings of the classes only reorder the predictions"
        yield Passed(check, fact)
        return
    yield Finding(
        check,
        "fault",
        f"Numbering the classes otherwise changes predictions: {worst}. The accuracy of a task "
        f"spreads by {100 * spread:.1f} points over numberings.",
        facts,
        "Treat all classes alike (no bias per label, no output that is tied to a number), average "
        "over numberings, or declare label_sensitive = True.",
    )


def _task_independence(bench: Bench) -> Iterator[Outcome]:
    """Are predictions of ``T`` tasks in one batch those of the tasks one by one?"""
    check, e = "task-independence", bench.episode
    singles = [predict(bench.learner, e.tasks(slice(t, t + 1))) for t in range(e.n_tasks)]
    gap = bench.compare(torch.cat(singles))
    if not gap.beyond_tolerance:
        yield Passed(check, f"{e.n_tasks} tasks have the same predictions in one batch and alone")
        return
    yield Finding(
        check,
        "fault",
        f"A task changes the predictions of other tasks in its batch: {gap}.",
        {
            **gap.facts(),
            "score": bench.score(bench.base),
            "score_alone": bench.score(torch.cat(singles)),
        },
        "Keep statistics and adapted weights of each task apart, along the leading task axis.",
    )


# ------------------------------------------------------------------ what evaluation changes


def _evaluation(
    learner: Learner, source: TaskSource, spec: EpisodeSpec, episodes: int, seed: int
) -> Iterator[Outcome]:
    """Are parameters and buffers the same after an evaluation, and scores of a second one too?"""
    check, own = "evaluation-changes-model", copy_of(learner)
    before = snapshot(own)
    scores = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            report = evaluate(
                own, source, spec, episodes=episodes, seed=seed, cache_embeddings=False
            )
        scores.append(report.scores)
    touched = changed(before, snapshot(own))
    tensors = {name for name, _ in own.named_parameters()} | {n for n, _ in own.named_buffers()}
    weights = [name for name in touched if name.removeprefix(".") in tensors]
    same = bool((scores[0] == scores[1]).all())
    facts = {
        "changed": touched[:20],
        "first": float(scores[0].mean()),
        "second": float(scores[1].mean()),
        "episodes": episodes,
    }
    if same and not touched:
        fact = f"{len(before)} values and the scores are the same after {2 * episodes} episodes"
        yield Passed(check, fact)
        return
    if same and not weights:
        yield Finding(
            check,
            "note",
            f"Evaluation changes attributes of the learner: {', '.join(touched[:5])}.",
            facts,
            "Keep what is learned of a task in the state that adapt returns.",
        )
        return
    what = "changes something other than weights"
    if weights:
        what = f"changes {', '.join(weights[:5])}"
    yield Finding(
        check,
        "fault",
        f"Evaluation {what}; the same {episodes} episodes give {facts['first']:.4f}, then "
        f"{facts['second']:.4f}.",
        facts,
        "Adapt copies of the weights (torch.func.functional_call), do not update running "
        "statistics in evaluation, and keep no state between tasks.",
    )

"""Checks on a learner: what it looks at that it must not, and what it changes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.checks.findings import CheckReport, Finding, Outcome, Passed, Skipped
from quickstudy.checks.snapshot import changed, snapshot
from quickstudy.core import Episode, EpisodeSpec, Examples, generator
from quickstudy.evaluation.evaluate import evaluate
from quickstudy.learners.base import Learner, predict_queries
from quickstudy.tasks import TaskSource

__all__ = ["check_learner"]

_JUNK = 1e4  # large beside pixels in [0, 1], and finite
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}
_PERMUTATIONS = 4
_SPREAD = 0.005  # of the accuracy, over namings of the labels, that is worth a note


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
    """Look for what makes the score of a learner dishonest.

    A copy of the learner is asked, on the CPU and in float64 if it can.

    Args:
        learner: any learner; what it declares (``transductive``, ``order_sensitive``,
            ``label_sensitive``) is no fault.
        source: episodes that fit it.
        spec: way, shot and queries.
        episodes: that accuracies are taken over, at least 2.
        seed: names the episodes.
        target: what is checked, for the report.
        progress: called with what is being done.

    Returns:
        A report on ``finite``, ``repeatable``, ``query-statistics``, ``query-position``,
        ``support-order``, ``label-order``, ``task-independence`` and ``evaluation-changes-model``.
    """
    start, said = time.perf_counter(), progress or (lambda _: None)
    name = target or type(learner).__name__
    asked: list[tuple[str, Callable[[], Iterator[Outcome]]]] = [
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
        bench = _Bench.set_up(learner, source, spec, max(2, min(episodes, 8)), seed)
    except Exception as error:
        shape = list(source.episodes(spec, [0], seed=seed).support.x.shape[2:])
        outcome = _raised("finite", f"an ordinary episode of examples {shape}", error)
        others = [
            Skipped(check, "the learner fails on an ordinary episode") for check, _ in asked[1:]
        ]
        return CheckReport(name, (outcome, *others), time.perf_counter() - start)
    outcomes: list[Outcome] = []
    for check, ask in asked:
        if any(isinstance(o, Finding) and o.check == "finite" for o in outcomes):
            why = "predictions that are not finite, or of the wrong shape, cannot be compared"
            outcomes.append(Skipped(check, why))
            continue
        said(f"asking for {check}")
        try:
            outcomes += ask()
        except Exception as error:
            outcomes.append(_raised(check, "it", error))
    return CheckReport(name, tuple(outcomes), time.perf_counter() - start)


def _raised(check: str, what: str, error: Exception) -> Finding:
    """A learner that cannot be asked is not sound: BatchNorm in training mode refuses one query."""
    first_line = str(error).strip().split("\n")[0][:200]
    return Finding(
        check,
        "fault",
        f"The learner failed when it was asked for {what}: {type(error).__name__}: {first_line}",
        {"error": type(error).__name__, "message": first_line},
        "adapt and predict must take any number of tasks, support examples and queries; images can "
        "be given in another size (--size, --channels).",
    )


@dataclass(frozen=True, slots=True)
class _Bench:
    """A copy of the learner with a batch of episodes of its type."""

    learner: Learner
    episode: Episode
    base: Tensor  # its predictions [T, Q, C]
    tolerance: float

    @classmethod
    def set_up(
        cls, learner: Learner, source: TaskSource, spec: EpisodeSpec, tasks: int, seed: int
    ) -> _Bench:
        own = _copy(learner)
        episode = source.episodes(spec, range(tasks), seed=seed)
        try:
            double, cast = _copy(learner).double(), _cast(episode, torch.float64)
            return cls(double, cast, predict(double, cast), _TOLERANCE[torch.float64])
        except (RuntimeError, TypeError, ValueError):
            # a learner that fixes its own type is asked in it
            return cls(own, episode, predict(own, episode), _TOLERANCE[torch.float32])

    def compare(self, other: Tensor, base: Tensor | None = None) -> _Gap:
        """Compare predictions with those of the bench, for the same queries and labels."""
        base = self.base if base is None else base
        both = base.isfinite() & other.isfinite()
        relative = (other - base).abs() / (1 + base.abs())
        gap = float(relative[both].max()) if bool(both.any()) else 0.0
        apart = bool((base.isfinite() != other.isfinite()).any()) or gap > self.tolerance
        answers = (other.argmax(-1) != base.argmax(-1))[self.episode.query.mask]
        return _Gap(apart, gap, float(answers.double().mean()))

    def score(self, output: Tensor) -> float:
        """Return the mean accuracy over tasks, or mean squared error."""
        return float(_scores(output, self.episode).mean())


@dataclass(frozen=True, slots=True)
class _Gap:
    """How far two predictions lie apart."""

    apart: bool
    relative: float
    other_answers: float

    def facts(self) -> dict[str, float]:
        return {"largest_relative_gap": self.relative, "answers_changed": self.other_answers}

    def __str__(self) -> str:
        return (
            f"predictions move by up to {self.relative:.2g} (relative), "
            f"{100 * self.other_answers:.1f} % of the answers change"
        )


def _copy(learner: Learner) -> Learner:
    return copy.deepcopy(learner).cpu().eval()


def _cast(episode: Episode, dtype: torch.dtype) -> Episode:
    def cast(side: Examples) -> Examples:
        y = side.y.to(dtype) if side.y.is_floating_point() else side.y
        return Examples(side.x.to(dtype), y, side.mask)

    return Episode(cast(episode.support), cast(episode.query), episode.n_way)


@torch.no_grad()
def predict(learner: Learner, episode: Episode, *, seed: int = 0) -> Tensor:
    """Return predictions ``[T, Q, C]``; the global generator is lent ``seed`` and given back.

    A learner that draws random numbers is a finding of its own, not of every check.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = learner.adapt(episode.support, n_way=episode.n_way)
        return predict_queries(learner, state, episode.query)


def _scores(output: Tensor, episode: Episode) -> Tensor:
    """Return the accuracy or the mean squared error of each task ``[T]``."""
    y, mask = episode.query.y, episode.query.mask
    right = (
        (output[..., 0] - y).square() if episode.regression else (output.argmax(2) == y).double()
    )
    return (right * mask).sum(1) / mask.sum(1).clamp(min=1)


def _with_query(episode: Episode, x: Tensor, y: Tensor, mask: Tensor) -> Episode:
    return Episode(episode.support, Examples(x, y, mask), episode.n_way)


# ------------------------------------------------------------------ is it a function at all?


def _finite(bench: _Bench) -> Iterator[Outcome]:
    """Are predictions finite, of the right shape, and is no present class ruled out?"""
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
            "Look for a division by zero or a diverged inner loop; classes need a support.",
        )
        return
    yield Passed("finite", f"predictions of {len(q.y)} tasks are finite")


def _repeatable(bench: _Bench) -> Iterator[Outcome]:
    other = predict(bench.learner, bench.episode, seed=1)
    again = predict(bench.learner, bench.episode)
    gaps = [bench.compare(other), bench.compare(again)]
    worst = max(gaps, key=lambda gap: gap.relative)
    if not any(gap.apart for gap in gaps):
        yield Passed("repeatable", "the same question has the same answer")
        return
    why = "on the global generator" if gaps[0].apart and not gaps[1].apart else "on its history"
    yield Finding(
        "repeatable",
        "fault",
        f"Asked twice, the learner answers differently: {worst}. It depends {why}.",
        worst.facts(),
        "Switch off dropout in evaluation, take randomness as an argument, and keep what is "
        "learned of a task in the state that adapt returns.",
    )


# ------------------------------------------------------------------ what queries may not tell


def _query_statistics(bench: _Bench) -> Iterator[Outcome]:
    """One query at a time is all at once, and a junk query changes nothing."""
    check, learner, e = "query-statistics", bench.learner, bench.episode
    if learner.transductive:
        yield Skipped(check, "the learner declares that it is transductive")
        return
    q = e.query
    alone = torch.cat(
        [
            predict(
                learner, _with_query(e, q.x[:, i : i + 1], q.y[:, i : i + 1], q.mask[:, i : i + 1])
            )
            for i in range(q.y.shape[1])
        ],
        1,
    )
    junk = _with_query(
        e,
        torch.cat([q.x, torch.full_like(q.x[:, :1], _JUNK)], 1),
        torch.cat([q.y, q.y[:, :1]], 1),
        torch.cat([q.mask, torch.ones_like(q.mask[:, :1])], 1),
    )
    joined = predict(learner, junk)[:, :-1]
    gaps = {"one at a time": bench.compare(alone), "beside a junk query": bench.compare(joined)}
    if not any(gap.apart for gap in gaps.values()):
        yield Passed(
            check, f"{q.y.shape[1]} queries at once, one at a time and beside a junk query"
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
        + "; ".join(f"{how}, {gap}" for how, gap in gaps.items() if gap.apart)
        + f".{words}",
        {
            "score_together": together,
            "score_one_at_a_time": single,
            **{how.replace(" ", "_"): gap.facts() for how, gap in gaps.items()},
        },
        "Freeze batch norm in evaluation, or take its statistics from the support; if it is meant, "
        "declare transductive = True, and it is printed beside every number.",
    )


def _query_position(bench: _Bench) -> Iterator[Outcome]:
    """Predictions follow their query to another place; equal queries get equal answers."""
    check, learner, e = "query-position", bench.learner, bench.episode
    q = e.query
    order = torch.randperm(q.y.shape[1], generator=generator(0, 2))
    moved = predict(learner, _with_query(e, q.x[:, order], q.y[:, order], q.mask[:, order]))
    gap = bench.compare(moved, bench.base[:, order])
    blank = q.x.mean((0, 1)).expand_as(q.x)
    by_label = q.y.argsort(dim=1, stable=True)
    cheat = _with_query(e, blank, q.y.gather(1, by_label), q.mask.gather(1, by_label))
    output = predict(learner, cheat)
    score, chance = float(_scores(output, cheat).mean()), 1 / e.n_way
    spread = bench.compare(output, output[:, :1].expand_as(output))
    if not gap.apart and not (spread.apart and bool(q.mask.all())):
        fact = "predictions follow their query"
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
        "A learner may not know where a query stands: drop what counts places.",
    )


# ------------------------------------------------------------------ orders and names


def _support_order(bench: _Bench) -> Iterator[Outcome]:
    check, e = "support-order", bench.episode
    if bench.learner.order_sensitive:
        yield Skipped(check, "the learner declares that it is order-sensitive")
        return
    s = e.support
    order = torch.randperm(s.y.shape[1], generator=generator(0, 3))
    other = Examples(s.x[:, order], s.y[:, order], s.mask[:, order])
    output = predict(bench.learner, Episode(other, e.query, e.n_way))
    gap = bench.compare(output)
    if not gap.apart:
        yield Passed(check, "another order of the support changes nothing")
        return
    yield Finding(
        check,
        "fault",
        f"The order of the support examples changes predictions: {gap}.",
        {**gap.facts(), "score": bench.score(bench.base), "score_reordered": bench.score(output)},
        "Use the labels that come with the support, not their places (a reshape to [way, shot] "
        "does); or declare order_sensitive = True.",
    )


def _label_order(bench: _Bench) -> Iterator[Outcome]:
    """Renaming the labels renames the predictions; the spread of the accuracy is reported."""
    check, e = "label-order", bench.episode
    if e.regression:
        yield Skipped(check, "targets are real numbers")
        return
    gaps, scores = [], [_scores(bench.base, e)]
    for number in range(_PERMUTATIONS):
        names = torch.randperm(e.n_way, generator=generator(0, 4, number))
        if bool((names == torch.arange(e.n_way)).all()):
            names = names.roll(1)
        s = e.support
        renamed = Episode(Examples(s.x, names[s.y], s.mask), e.query, e.n_way)
        output = predict(bench.learner, renamed)[..., names]
        gaps.append(bench.compare(output))
        scores.append(_scores(output, e))
    worst = max(gaps, key=lambda gap: gap.relative)
    spread = float(torch.stack(scores).std(0, unbiased=True).mean())
    facts = {**worst.facts(), "accuracy_spread": spread, "namings": len(scores)}
    if bench.learner.label_sensitive:
        if spread < _SPREAD:
            fact = f"declared label-sensitive; accuracy spreads by {100 * spread:.2f} points"
            yield Passed(check, fact)
            return
        yield Finding(
            check,
            "note",
            f"Another naming of the labels moves the accuracy of a task by {100 * spread:.1f} "
            f"points (standard deviation over {len(scores)} namings), as the learner declares.",
            facts,
            "Average over namings, or start the head from prototypes (ProtoMAML).",
        )
        return
    if not any(gap.apart for gap in gaps):
        yield Passed(check, f"{len(gaps)} renamings of the labels rename the predictions")
        return
    yield Finding(
        check,
        "fault",
        f"Renaming the labels changes more than the names: {worst}. The accuracy of a task "
        f"spreads by {100 * spread:.1f} points.",
        facts,
        "Treat all classes alike (no bias per label, no head that is numbered), average over "
        "namings, or declare label_sensitive = True.",
    )


def _task_independence(bench: _Bench) -> Iterator[Outcome]:
    """T tasks at once are the T tasks one after the other."""
    check, e = "task-independence", bench.episode
    singles = [predict(bench.learner, e.tasks(slice(t, t + 1))) for t in range(e.n_tasks)]
    gap = bench.compare(torch.cat(singles))
    if not gap.apart:
        yield Passed(check, f"{e.n_tasks} tasks at once are {e.n_tasks} tasks alone")
        return
    yield Finding(
        check,
        "fault",
        f"A task changes the predictions of another in its batch: {gap}.",
        {
            **gap.facts(),
            "score": bench.score(bench.base),
            "score_alone": bench.score(torch.cat(singles)),
        },
        "Keep statistics and adapted weights of tasks apart: each has its row of the task axis.",
    )


# ------------------------------------------------------------------ what evaluation changes


def _evaluation(
    learner: Learner, source: TaskSource, spec: EpisodeSpec, episodes: int, seed: int
) -> Iterator[Outcome]:
    """Every parameter and buffer is the same after an evaluation, and so is the next one."""
    check, own = "evaluation-changes-model", _copy(learner)
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
        fact = f"{len(before)} values are the same after {2 * episodes} episodes, scores too"
        yield Passed(check, fact)
        return
    if same and not weights:
        yield Finding(
            check,
            "note",
            f"Evaluation leaves attributes on the learner: {', '.join(touched[:5])}.",
            facts,
            "Keep what is learned of a task in the state that adapt returns.",
        )
        return
    what = f"changes {', '.join(weights[:5])}" if weights else "changes something that is no weight"
    yield Finding(
        check,
        "fault",
        f"Evaluating {what}; the same {episodes} episodes give {facts['first']:.4f}, then "
        f"{facts['second']:.4f}.",
        facts,
        "Adapt copies of the weights (torch.func.functional_call), leave running statistics alone "
        "in evaluation, and keep no state between tasks.",
    )

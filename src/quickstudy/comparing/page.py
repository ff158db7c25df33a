"""A comparison as text for a terminal, as Markdown, or as one HTML page without other files."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from quickstudy.comparing.result import Approach, Comparison, Role
from quickstudy.evaluation import Mean, Metric, Report
from quickstudy.pages.charts import legend, lines_chart, rows_chart, scatter_chart
from quickstudy.pages.document import document
from quickstudy.pages.table import table

__all__ = ["Account", "comparison_markdown", "comparison_page", "comparison_text"]

_ROLES: tuple[Role, ...] = ("trained distribution", "novel classes", "novel domain")
_NEEDS_HEADS = (
    "learner",
    "family",
    "adapting differentiates",
    "ms to learn a task",
    "ms per query",
    "KB kept of a task",
    "MB to learn a task",
    "meta-learned numbers",
)
_REACHES_HEADS = (*_ROLES[:2], "novel domains", "drop", "mean rank")
_CSS = ".scroll tbody th { position: sticky; left: 0; background: var(--page); }"


@dataclass(frozen=True, slots=True)
class Account:
    """How a comparison was made.

    Args:
        command: the command or call that makes it again.
        facts: commit, machine, versions and the like, in words.
        seconds: wall time.
        resumed: number of cells that an earlier comparison had computed already.
    """

    command: str
    facts: Sequence[str]
    seconds: float
    resumed: int = 0


def _with_unit(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def _reaches_heads(metric: Metric) -> list[str]:
    """Return the heads of the columns that say what a learner reaches, with their units."""
    *roles, drop, rank = _REACHES_HEADS
    return [
        *(_with_unit(role, metric.unit) for role in roles),
        _with_unit(drop, metric.difference_unit),
        rank,
    ]


def _interval_words(report: Report) -> str:
    """Return what the intervals of a list are over, or why there is none."""
    p = report.protocol
    if p.episodes < 2:
        return f"one episode, which has no interval (seed {p.seed})"
    fixed = " of fixed classes" if report.metric.fraction else ""
    return f"95 % CI over {p.episodes:,} episodes{fixed} (seed {p.seed})"


def comparison_text(comparison: Comparison) -> str:
    """Return a comparison as lines for a terminal."""
    lines = list(comparison.remarks)
    alone, metric = len(comparison.learners) == 1, comparison.metric
    for tasks in comparison.tasks:
        cells = [comparison.cell(name, tasks) for name in comparison.learners]
        new = any(cell.report.class_interval is not None for cell in cells)
        lines.append(
            f"{tasks}: {metric.unit or metric.title}, {_interval_words(cells[0].report)}"
            + ("; over new classes" if new else "")
            + ("" if alone else "; behind the best, on the same episodes")
        )
        best, equal = comparison.best(tasks)
        behind = {other: _gap(metric, gap) for _, other, gap, _ in _from_best(comparison, tasks)}
        for cell in sorted(cells, key=lambda c: -comparison.quality(c.learner, tasks)):
            sign = "*" if cell.learner == best else "=" if cell.learner in equal else " "
            gap = f"{behind.get(cell.learner, ''):>13}"
            lines.append(f" {sign} {_score(cell.report)} {gap}  {cell.learner}")
        lines += [
            f"   {cell.learner}: {cell.report.likelihood}"
            for cell in cells
            if cell.report.likelihood is not None
        ]
    if not alone:
        lines.append(
            "* the best, = not told from it (paired t-test on the same episodes, Holm-corrected, "
            "5 %)"
        )
    lines += [
        f"over {mean.n} training seeds, {group}, {tasks}: {metric.text(mean)}"
        for group, tasks, mean in comparison.over_seeds
    ]
    lines.append("what each approach needs and reaches:")
    for row in comparison.approaches:
        heads = [*_NEEDS_HEADS, *_reaches_heads(metric)]
        columns = zip(heads[1:], _approach_cells(row, metric)[1:], strict=True)
        parts = [f"{head} {cell}" for head, cell in columns if cell]
        lines.append(f"   {row.learner}: " + "; ".join(parts))
    return "\n".join(lines)


def _score(report: Report) -> str:
    """Return mean and interval over episodes, then the interval over classes, in two columns."""
    found = report.class_interval
    over_classes = "" if found is None else found.percent()
    return f"{report.metric.cell(report.score):>14}  {over_classes:>14}"


def _gap(metric: Metric, gap: Mean) -> str:
    """Return a difference for a table; an interval that holds every difference is left out."""
    return gap.cell(widest=1.0) if metric.fraction else metric.cell(gap)


def _approach_cells(row: Approach, metric: Metric) -> list[str]:
    """Return what a learner needs, then what it reaches; empty where nothing is known."""
    cost = row.cost
    needs = [""] * 6
    if cost is not None:
        needs = [
            "yes" if cost.needs_gradients else "no",
            f"{1000 * cost.adapt_seconds:.3g}",
            f"{1000 * cost.query_seconds:.3g}",
            f"{cost.state_bytes / 1024:.3g}",
            "" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:.3g}",
            f"{cost.parameters:,}",
        ]
    reached = [metric.cell(row.accuracy[role]) if role in row.accuracy else "" for role in _ROLES]
    return [
        row.learner,
        row.family,
        *needs,
        *reached,
        "" if row.drop is None else _gap(metric, row.drop),
        "" if row.rank is None else f"{row.rank:.2f}",
    ]


def _accuracy_rows(comparison: Comparison) -> list[list[str]]:
    rows = []
    for name in comparison.learners:
        row = [name]
        for tasks in comparison.tasks:
            report = comparison.cell(name, tasks).report
            best, equal = comparison.best(tasks)
            sign = " *" if name == best else " =" if name in equal else ""
            row.append(f"{report.metric.cell(report.score)}{sign}")
        rows.append(row)
    return rows


def _over_classes(comparison: Comparison) -> list[list[str]]:
    rows = []
    for name in comparison.learners:
        row = [name]
        for tasks in comparison.tasks:
            found = comparison.cell(name, tasks).report.class_interval
            row.append("" if found is None else found.percent())
        rows.append(row)
    return rows


def _any_over_classes(comparison: Comparison) -> bool:
    return any(cell.report.class_interval is not None for cell in comparison.cells)


def _likelihood_rows(comparison: Comparison) -> list[list[str]]:
    """Return likelihood and coverage of each learner on each list where they are known."""
    return [
        [
            cell.learner,
            cell.tasks,
            found.mean_nll.plain(),
            found.mean_coverage.cell(),
            "estimated" if found.estimated else "the learner's",
        ]
        for cell in comparison.cells
        if (found := cell.report.likelihood) is not None
    ]


def _from_best(comparison: Comparison, tasks: str) -> list[tuple[str, str, Mean, float]]:
    """Return a tuple for each learner but the best of a list.

    It holds the best one, this one, the mean of best minus this one, and the adjusted p-value.
    """
    best, _ = comparison.best(tasks)
    found = []
    for d in comparison.paired:
        if d.tasks == tasks and best in (d.first, d.second):
            other, gap = (d.second, d.gap) if d.first == best else (d.first, -d.gap)
            found.append((best, other, gap, d.p_holm))
    return found


def _paired_rows(comparison: Comparison) -> list[list[str]]:
    """Return a table row for each learner but the best of each list."""
    return [
        [tasks, best, other, _gap(comparison.metric, gap), f"{p:.2g}"]
        for tasks in comparison.tasks
        for best, other, gap, p in _from_best(comparison, tasks)
    ]


def _meaning(comparison: Comparison) -> str:
    p, title = comparison.cells[0].report.protocol, comparison.metric.title
    over = (
        f"Mean {title} with its 95 % interval over {p.episodes:,} episodes"
        + (" of fixed classes" if comparison.metric.fraction else "")
        if p.episodes > 1
        else f"The {title} of one episode, which has no interval"
    )
    better = "" if comparison.metric.higher_is_better else " (the smallest)"
    return (
        f"{over}, seed {p.seed}; every learner has the same episodes and judges each query on its "
        f"own. * is the best of a column{better}, = cannot be told from it (paired t-test on the "
        "same episodes, Holm's correction over all pairs of the column, 5 %)."
    )


_WHAT_APPROACH_MEANS = (
    "Adapting differentiates: whether anything is computed with gradients on while a task is "
    "learned (measured). Times are medians for one task, one thread. Kept: the state that answers "
    "queries. MB: the rise of the process's memory while it learns one task. Trained distribution: "
    "other episodes of the training classes. Drop: how much worse the mean of the novel domains is "
    "than the trained distribution, on tasks of one kind. Novel domains: those that no learner "
    "here was trained on or chosen by, the same for all. Mean rank: over them, 1 is best."
)
_WHAT_CLASSES_MEAN = (
    "Where the same mean would lie with other classes of the kind, in 95 % of cases: the jackknife "
    "that leaves out one class with all its episodes. What a class does to the other classes of "
    "its episodes is in it."
)


_LIKELIHOOD_HEADS = ("learner", "tasks", "nats", "held by 90 % intervals, %", "deviation")
_WHAT_LIKELIHOOD_MEANS = (
    "Negative log-likelihood of the targets, the mean over a task's queries, and the share of them "
    "that the 90 % intervals hold, each with its 95 % interval over tasks. A learner that gives a "
    "mean only has a deviation that is estimated from held-out examples of the support."
)


_WHAT_SEEDS_MEAN = "Mean over the seeds with its 95 % interval over seeds (Student's t)."


def _seed_heads(metric: Metric) -> tuple[str, ...]:
    return "recipe", "tasks", metric.title, "seeds"


def _seed_rows(comparison: Comparison) -> list[list[str]]:
    return [
        [group, tasks, comparison.metric.cell(mean), str(mean.n)]
        for group, tasks, mean in comparison.over_seeds
    ]


def comparison_markdown(comparison: Comparison, account: Account, *, title: str) -> str:
    """Return the tables as a Markdown page."""
    heads, metric = ["learner", *comparison.tasks], comparison.metric
    parts = [
        f"# {title}",
        f"`{account.command}` ({account.seconds / 60:.1f} minutes"
        + (f", {account.resumed} cells were there already" if account.resumed else "")
        + f"; {'; '.join(account.facts)})",
        f"## {metric.heading}",
        _meaning(comparison),
        *(f"* {remark}" for remark in comparison.remarks),
        _markdown(heads, _accuracy_rows(comparison)),
        "## What each approach needs and reaches",
        _WHAT_APPROACH_MEANS,
        _markdown(
            [*_NEEDS_HEADS, *_reaches_heads(metric)],
            [_approach_cells(row, metric) for row in comparison.approaches],
        ),
    ]
    if _any_over_classes(comparison):
        parts += [
            f"## {_with_unit('Over new classes', metric.unit)}",
            _WHAT_CLASSES_MEAN,
            _markdown(heads, _over_classes(comparison)),
        ]
    if found := _likelihood_rows(comparison):
        parts += [
            "## Likelihood and intervals",
            _WHAT_LIKELIHOOD_MEANS,
            _markdown(_LIKELIHOOD_HEADS, found),
        ]
    if comparison.over_seeds:
        parts += [
            f"## {_with_unit('Over training seeds', metric.unit)}",
            _WHAT_SEEDS_MEAN,
            _markdown(_seed_heads(metric), _seed_rows(comparison)),
        ]
    parts += [
        f"## {_with_unit('Differences from the best', metric.difference_unit)}",
        "On the same episodes, with 95 % intervals; p after Holm's correction.",
        _markdown(("tasks", "best", "other", "best minus other", "p"), _paired_rows(comparison)),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def comparison_page(
    comparison: Comparison, account: Account, *, title: str, hardest: Sequence[str] = ()
) -> str:
    """Return one HTML page.

    Args:
        comparison: the scores.
        account: how the comparison was made.
        title: of the page.
        hardest: pictures of the hardest tasks, each an HTML figure.
    """
    names = list(comparison.learners)

    def escaped(rows: list[list[str]]) -> list[list[str]]:
        return [[html.escape(row[0]), *row[1:]] for row in rows]

    heads, metric = ["learner", *comparison.tasks], comparison.metric
    approaches = escaped([_approach_cells(row, metric) for row in comparison.approaches])
    needs = len(_NEEDS_HEADS)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lede">{_lede(comparison)}</p>',
        f"<h2>{html.escape(metric.title.capitalize())}</h2>",
        f"<p>{html.escape(_meaning(comparison))}</p>",
        *(f"<p>{html.escape(remark)}</p>" for remark in comparison.remarks),
        table(metric.heading, heads, escaped(_accuracy_rows(comparison))),
        _rows(comparison, names),
        _shots(comparison, names),
        "<h2>What each approach needs and reaches</h2>",
        f"<p>{_WHAT_APPROACH_MEANS}</p>",
        table("What it needs", _NEEDS_HEADS, [row[:needs] for row in approaches]),
        table(
            "What it reaches",
            ["learner", *_reaches_heads(metric)],
            [[row[0], *row[needs:]] for row in approaches],
        ),
        _cost(comparison),
    ]
    if _any_over_classes(comparison):
        title_classes = _with_unit("Over new classes", metric.unit)
        body += [
            f"<h2>Over new classes</h2><p>{_WHAT_CLASSES_MEAN}</p>",
            table(title_classes, heads, escaped(_over_classes(comparison))),
        ]
    if found := _likelihood_rows(comparison):
        body += [
            f"<h2>Likelihood and intervals</h2><p>{_WHAT_LIKELIHOOD_MEANS}</p>",
            table("Likelihood and intervals", _LIKELIHOOD_HEADS, escaped(found)),
        ]
    unit = metric.difference_unit
    body += [
        f"<h2>Differences from the best</h2><p>{unit.capitalize() or 'Measured'} on the same "
        "episodes, with 95 % intervals; p after Holm's correction.</p>",
        table(
            "Differences",
            ("tasks", "best", "other", "best minus other", "p"),
            escaped(_paired_rows(comparison)),
        ),
    ]
    if comparison.over_seeds:
        body += [
            f"<h2>Over training seeds</h2><p>{_WHAT_SEEDS_MEAN}</p>",
            table(
                _with_unit("Over training seeds", metric.unit),
                _seed_heads(metric),
                escaped(_seed_rows(comparison)),
            ),
        ]
    if hardest:
        body.append(
            f"<h2>The hardest tasks</h2><p>Those with the worst mean {metric.title} over all "
            "learners.</p>"
        )
        body += hardest
    body.append(
        f"<h2>How this was made</h2><pre><code>{html.escape(account.command)}</code></pre><ul>"
        + "".join(f"<li>{html.escape(fact)}</li>" for fact in account.facts)
        + f"<li>{account.seconds / 60:.1f} minutes"
        + (f", {account.resumed} cells were there already" if account.resumed else "")
        + "</li></ul>"
    )
    return document(title, "\n".join(body), css=_CSS)


def _lede(comparison: Comparison) -> str:
    """Return the opening: which learner is best on each of the first three lists."""
    sentences = []
    for tasks in comparison.tasks:
        best, equal = comparison.best(tasks)
        report = comparison.cell(best, tasks).report
        also = f" ({len(equal)} cannot be told from it)" if equal else ""
        sentences.append(
            f"On {html.escape(tasks)} {html.escape(best)} is best, "
            f"{comparison.metric.text(report.score)}{also}."
        )
    return " ".join(sentences[:3]) + (" More below." if len(sentences) > 3 else "")


def _rows(comparison: Comparison, names: list[str]) -> str:
    if not comparison.metric.fraction:
        return ""  # the charts are of shares
    values = [
        [(r.mean, r.ci95) for r in (comparison.cell(n, tasks).report for n in names)]
        for tasks in comparison.tasks
    ]
    label = f"Accuracy of {len(names)} learners on {len(values)} lists of tasks."
    return (
        f"<figure>{legend(names)}{rows_chart(comparison.tasks, names, values, label=label)}"
        "<figcaption>Accuracy with 95 % intervals over episodes.</figcaption></figure>"
    )


def _shots(comparison: Comparison, names: list[str]) -> str:
    """Return charts of accuracy against shots, for lists that differ only in the shots."""
    found: dict[str, list[tuple[int, str]]] = {}
    if not comparison.metric.fraction:
        return ""
    for tasks in comparison.tasks:
        k_shot = comparison.cell(names[0], tasks).report.protocol.k_shot
        if isinstance(k_shot, int):
            without = re.sub(r" \S+-shot$", "", tasks)
            found.setdefault(without, []).append((k_shot, tasks))
    parts = []
    for title, lists in found.items():
        if len(lists) < 2:
            continue
        lists.sort()
        values = [
            [(r.mean, r.ci95) for r in (comparison.cell(n, t).report for _, t in lists)]
            for n in names
        ]
        chart = lines_chart(
            [k for k, _ in lists], names, values, label=f"Accuracy against shots, {title}."
        )
        parts.append(f"<figure><h3>{html.escape(title)}</h3>{legend(names)}{chart}</figure>")
    return ("<h2>More examples</h2>" + "".join(parts)) if parts else ""


def _cost(comparison: Comparison) -> str:
    """Return a chart of accuracy against adapting time, for the first role that has both."""
    if not comparison.metric.fraction:
        return ""
    for role in ("novel classes", "novel domain", "trained distribution"):
        points = [
            (row.learner, 1000 * row.cost.adapt_seconds, row.accuracy[role].mean)
            for row in comparison.approaches
            if row.cost is not None and role in row.accuracy
        ]
        if points:
            chart = scatter_chart(
                points,
                label=f"Accuracy on {role} against the time to learn a task.",
                x_name="milliseconds to learn a task, one thread",
            )
            return (
                f"<figure><h3>Cost against accuracy on {role}</h3>"
                f"{legend([name for name, _, _ in points])}{chart}</figure>"
            )
    return ""

"""A comparison as text for a terminal, as Markdown, or as one HTML page without other files."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from quickstudy.comparing.result import Approach, Comparison, Role
from quickstudy.evaluation import Mean, Report
from quickstudy.pages.charts import legend, lines_chart, rows_chart, scatter_chart
from quickstudy.pages.document import document
from quickstudy.pages.table import table

__all__ = ["Account", "comparison_markdown", "comparison_page", "comparison_text"]

_ROLES: tuple[Role, ...] = ("trained distribution", "novel classes", "novel domain")
_APPROACH_HEADS = (
    "learner",
    "family",
    "adapting differentiates",
    "ms to learn a task",
    "ms per query",
    "KB kept of a task",
    "MB to learn a task",
    "meta-learned numbers",
    "trained distribution, %",
    "novel classes, %",
    "novel domains, %",
    "drop, points",
    "mean rank",
)
_NEEDS_COLUMNS = 8  # the first ones say what a learner needs, the others what it reaches
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


def comparison_text(comparison: Comparison) -> str:
    """Return a comparison as lines for a terminal."""
    lines = list(comparison.remarks)
    alone = len(comparison.learners) == 1
    for tasks in comparison.tasks:
        cells = [comparison.cell(name, tasks) for name in comparison.learners]
        p = cells[0].report.protocol
        lines.append(
            f"{tasks}: %, 95 % CI over {p.episodes} episodes of fixed classes (seed {p.seed}); "
            "over new classes" + ("" if alone else "; behind the best, on the same episodes")
        )
        best, equal = comparison.best(tasks)
        behind = {other: gap.cell() for _, other, gap, _ in _from_best(comparison, tasks)}
        for cell in sorted(cells, key=lambda c: -c.report.mean):
            sign = "*" if cell.learner == best else "=" if cell.learner in equal else " "
            gap = f"{behind.get(cell.learner, ''):>13}"
            lines.append(f" {sign} {_score(cell.report)} {gap}  {cell.learner}")
    if not alone:
        lines.append(
            "* the best, = not told from it (paired t-test on the same episodes, Holm-corrected, "
            "5 %)"
        )
    lines += [
        f"over {mean.n} training seeds, {group}, {tasks}: {mean.percent()}"
        for group, tasks, mean in comparison.over_seeds
    ]
    lines.append("what each approach needs and reaches:")
    for row in comparison.approaches:
        columns = zip(_APPROACH_HEADS[1:], _approach_cells(row)[1:], strict=True)
        parts = [f"{head} {cell}" for head, cell in columns if cell]
        lines.append(f"   {row.learner}: " + "; ".join(parts))
    return "\n".join(lines)


def _score(report: Report) -> str:
    """Return mean and interval over episodes, then the interval over classes, in two columns."""
    found = report.class_interval
    over_classes = "" if found is None else f"{100 * found.low:5.1f} to {100 * found.high:5.1f}"
    return f"{report.score.cell():>14}  {over_classes:>14}"


def _approach_cells(row: Approach) -> list[str]:
    """Return the cells below :data:`_APPROACH_HEADS`; empty where nothing is known."""
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
    reached = [row.accuracy[role].cell() if role in row.accuracy else "" for role in _ROLES]
    return [
        row.learner,
        row.family,
        *needs,
        *reached,
        "" if row.drop is None else row.drop.cell(),
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
            row.append(f"{report.score.cell()}{sign}")
        rows.append(row)
    return rows


def _over_classes(comparison: Comparison) -> list[list[str]]:
    rows = []
    for name in comparison.learners:
        row = [name]
        for tasks in comparison.tasks:
            found = comparison.cell(name, tasks).report.class_interval
            row.append("" if found is None else f"{100 * found.low:.1f} to {100 * found.high:.1f}")
        rows.append(row)
    return rows


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
        [tasks, best, other, gap.cell(), f"{p:.2g}"]
        for tasks in comparison.tasks
        for best, other, gap, p in _from_best(comparison, tasks)
    ]


def _meaning(comparison: Comparison) -> str:
    p = comparison.cells[0].report.protocol
    return (
        f"Mean accuracy with its 95 % interval over {p.episodes:,} episodes of fixed classes, seed "
        f"{p.seed}; every learner has the same episodes and judges each query on its own. * is the "
        "best of a column, = cannot be told from it (paired t-test on the same episodes, Holm's "
        "correction over all pairs of the column, 5 %)."
    )


_WHAT_APPROACH_MEANS = (
    "Adapting differentiates: whether anything is computed with gradients on while a task is "
    "learned (measured). Times are medians for one task, one thread. Kept: the state that answers "
    "queries. MB: the rise of the process's memory while it learns one task. Trained distribution: "
    "other episodes of the training classes. Drop: trained distribution minus the mean of the "
    "novel domains, on tasks of one kind. Novel domains: those that no learner here was trained on "
    "or chosen by, the same for all. Mean rank: over them, 1 is best."
)
_WHAT_CLASSES_MEAN = (
    "What the same mean would be with other classes of the kind: 95 % by the bootstrap over the "
    "classes. The true spread is larger: a class also makes queries of other classes harder or "
    "easier, and the bootstrap does not show that."
)


_SEED_HEADS = ("recipe", "tasks", "accuracy", "seeds")
_WHAT_SEEDS_MEAN = "Mean over the seeds with its 95 % interval over seeds (Student's t)."


def _seed_rows(comparison: Comparison) -> list[list[str]]:
    return [
        [group, tasks, mean.cell(), str(mean.n)] for group, tasks, mean in comparison.over_seeds
    ]


def comparison_markdown(comparison: Comparison, account: Account, *, title: str) -> str:
    """Return the tables as a Markdown page."""
    heads = ["learner", *comparison.tasks]
    parts = [
        f"# {title}",
        f"`{account.command}` ({account.seconds / 60:.1f} minutes"
        + (f", {account.resumed} cells were there already" if account.resumed else "")
        + f"; {'; '.join(account.facts)})",
        "## Accuracy, %",
        _meaning(comparison),
        *(f"* {remark}" for remark in comparison.remarks),
        _markdown(heads, _accuracy_rows(comparison)),
        "## What each approach needs and reaches",
        _WHAT_APPROACH_MEANS,
        _markdown(_APPROACH_HEADS, [_approach_cells(row) for row in comparison.approaches]),
        "## Over new classes, %",
        _WHAT_CLASSES_MEAN,
        _markdown(heads, _over_classes(comparison)),
    ]
    if comparison.over_seeds:
        parts += [
            "## Over training seeds, %",
            _WHAT_SEEDS_MEAN,
            _markdown(_SEED_HEADS, _seed_rows(comparison)),
        ]
    parts += [
        "## Differences from the best, points",
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

    heads = ["learner", *comparison.tasks]
    approaches = escaped([_approach_cells(row) for row in comparison.approaches])
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lede">{_lede(comparison)}</p>',
        "<h2>Accuracy</h2>",
        f"<p>{html.escape(_meaning(comparison))}</p>",
        *(f"<p>{html.escape(remark)}</p>" for remark in comparison.remarks),
        table("Accuracy, %", heads, escaped(_accuracy_rows(comparison))),
        _rows(comparison, names),
        _shots(comparison, names),
        "<h2>What each approach needs and reaches</h2>",
        f"<p>{_WHAT_APPROACH_MEANS}</p>",
        table(
            "What it needs",
            _APPROACH_HEADS[:_NEEDS_COLUMNS],
            [row[:_NEEDS_COLUMNS] for row in approaches],
        ),
        table(
            "What it reaches",
            ["learner", *_APPROACH_HEADS[_NEEDS_COLUMNS:]],
            [[row[0], *row[_NEEDS_COLUMNS:]] for row in approaches],
        ),
        _cost(comparison),
        "<h2>Over new classes</h2>",
        f"<p>{_WHAT_CLASSES_MEAN}</p>",
        table("Over new classes, %", heads, escaped(_over_classes(comparison))),
        "<h2>Differences from the best</h2><p>Points on the same episodes, with 95 % intervals; p "
        "after Holm's correction.</p>",
        table(
            "Differences",
            ("tasks", "best", "other", "best minus other", "p"),
            escaped(_paired_rows(comparison)),
        ),
    ]
    if comparison.over_seeds:
        body += [
            f"<h2>Over training seeds</h2><p>{_WHAT_SEEDS_MEAN}</p>",
            table("Over training seeds, %", _SEED_HEADS, escaped(_seed_rows(comparison))),
        ]
    if hardest:
        body.append(
            "<h2>The hardest tasks</h2><p>Those with the lowest mean over all learners.</p>"
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
            f"On {html.escape(tasks)} {html.escape(best)} is best, {report.score.percent()}{also}."
        )
    return " ".join(sentences[:3]) + (" More below." if len(sentences) > 3 else "")


def _rows(comparison: Comparison, names: list[str]) -> str:
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

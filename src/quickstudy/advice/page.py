"""Advice as one HTML page: approaches, accuracy against labels, the hardest pairs of classes."""

from __future__ import annotations

import html
from pathlib import Path

import torch

from quickstudy.advice.expectation import Expectation, gain_text
from quickstudy.advice.records import Advice, ConfusedPair, Measured
from quickstudy.embedders.base import Item
from quickstudy.embedders.images import Transform
from quickstudy.embedders.tables import TableEmbedder
from quickstudy.pages import document, image_uri, table
from quickstudy.pages.charts import legend, lines_chart
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import is_page, refuse_foreign

__all__ = ["write_advice_page"]

_DRAWN = 6  # approaches in the drawing
_WORDS = 160
_SHOWN = 20
_CSS = """
.curves { max-width: 46rem; }
.pair { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; margin: 0 0 1rem; }
.pair img { height: 72px; border: 1px solid var(--rule); border-radius: 4px; }
.pair > div { max-width: 22rem; overflow-wrap: anywhere; }
"""


def write_advice_page(advice: Advice, out: Path) -> None:
    """Write one HTML file that needs nothing else.

    Args:
        advice: what was found.
        out: the file.

    Raises:
        ConfigError: if another file that is no page of ours is there.
        CheckpointError: if the file cannot be written.
    """
    refuse_foreign(out, ours=is_page)
    title = f"Advice on {Path(advice.source).name}"
    body = "\n".join(
        (
            f"<h1>{html.escape(title)}</h1>",
            _summary(advice),
            _choice(advice),
            _expectations(advice),
            _pairs(advice),
            _contradictions(advice),
        )
    )
    write_atomically(out, document(title, body, css=_CSS).encode())


def _summary(advice: Advice) -> str:
    facts, (low, middle, high) = advice.facts, advice.facts.per_class
    notes = "".join(f'<p class="soft">{html.escape(note)}</p>' for note in advice.notes)
    return (
        f'<p class="lede">{facts.classes} classes, {facts.examples:,} examples, {low} to {high} of '
        f"a class (median {middle}). Take <b>{html.escape(advice.chosen.name)}</b>.</p>"
        f"<pre><code>{html.escape(advice.command)}</code></pre>"
        f'<p class="soft">{facts.copies} copies, which count once; {len(facts.contradictions)} '
        f"contents under different labels. Measured with {facts.used:,} examples of "
        f"{facts.used_classes} classes, seed {advice.seed}.</p>{notes}"
    )


def _choice(advice: Advice) -> str:
    shots = list(advice.chosen.shots)
    heads = (
        "approach",
        *(_labels(k) for k in shots),
        "mean",
        "behind the best, points",
        "episodes",
    )
    rows = [_row(m, m is advice.chosen) for m in advice.approaches]
    missing = "".join(
        f'<p class="soft">{html.escape(name)} was not measured: {html.escape(why)}</p>'
        for name, why in advice.skipped.items()
    )
    others = [m for m in advice.approaches if m is not advice.chosen]
    drawn = [advice.chosen, *others[: _DRAWN - 1]]
    names = [m.name for m in drawn]
    chart = ""
    if len(shots) > 1:  # one number of labels is no line
        lines = [[(m.shots[k].mean, m.shots[k].ci95) for k in shots] for m in drawn]
        drawing = lines_chart(shots, names, lines, label="Accuracy by labels per class")
        chart = f'<div class="curves"><figure>{legend(names)}{drawing}</figure></div>'
    return (
        f"<h2>Why</h2><p>{html.escape(advice.reason[0].upper() + advice.reason[1:])}.</p>"
        f"{table('Approaches', heads, rows)}{missing}"
        '<p class="soft">Accuracy in %, ± half of the 95 % interval over episodes; all approaches '
        "answered the same episodes, and what was clearly behind no more after the first of them. "
        "Behind the best: paired, on those that both answered.</p>"
        f"{chart}"
    )


def _row(m: Measured, chosen: bool) -> tuple[str, ...]:
    name = html.escape(m.name)
    return (
        f"{name} (taken)" if chosen else name,
        *(mean.cell(digits=1) for mean in m.shots.values()),
        f"{100 * m.mean:.1f}",
        m.behind.cell(digits=1),
        str(m.episodes),
    )


def _labels(k: int) -> str:
    return f"{k} label{'s' * (k > 1)}"


def _expectations(advice: Advice) -> str:
    heads = ("labels per class", "classes", "expected", "one draw of labels", "mean of many draws")
    rows = [_expected(e) for e in (*advice.expected, *advice.whole)]
    return (
        f"<h2>What to expect</h2>{table('Expected accuracy', heads, rows)}"
        '<p class="soft">90 % intervals, in %. One draw: the accuracy on new examples after '
        "labels were drawn once. Many draws: the mean accuracy measured again with other examples."
        f"</p><p>{html.escape(gain_text(advice.gain)[0].upper() + gain_text(advice.gain)[1:])}</p>"
    )


def _expected(e: Expectation) -> tuple[str, ...]:
    return (
        str(e.k_shot),
        str(e.n_way),
        f"{100 * e.mean:.1f}",
        f"{100 * e.low:.1f} to {100 * e.high:.1f}",
        f"{100 * e.mean_low:.1f} to {100 * e.mean_high:.1f}",
    )


def _pairs(advice: Advice) -> str:
    if not advice.pairs:
        return ""
    parts = [_pair(p, advice.facts.kind) for p in advice.pairs]
    return (
        "<h2>The hardest pairs of classes</h2><p>How often one is answered for the other, in "
        "episodes that hold both, and the example of each that was answered wrong most often.</p>"
        + "".join(parts)
    )


def _pair(pair: ConfusedPair, kind: str) -> str:
    sides = "".join(
        f"<div><b>{html.escape(name)}</b><br>{_picture(item, kind)}</div>"
        for name, item in zip((pair.first, pair.second), pair.items, strict=True)
    )
    return f'<div class="pair"><div>{100 * pair.rate:.0f} %</div>{sides}</div>'


def _picture(item: Item, kind: str) -> str:
    if kind == "image":
        pixels = Transform(96).pixels(item.value, item.source or "image")
        return f'<img src="{image_uri(torch.from_numpy(pixels))}" alt="">'
    text = str(item.value) if kind == "text" else str(TableEmbedder().preview(item))
    return f"<q>{html.escape(text if len(text) <= _WORDS else text[:_WORDS] + ' …')}</q>"


def _contradictions(advice: Advice) -> str:
    found = advice.facts.contradictions
    if not found:
        return ""
    rows = [(html.escape(", ".join(names)), ", ".join(labels)) for names, labels in found[:_SHOWN]]
    more = len(found) - len(rows)
    tail = f'<p class="soft">and {more} more</p>' if more > 0 else ""
    heads = ("examples", "labels")
    cells = table("Contradictions", heads, rows)
    return f"<h2>The same content under different labels</h2>{cells}{tail}"

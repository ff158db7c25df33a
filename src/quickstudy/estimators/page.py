"""A page about a task: its classes and examples, expected accuracy, labels to check, a map."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from quickstudy.core.words import count
from quickstudy.estimators.answers import Conflict, Suspect
from quickstudy.estimators.contents import (
    Confusion,
    count_confusion,
    example_name,
    odds_in_words,
)
from quickstudy.estimators.explaining import worth_checking
from quickstudy.estimators.report import Report, report_on
from quickstudy.estimators.support import Support
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.task import Estimate
from quickstudy.pages import document, embedding_map, map_legend, png_uri, table
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import is_page, refuse_foreign

__all__ = ["write_page"]

_MOST_EXAMPLES_SHOWN = 12  # of a class
_MOST_CLASSES_SHOWN = 200
_MOST_OPEN = 20  # more classes than this are folded up
_MOST_DOUBTS_SHOWN = 200
_MOST_DOUBTS_OPEN = 24  # more are folded up
_MOST_EXAMPLES_ON_MAP = 400
_MOST_CHARACTERS_SHOWN = 160  # of a text
_MOST_COLOURS = 10  # of the map
_MOST_IN_TABLE = 12  # classes in the table of confusion; of more, the worst pairs are listed
_MOST_PAIRS_SHOWN = 20

_OWN_CSS = """
h1, h3, summary, li, th { overflow-wrap: anywhere; }
.supports { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-start; }
.supports img { height: 64px; width: auto; max-width: 96px; border: 1px solid var(--rule);
  border-radius: 4px; background: #fff; image-rendering: auto; }
.supports q { display: block; font-size: .92rem; max-width: 40rem; }
.doubts { list-style: none; padding: 0; max-width: none; display: grid; gap: .9rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.doubts li { display: flex; gap: .8rem; align-items: flex-start; padding: 0 0 .8rem;
  border-bottom: 1px solid var(--rule); }
.doubts li > .supports { flex: none; } .doubts q { display: block; margin: 0 0 .3rem; }
.doubts small, .held small { display: block; color: var(--soft); font-size: .85rem; }
.class { margin: 1.4rem 0; } .class h3, summary { font-size: 1rem; font-weight: 600; }
.class h3 { margin: 0 0 .4rem; } details { margin: .5rem 0; } summary { cursor: pointer; }
.class h3 span, summary span { font-weight: 400; color: var(--soft); }
details .supports { margin: .5rem 0 1rem; }
.held th, .held td { padding: .3rem .5rem; text-align: right; font-size: .9rem; min-width: 2.2rem; }
.held tbody th { text-align: left; min-width: 6rem; max-width: 14rem; white-space: normal; }
.held .hit { background: color-mix(in srgb, var(--right) 18%, transparent); }
.held .miss { background: color-mix(in srgb, var(--wrong) 22%, transparent); font-weight: 600; }
.map { max-width: 34rem; }
.legend li { display: flex; align-items: center; gap: .35rem; }
.legend svg { width: 12px; height: 12px; flex: none; margin: 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; }
.big { font-size: 2.2rem; font-weight: 650; line-height: 1.1; }
"""


def write_page(version: TaskVersion, out: Path, *, title: str) -> None:
    """Write a page about a task, one HTML file that needs no other file.

    Args:
        version: the task.
        out: the file.
        title: of the page.

    Raises:
        ConfigError: if another file that is no page of ours is there.
        CheckpointError: if the file cannot be written.
    """
    refuse_foreign(out, ours=is_page)
    embedder = version.embedder
    shown = tuple(replace(item, preview=embedder.preview(item)) for item in version.support.items)
    support = replace(version.support, items=shown)
    ranked = version.suspects(all=True)
    confusion = count_confusion(support, ranked)
    body = "\n".join(
        (
            f"<h1>{html.escape(title)}</h1>",
            _summary(version, support),
            _expectation(version.estimate_accuracy(), report_on(version.task)),
            _doubts(support, worth_checking(ranked, version.task), support.conflicts()),
            _confusion(confusion),
            _map(version, support, confusion),
            _classes(support, confusion),
        )
    )
    write_atomically(out, document(title, body, css=_OWN_CSS).encode())


def _summary(version: TaskVersion, support: Support) -> str:
    counts = support.counts
    each = (
        f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    )
    noun = "class" if support.n_way == 1 else "classes"
    return (
        f'<p class="lede">{support.n_way} {noun}, {each} example{"" if each == "1" else "s"} each, '
        f"{len(support.items)} in all. Encoder: {html.escape(version.embedder.name)}; head: "
        f"{html.escape(version.head_name)}.</p>"
    )


def _expectation(estimate: Estimate, report: Report) -> str:
    nothing = "<p><b>This cannot be told from guessing.</b></p>"
    basis = "".join(f"<li>{html.escape(line)}</li>" for line in report.lines())
    return (
        "<h2>What to expect on new examples</h2>"
        f'<p class="big">{100 * estimate.mean:.0f} %</p>'
        "<p>of new examples of these classes will get the right label. The accuracy of "
        f"{100 * estimate.coverage:.0f} of 100 tasks lies in an interval like this one: "
        f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} %. It was estimated from "
        f"{html.escape(estimate.method)}.</p>{nothing if report.nothing_learned else ''}"
        f"<h3>What these numbers rest on</h3><ul>{basis}</ul>"
    )


def _doubts(support: Support, suspects: list[Suspect], conflicts: list[Conflict]) -> str:
    """Return the section on labels that may be wrong."""
    if not suspects and not conflicts:
        if int(support.counts.max()) < 2:
            return "<h2>Labels to check</h2><p>With one example each, nothing can be checked.</p>"
        return "<h2>Labels to check</h2><p>None: no label is as likely wrong as right.</p>"
    shown, more = suspects[:_MOST_DOUBTS_SHOWN], len(suspects) - _MOST_DOUBTS_SHOWN
    parts = ["<h2>Labels to check</h2>"]
    if suspects:
        parts.append(
            "<p>These examples look like another class, judged by what was learned from the other "
            "examples. 19 to 1 means: the other class is 19 times as likely as the label. Some "
            "labels may be wrong; some examples are just unusual.</p>"
        )
        listed = [_doubt(support, one) for one in shown]
        parts.append(f'<ul class="doubts">{"".join(listed[:_MOST_DOUBTS_OPEN])}</ul>')
        if folded := listed[_MOST_DOUBTS_OPEN:]:
            parts.append(
                f"<details><summary>{count(len(folded), 'further example')}, less clear"
                f'</summary><ul class="doubts">{"".join(folded)}</ul></details>'
            )
        if more > 0:
            parts.append(
                f'<p class="soft">and {more} more; quickstudy show --json lists all of them.</p>'
            )
    if conflicts:
        twice = [
            (_example(support, c.rows[0]), ", ".join(map(str, c.labels)))
            for c in conflicts[:_MOST_DOUBTS_SHOWN]
        ]
        parts.append("<h3>The same example under different labels</h3>")
        parts.append(table("Contradictions", ("example", "labels"), twice))
        more = len(conflicts) - _MOST_DOUBTS_SHOWN
        parts += [f'<p class="soft">and {more} more</p>'] if more > 0 else []
    return "".join(parts)


def _doubt(support: Support, one: Suspect) -> str:
    """Return one example whose label may be wrong, with its name and what it looks like."""
    label, other = html.escape(str(one.label)), html.escape(str(one.suggestion))
    picture, words = _picture(support, one.row), ""
    if isinstance(support.items[one.row].preview, str):
        picture, words = "", picture
    elif support.items[one.row].preview is None:
        picture = ""
    return (
        f"<li>{picture}<div>{words}labelled <b>{label}</b>, looks like <b>{other}</b>: "
        f'<span class="whole">{odds_in_words(one.evidence)}</span>'
        f"<small>{html.escape(_name(support, one.row))}</small>"
        "</div></li>"
    )


def _confusion(confusion: Confusion) -> str:
    """Return the section on classes that are mistaken for each other."""
    if not confusion.judged or len(confusion.classes) < 2:
        return ""
    share = 100 * confusion.right / confusion.judged
    head = (
        "<h2>What is taken for what</h2><p>Each example was answered by what was learned from the "
        f"others: {confusion.right:,} of {confusion.judged:,} rightly ({share:.0f} %). New "
        "examples are expected to do as the number at the top says.</p>"
    )
    pairs = confusion.pairs()
    if not pairs:
        return head + "<p>No class was taken for another.</p>"
    if len(confusion.classes) <= _MOST_IN_TABLE:
        return head + _confusion_table(confusion)
    rows = "".join(
        f'<li><span class="whole">{pair.count} of {pair.examples}</span><div>'
        f"<b>{html.escape(str(pair.label))}</b> taken for <b>{html.escape(str(pair.answer))}</b>"
        "</div></li>"
        for pair in pairs[:_MOST_PAIRS_SHOWN]
    )
    more = len(pairs) - _MOST_PAIRS_SHOWN
    tail = f'<p class="soft">and {more} more pairs</p>' if more > 0 else ""
    return f'{head}<ul class="doubts">{rows}</ul>{tail}'


def _confusion_table(confusion: Confusion) -> str:
    """Return all counts: a row for each class, a column for each answer, numbered alike."""
    heads = "".join(
        f'<th scope="col" title="{html.escape(str(label), quote=True)}">{c}</th>'
        for c, label in enumerate(confusion.classes, 1)
    )
    body = ""
    for r, label in enumerate(confusion.classes):
        cells = ""
        for c, n in enumerate(confusion.counts[r].tolist()):
            style = "hit" if r == c else "miss"
            cells += f'<td class="{style}">{n}</td>' if n else "<td></td>"
        body += f'<tr><th scope="row">{r + 1} {html.escape(str(label))}</th>{cells}</tr>'
    return (
        '<div class="scroll held" tabindex="0" role="region" aria-label="Confusion"><table><thead>'
        f'<tr><th scope="col">class, and the number it was answered with</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _map(version: TaskVersion, support: Support, confusion: Confusion) -> str:
    if len(support.items) < 3:
        return ""
    rows = np.arange(len(support.items))
    if len(rows) > _MOST_EXAMPLES_ON_MAP:
        rows = rows[np.linspace(0, len(rows) - 1, _MOST_EXAMPLES_ON_MAP).astype(int)]
    names = [f"{support.classes[support.y[r]]}: {_name(support, int(r))}" for r in rows]
    coloured = _coloured(confusion)
    colour = np.full(support.n_way, -1)
    colour[coloured] = np.arange(len(coloured))
    drawing = embedding_map(
        torch.from_numpy(version.features(rows)),
        colour[support.y[rows]],
        seed=0,
        label=f"Map of {len(rows)} examples of {support.n_way} classes.",
        names=names,
    )
    few = len(coloured) == support.n_way
    legend = map_legend(
        [str(support.classes[c]) for c in coloured], others="" if few else "all other classes"
    )
    which = (
        "in its class's colour"
        if few
        else f"and the {len(coloured)} classes that are mistaken most often have colours"
    )
    some = "" if len(rows) == len(support.items) else f" {len(rows)} of {len(support.items)} shown."
    return (
        f"<h2>Map of the examples</h2><p>Each dot is an example, {which}; examples with similar "
        f"embeddings are close together (point at a dot to see its name).{some}"
        f'</p><div class="map"><figure>{drawing}</figure></div>{legend}'
    )


def _coloured(confusion: Confusion) -> list[int]:
    """Return the classes that get colours: all, or those that are mistaken most often."""
    n_way = len(confusion.classes)
    if n_way <= _MOST_COLOURS:
        return list(range(n_way))
    wrong = confusion.counts.copy()
    np.fill_diagonal(wrong, 0)
    mistakes = wrong.sum(0) + wrong.sum(1)
    return sorted(np.argsort(-mistakes, kind="stable")[:_MOST_COLOURS].tolist())


def _classes(support: Support, confusion: Confusion) -> str:
    judged, right = confusion.counts.sum(1), confusion.counts.diagonal()
    parts = []
    for column, label in enumerate(support.classes[:_MOST_CLASSES_SHOWN]):
        members = np.flatnonzero(support.y == column)
        shown = "".join(_picture(support, int(row)) for row in members[:_MOST_EXAMPLES_SHOWN])
        more = len(members) - _MOST_EXAMPLES_SHOWN
        tail = f'<span class="soft">and {more} more</span>' if more > 0 else ""
        held = f", {right[column]} of {judged[column]} right" if judged[column] else ""
        title = f"{html.escape(str(label))} <span>{count(len(members), 'example')}{held}</span>"
        body = f'<div class="supports">{shown}{tail}</div>'
        if support.n_way > _MOST_OPEN:
            parts.append(f"<details><summary>{title}</summary>{body}</details>")
        else:
            parts.append(f'<div class="class"><h3>{title}</h3>{body}</div>')
    left = support.n_way - _MOST_CLASSES_SHOWN
    note = f'<p class="soft">and {left} more classes</p>' if left > 0 else ""
    return f"<h2>Classes and their examples</h2>{''.join(parts)}{note}"


def _example(support: Support, row: int) -> str:
    """Return an example as HTML, with the file or row that it came from."""
    picture, name = _picture(support, row), html.escape(_name(support, row))
    return picture if name in picture and "<img" not in picture else f"{picture} {name}"


def _picture(support: Support, row: int) -> str:
    """Return an example as HTML: its small picture, its text, or its name."""
    preview = support.items[row].preview
    name = html.escape(_name(support, row), quote=True)
    if isinstance(preview, bytes):
        uri = png_uri(preview)
        return f'<span class="supports"><img src="{uri}" alt="{name}" title="{name}"></span>'
    if isinstance(preview, str):
        most = _MOST_CHARACTERS_SHOWN
        text = preview if len(preview) <= most else preview[:most] + " …"
        return f'<span class="supports"><q>{html.escape(text)}</q></span>'
    return f'<span class="name">{name}</span>'


def _name(support: Support, row: int) -> str:
    return example_name(support, row)

"""A page about a task: its classes and examples, expected accuracy, labels to check, a map."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from quickstudy.estimators.answers import Conflict, Suspect
from quickstudy.estimators.support import Support
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.task import Estimate
from quickstudy.pages import document, embedding_map, map_legend, png_uri, table
from quickstudy.storage.files import write_atomically

__all__ = ["write_page"]

_MOST_EXAMPLES_SHOWN = 12  # of a class
_MOST_CLASSES_SHOWN = 200
_MOST_SUSPECTS_SHOWN = 20
_MOST_EXAMPLES_ON_MAP = 400
_MOST_CHARACTERS_SHOWN = 160  # of a text
_MOST_CLASSES_IN_LEGEND = 10  # as many as there are colours

_OWN_CSS = """
.supports { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-start; }
.supports img { height: 64px; width: auto; max-width: 96px; border: 1px solid var(--rule);
  border-radius: 4px; background: #fff; image-rendering: auto; }
.supports q { display: block; font-size: .92rem; max-width: 40rem; }
.classes td { white-space: normal; }
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
        CheckpointError: if the file cannot be written.
    """
    embedder = version.embedder
    shown = tuple(replace(item, preview=embedder.preview(item)) for item in version.support.items)
    support = replace(version.support, items=shown)
    body = "\n".join(
        (
            f"<h1>{html.escape(title)}</h1>",
            _summary(version, support),
            _expectation(version.estimate_accuracy()),
            _doubts(support, version.suspects(), support.conflicts()),
            _map(version, support),
            _classes(support),
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


def _expectation(estimate: Estimate) -> str:
    return (
        "<h2>What to expect on new examples</h2>"
        f'<p class="big">{100 * estimate.mean:.0f} %</p>'
        "<p>of new examples of these classes will get the right label. The accuracy of "
        f"{100 * estimate.coverage:.0f} of 100 tasks lies in an interval like this one: "
        f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} %. It was estimated from "
        f"{html.escape(estimate.method)}.</p>"
    )


def _doubts(support: Support, suspects: list[Suspect], conflicts: list[Conflict]) -> str:
    """Return the section on labels that may be wrong."""
    if not suspects and not conflicts:
        if int(support.counts.max()) < 2:
            return "<h2>Labels to check</h2><p>With one example each, nothing can be checked.</p>"
        return "<h2>Labels to check</h2><p>None: no example contradicts the others.</p>"
    parts = ["<h2>Labels to check</h2>"]
    if suspects:
        more = len(suspects) - _MOST_SUSPECTS_SHOWN
        rows = [
            (_picture(support, s.row), str(s.label), str(s.suggestion), f"{s.evidence:+.1f}")
            for s in suspects[:_MOST_SUSPECTS_SHOWN]
        ]
        heads = ("example", "label", "the others say", "log-odds against the label")
        parts.append(table("Labels to check", heads, rows))
        parts += [f'<p class="soft">and {more} more</p>'] if more > 0 else []
    if conflicts:
        twice = [(_picture(support, c.rows[0]), ", ".join(map(str, c.labels))) for c in conflicts]
        parts.append("<h3>The same example under different labels</h3>")
        parts.append(table("Contradictions", ("example", "labels"), twice))
    return "".join(parts)


def _map(version: TaskVersion, support: Support) -> str:
    if len(support.items) < 3:
        return ""
    rows = np.arange(len(support.items))
    if len(rows) > _MOST_EXAMPLES_ON_MAP:
        rows = rows[np.linspace(0, len(rows) - 1, _MOST_EXAMPLES_ON_MAP).astype(int)]
    names = [f"{support.classes[support.y[r]]}: {_name(support, int(r))}" for r in rows]
    drawing = embedding_map(
        torch.from_numpy(version.features(rows)),
        support.y[rows],
        seed=0,
        label=f"Map of {len(rows)} examples of {support.n_way} classes.",
        names=names,
    )
    few = support.n_way <= _MOST_CLASSES_IN_LEGEND
    legend = map_legend([str(name) for name in support.classes]) if few else ""
    some = "" if len(rows) == len(support.items) else f" {len(rows)} of {len(support.items)} shown."
    return (
        "<h2>Map of the examples</h2><p>Each dot is an example, in its class's colour; examples "
        f"with similar embeddings are close together (point at a dot to see its name).{some}"
        f'</p><div class="map"><figure>{drawing}</figure></div>{legend}'
    )


def _classes(support: Support) -> str:
    rows = []
    for column, label in enumerate(support.classes[:_MOST_CLASSES_SHOWN]):
        members = np.flatnonzero(support.y == column)
        shown = "".join(_picture(support, int(row)) for row in members[:_MOST_EXAMPLES_SHOWN])
        more = len(members) - _MOST_EXAMPLES_SHOWN
        tail = f'<span class="soft">and {more} more</span>' if more > 0 else ""
        rows.append(
            f'<tr><th scope="row">{html.escape(str(label))}<br><span class="soft">{len(members)}'
            f'</span></th><td><div class="supports">{shown}{tail}</div></td></tr>'
        )
    left = support.n_way - _MOST_CLASSES_SHOWN
    note = f'<p class="soft">and {left} more classes</p>' if left > 0 else ""
    return (
        '<h2>Classes and their examples</h2><div class="scroll classes" tabindex="0" role="region" '
        f'aria-label="Classes"><table><tbody>{"".join(rows)}</tbody></table></div>{note}'
    )


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
    return support.items[row].source or f"example {row}"

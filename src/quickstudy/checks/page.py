"""A page about a check: each finding with its two pictures side by side, then what passed."""

from __future__ import annotations

import html

import torch
from torch import Tensor

from quickstudy.checks import CheckReport, Finding, Pair
from quickstudy.pages.document import document
from quickstudy.pages.pictures import image_uri
from quickstudy.pages.table import table

__all__ = ["check_page"]

_OWN_CSS = """
.finding { border-left: 4px solid var(--floor); padding: .1rem 0 .1rem 1.1rem; margin: 0 0 2.2rem; }
.finding.fault { border-color: var(--wrong); }
.finding h3 { font-size: 1.1rem; } .finding h3 span { font-weight: 400; color: var(--soft); }
.finding.fault h3 span { color: var(--wrong); }
.pair { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; margin: 0 0 1.1rem; }
.pair figure { margin: 0; width: 9rem; }
.pair img { width: 9rem; height: auto; border: 1px solid var(--rule); border-radius: 4px;
  background: #fff; image-rendering: pixelated; display: block; }
.pair figcaption { font-size: .85rem; line-height: 1.35; margin: .3rem 0 0;
  overflow-wrap: anywhere; }
.scroll td { white-space: normal; }
"""


def check_page(report: CheckReport) -> str:
    """Return one HTML page that needs no other file."""
    faults = len(report.faults)
    notes = len(report.findings) - faults
    verdict = "No fault was found" if report.clean else f"{faults} fault{'s' * (faults != 1)}"
    lede = (
        f"{verdict}, {notes} note{'s' * (notes != 1)}; {len(report.passed)} checks passed, "
        f"{len(report.skipped)} were skipped ({report.seconds:.1f} seconds)."
    )
    title = f"Check of {report.target}"
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="lede">{lede}</p>']
    if report.findings:
        body += ["<h2>Found</h2>", *(_finding(finding) for finding in report.findings)]
    for heading, column, rows in (
        ("Passed", "what was seen", [(p.check, p.fact) for p in report.passed]),
        ("Skipped", "reason", [(s.check, s.reason) for s in report.skipped]),
    ):
        if rows:
            cells = [(html.escape(check), text) for check, text in rows]
            body += [f"<h2>{heading}</h2>", table(heading, ("check", column), cells)]
    return document(title, "\n".join(body), css=_OWN_CSS)


def _finding(finding: Finding) -> str:
    pairs = "".join(_pair(pair) for pair in finding.pairs)
    return (
        f'<section class="finding {finding.severity}"><h3>{html.escape(finding.check)} '
        f"<span>{finding.severity}</span></h3><p>{html.escape(finding.summary)}</p>{pairs}"
        f"<p><strong>Remedy.</strong> {html.escape(finding.remedy)}</p></section>"
    )


def _pair(pair: Pair) -> str:
    figures = "".join(
        f"<figure>{_picture(x, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for x, caption in zip((pair.first, pair.second), pair.captions, strict=True)
    )
    return f'<div class="pair">{figures}</div>'


def _picture(x: Tensor, caption: str) -> str:
    """Return an example as an HTML image, or nothing if it is no picture."""
    if x.ndim != 3 or len(x) not in (1, 3):
        return ""
    if x.is_floating_point():  # episodes hold pixels in [0, 1]
        x = (x * 255).round().clamp(0, 255).to(torch.uint8)
    return f'<img src="{image_uri(x)}" alt="{html.escape(caption, quote=True)}">'

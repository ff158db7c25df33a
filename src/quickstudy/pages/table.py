"""A table that scrolls sideways on a small screen."""

from __future__ import annotations

import html
from collections.abc import Sequence

from quickstudy.core.arguments import checked

__all__ = ["table"]


@checked
def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an HTML table.

    Args:
        title: description for screen readers, plain text.
        heads: names of the columns, plain text.
        rows: cells of each row; the first one names the row and is HTML, the others are plain text.
    """
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in rest)
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    label = html.escape(title, quote=True)
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="{label}">
<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"""

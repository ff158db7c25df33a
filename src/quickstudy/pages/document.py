"""The frame of a page that needs no other file."""

from __future__ import annotations

import html

from quickstudy.core.arguments import checked
from quickstudy.pages.style import CSS

__all__ = ["document"]

# tells the browser to load nothing from any address: the page carries all that it shows
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@checked
def document(title: str, body: str, *, css: str = "") -> str:
    """Return a whole HTML page.

    Args:
        title: plain text.
        body: HTML.
        css: rules of this page alone, added to the common style sheet.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        # by this mark storage/outputs knows a page that may be written over
        '<meta name="generator" content="quickstudy">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)} – Quickstudy</title><style>{CSS}{css}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )

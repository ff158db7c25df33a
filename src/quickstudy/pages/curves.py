"""A function as a regression learner sees it: its points, the mean, an interval, and the truth."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

__all__ = ["curve_chart", "standalone"]

_WIDTH, _HEIGHT = 480, 300  # in units of the drawing, which is scaled to the page
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 10, 10, 30

# what the page's style sheet gives otherwise
_STYLE = (
    ":root{--page:#fff;--text:#1d2125;--soft:#545d66;--rule:#d9dee3;--ours:#1f5fa8}"
    "text{fill:var(--soft);font:14px system-ui,sans-serif}"
    ".grid{stroke:var(--rule);stroke-width:1}"
    ".curve{fill:none;stroke:var(--ours);stroke-width:1.8;stroke-linejoin:round}"
)


def curve_chart(
    x: Sequence[float],
    mean: Sequence[float],
    interval: tuple[Sequence[float], Sequence[float]] | None,
    *,
    points: Sequence[tuple[float, float]],
    truth: Sequence[float] | None = None,
    label: str,
) -> str:
    """Return the drawing as SVG that takes its colours from the page.

    The mean is a solid line in a band, the interval; the truth is dashed, the points are dots.

    Args:
        x: inputs, ascending, at least two ``[N]``.
        mean: what the learner says of each ``[N]``.
        interval: lower and upper ends, each ``[N]``, or ``None`` if there is none.
        points: the support, as inputs and targets.
        truth: the function itself ``[N]``, if it is known.
        label: description for screen readers.
    """
    shown = [*(truth or mean), *(y for _, y in points)]
    # an interval may be far wider than the function: the frame holds what is true, and half more
    low, high = min([*shown, *mean]), max([*shown, *mean])
    room = 0.5 * max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-9)
    if interval is not None:
        low = min(low, max(min(interval[0]), low - room))
        high = max(high, min(max(interval[1]), high + room))
    low, high = low - 0.04 * room, high + 0.04 * room

    def px(value: float) -> float:
        return _LEFT + (value - x[0]) / (x[-1] - x[0]) * (_WIDTH - _LEFT - _RIGHT)

    def py(value: float) -> float:
        inside = min(max(value, low), high)
        return _HEIGHT - _BOTTOM - (inside - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(values: Sequence[float]) -> list[str]:
        return [f"{px(a):.1f},{py(b):.1f}" for a, b in zip(x, values, strict=True)]

    body = ""
    for tick in _ticks(low, high):
        body += f'<path class="grid" d="M{_LEFT} {py(tick):.1f}H{_WIDTH - _RIGHT}"/>'
        body += f'<text x="{_LEFT - 8}" y="{py(tick) + 5:.1f}" text-anchor="end">{tick:g}</text>'
    for tick in _ticks(x[0], x[-1]):
        body += f'<text x="{px(tick):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{tick:g}</text>'
    if interval is not None:
        band = " ".join(path(interval[0]) + path(interval[1])[::-1])
        body += f'<polygon points="{band}" fill="var(--ours)" fill-opacity="0.18"/>'
    if truth is not None:
        body += f'<polyline points="{" ".join(path(truth))}" fill="none" stroke="var(--text)" '
        body += 'stroke-width="1.4" stroke-dasharray="5 4"/>'
    body += f'<polyline class="curve" points="{" ".join(path(mean))}"/>'
    for a, b in points:
        body += f'<circle cx="{px(a):.1f}" cy="{py(b):.1f}" r="4.2" fill="var(--text)" '
        body += 'stroke="var(--page)" stroke-width="1.2"/>'
    text = html.escape(label, quote=True)
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg {size} role="img" aria-label="{text}">{body}</svg>'


def standalone(charts: Sequence[tuple[str, str]], *, columns: int = 2) -> str:
    """Return titled charts of :func:`curve_chart` as one SVG file.

    Args:
        charts: title and drawing of each.
        columns: charts beside each other.
    """
    rows, head = math.ceil(len(charts) / columns), 30
    width, height = columns * (_WIDTH + 20), rows * (_HEIGHT + head + 10)
    body = f'<rect width="{width}" height="{height}" fill="var(--page)"/>'
    for i, (title, chart) in enumerate(charts):
        left, top = i % columns * (_WIDTH + 20), i // columns * (_HEIGHT + head + 10)
        body += f'<text x="{left + _LEFT}" y="{top + 20}" fill="var(--text)">'
        body += f"{html.escape(title)}</text>"
        place = f'<svg x="{left}" y="{top + head}" width="{_WIDTH}" height="{_HEIGHT}" '
        body += chart.replace("<svg ", place, 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{_STYLE}</style>{body}</svg>\n'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two ends, at most six steps apart."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1.0, 2.0, 5.0, 10.0) if s * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]

"""Charts that compare learners: accuracies in rows, accuracy over shots, accuracy over cost.

All are inline SVG without scripts. Accuracies are fractions; half-widths are those of 95 %
intervals, NaN where there is none.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from functools import partial

__all__ = ["COLOURS", "legend", "lines_chart", "rows_chart", "scatter_chart"]

# Okabe and Ito (2008): people with colour blindness can tell these apart; shapes tell series with
# the same colour apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a800")
_SHAPES = ("circle", "square", "diamond", "triangle")
_WIDTH = 760  # in units of the drawing, which is scaled to the page


def legend(names: Sequence[str]) -> str:
    """Return a line of HTML that shows the mark of each name."""
    items = "".join(
        f'<span style="margin-right:1.2rem;white-space:nowrap">'
        f'<svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true" '
        f'style="display:inline;width:14px;vertical-align:-1px">{_mark(i, 7, 7)}</svg> '
        f"{html.escape(name)}</span>"
        for i, name in enumerate(names)
    )
    return f'<p class="soft">{items}</p>'


def rows_chart(
    rows: Sequence[str],
    series: Sequence[str],
    values: Sequence[Sequence[tuple[float, float] | None]],
    *,
    label: str,
) -> str:
    """Return accuracies with intervals: a row for each task list, a mark for each learner.

    Args:
        rows: names of the task lists.
        series: names of the learners.
        values: for each row, for each learner: accuracy and half-width, or ``None`` if unknown.
        label: description for screen readers.
    """
    left, top, step = 290, 8, 11 * len(series) + 16
    height = top + step * len(rows) + 34
    x = partial(_share_at, left)
    body = _share_grid(left, top, height - 34)
    for r, (name, marks) in enumerate(zip(rows, values, strict=True)):
        y0 = top + r * step
        body += f'<text class="value" x="{left - 12}" y="{y0 + step / 2 + 5:.1f}" '
        body += f'text-anchor="end">{html.escape(_short(name, 38))}</text>'
        if r:
            body += f'<path class="grid" d="M0 {y0}H{_WIDTH}"/>'
        for i, value in enumerate(marks):
            if value is None:
                continue
            mean, half = value
            y = y0 + 14 + 11 * i
            if not math.isnan(half):
                low, high = x(max(0.0, mean - half)), x(min(1.0, mean + half))
                body += f'<path class="whisker" d="M{low:.1f} {y}H{high:.1f}"/>'
            title = f"{series[i]}, {name}: {100 * mean:.2f} %"
            body += f"<g><title>{html.escape(title)}</title>{_mark(i, x(mean), y)}</g>"
    return _svg(height, label, body)


def lines_chart(
    shots: Sequence[float],
    series: Sequence[str],
    values: Sequence[Sequence[tuple[float, float] | None]],
    *,
    label: str,
) -> str:
    """Return accuracy against shots (logarithmic), a line for each learner.

    Args:
        shots: support examples per class, ascending, at least two.
        series: names of the learners.
        values: for each learner, for each number of shots: accuracy and half-width, or ``None`` if
            unknown.
        label: description for screen readers.
    """
    height, left, top, bottom = 330, 64, 12, 46
    logs = [math.log(s) for s in shots]

    def px(value: float) -> float:
        return left + 16 + (value - logs[0]) / (logs[-1] - logs[0]) * (_WIDTH - left - 40)

    low, ticks = _accuracy_axis(values)

    def py(value: float) -> float:
        return height - bottom - (value - low) / (1 - low) * (height - top - bottom)

    body = ""
    for tick in ticks:
        body += f'<path class="grid" d="M{left} {py(tick):.1f}H{_WIDTH - 8}"/>'
        body += f'<text x="{left - 8}" y="{py(tick) + 5:.1f}" text-anchor="end">{100 * tick:g} %'
        body += "</text>"
    for shot, at in zip(shots, logs, strict=True):
        body += f'<text x="{px(at):.1f}" y="{height - 24}" text-anchor="middle">{shot:g}</text>'
    body += (
        f'<text x="{_WIDTH / 2}" y="{height - 4}" text-anchor="middle">examples per class</text>'
    )
    for i, (name, line) in enumerate(zip(series, values, strict=True)):
        known = [(px(at), v) for at, v in zip(logs, line, strict=True) if v is not None]
        path = " ".join(f"{x:.1f},{py(v[0]):.1f}" for x, v in known)
        colour = COLOURS[i % len(COLOURS)]
        body += f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        for x, (mean, half) in known:
            if not math.isnan(half):
                body += f'<path class="whisker" d="M{x:.1f} {py(mean - half):.1f}V'
                body += f'{py(min(1.0, mean + half)):.1f}"/>'
            body += f"<g><title>{html.escape(name)}: {100 * mean:.2f} %</title>"
            body += f"{_mark(i, x, py(mean))}</g>"
    return _svg(height, label, body)


def scatter_chart(points: Sequence[tuple[str, float, float]], *, label: str, x_name: str) -> str:
    """Return accuracy against cost (logarithmic).

    Args:
        points: name, cost (positive) and accuracy as a fraction.
        label: description for screen readers.
        x_name: title of the cost axis, with its unit.
    """
    height, left, top, bottom = 340, 64, 12, 48
    logs = [math.log10(max(cost, 1e-12)) for _, cost, _ in points]
    first, last = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
    low, ticks = _accuracy_axis([[(y, 0.0) for _, _, y in points]])

    def px(value: float) -> float:
        return left + (value - first) / (last - first) * (_WIDTH - left - 24)

    def py(value: float) -> float:
        return height - bottom - (value - low) / (1 - low) * (height - top - bottom)

    body = ""
    for tick in ticks:
        body += f'<path class="grid" d="M{left} {py(tick):.1f}H{_WIDTH - 8}"/>'
        body += f'<text x="{left - 8}" y="{py(tick) + 5:.1f}" text-anchor="end">{100 * tick:g} %'
        body += "</text>"
    for power in range(first, last + 1):
        body += f'<path class="grid" d="M{px(power):.1f} {top}V{height - bottom}"/>'
        body += f'<text x="{px(power):.1f}" y="{height - bottom + 18}" text-anchor="middle">'
        body += f"{10.0**power:g}</text>"
    body += f'<text x="{_WIDTH / 2}" y="{height - 6}" text-anchor="middle">'
    body += f"{html.escape(x_name)}</text>"
    for i, ((name, cost, accuracy), at) in enumerate(zip(points, logs, strict=True)):
        title = f"{name}: {100 * accuracy:.2f} %, {cost:.3g}"
        body += f"<g><title>{html.escape(title)}</title>{_mark(i, px(at), py(accuracy), 6)}</g>"
    return _svg(height, label, body)


def _svg(height: float, label: str, body: str) -> str:
    text = html.escape(label, quote=True)
    return (
        f'<div class="broad"><svg viewBox="0 0 {_WIDTH} {height:g}" role="img" '
        f'aria-label="{text}">{body}</svg></div>'
    )


def _share_at(left: float, share: float) -> float:
    """Return where a fraction lies on the horizontal axis that starts at ``left``."""
    return left + share * (_WIDTH - left - 24)


def _share_grid(left: float, top: float, bottom: float) -> str:
    body = ""
    for percent in (0, 20, 40, 60, 80, 100):
        at = _share_at(left, percent / 100)
        body += f'<path class="grid" d="M{at:.1f} {top}V{bottom:.1f}"/>'
        body += f'<text x="{at:.1f}" y="{bottom + 22:.1f}" text-anchor="middle">{percent} %</text>'
    return body


def _accuracy_axis(
    values: Sequence[Sequence[tuple[float, float] | None]],
) -> tuple[float, list[float]]:
    """Return the lower end of an axis up to 100 %, and its ticks from the top down."""
    lowest = min(v[0] - (0 if math.isnan(v[1]) else v[1]) for line in values for v in line if v)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1) if (1 - lowest) / s <= 6), 0.2)
    # at least one step, also where every accuracy is 100 %
    low = max(0.0, min(math.floor(lowest / step + 1e-9) * step, 1 - step))
    count = round((1 - low) / step)
    return low, [round(1 - i * step, 4) for i in range(count + 1)]


def _mark(i: int, x: float, y: float, r: float = 4.5) -> str:
    """Return the mark of series ``i``: eight colours, then the next shape."""
    colour, shape = COLOURS[i % len(COLOURS)], _SHAPES[i // len(COLOURS) % len(_SHAPES)]
    style = f'fill="{colour}" stroke="var(--page)" stroke-width="1"'
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {style}/>'
    if shape == "square":
        return f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}" {style}/>'
    corners = [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)]
    if shape == "triangle":
        corners = [(0, -1.3), (1.2, 1), (-1.2, 1)]
    path = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{path}" {style}/>'


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

"""Charts and images as inline SVG, which take the font and colours of the page, light or dark."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from quickstudy.core.arguments import checked

__all__ = ["bar_chart", "embedding_map", "image_uri", "line_chart", "map_legend", "png_uri"]

_WIDTH = 340  # as wide as a phone; on a desktop panels stand side by side
_LEFT, _RIGHT = 44, 12  # margins of a chart: left for the ticks
_MOST_WITHOUT_TSNE = 8  # up to this many embeddings, principal components show as much as t-SNE
# readable on white and on black: each has a contrast of at least 3 against both
_COLOURS = (
    *("#0b7fab", "#c2571a", "#2f8f4e", "#8a63c9", "#c0398b"),
    *("#8a7a1e", "#4f79d6", "#d0453f", "#3a8a86", "#857266"),
)

_OTHER = "#9aa2aa"


def _svg(width: float, height: float, label: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{html.escape(label, quote=True)}">{body}</svg>'
    )


@checked
def image_uri(x: Tensor, *, ink: str | None = None) -> str:
    """Return an image as a ``data:`` address: dark ink on white, or coloured ink on nothing.

    Args:
        x: uint8 ``[channels, height, width]``; grey images have bright ink on black.
        ink: ``"#rrggbb"`` for coloured ink on a transparent ground, grey images only.
    """
    pixels = x.cpu().numpy()
    if ink is not None:
        rgb = [int(ink[i : i + 2], 16) for i in (1, 3, 5)]
        layers = [np.full_like(pixels[0], c) for c in rgb]
        image = Image.fromarray(np.stack([*layers, pixels[0]], 2), "RGBA")
    elif len(pixels) == 1:
        image = Image.fromarray(255 - pixels[0])
    else:
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return png_uri(buffer.getvalue())


@checked
def png_uri(data: bytes) -> str:
    """Return the ``data:`` address of an encoded PNG."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


# ---------------------------------------------------------------- curves


@checked
def line_chart(
    points: Sequence[tuple[float, float]], *, label: str, percent: bool, markers: bool
) -> str:
    """Return a line chart of ``(step, value)`` points.

    Args:
        points: at least one, in order of steps.
        label: description for screen readers.
        percent: values are fractions on a linear axis up to 100 %; otherwise the axis is
            logarithmic.
        markers: whether each point gets a dot.
    """
    height, top, bottom = 216, 12, 42
    steps = [p[0] for p in points]
    values = [p[1] if percent else max(p[1], 1e-6) for p in points]
    ticks = _percent_ticks(min(values)) if percent else _log_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def scale(value: float) -> float:
        return value if percent else math.log10(value)

    def px(step: float) -> float:
        return _LEFT + step / max(steps[-1], 1) * (_WIDTH - _LEFT - _RIGHT)

    def py(value: float) -> float:
        share = (scale(value) - scale(low)) / max(scale(high) - scale(low), 1e-9)
        return height - bottom - share * (height - top - bottom)

    body = ""
    for tick in ticks:
        text = f"{100 * tick:g} %" if percent else f"{tick:g}"
        body += f'<path class="grid" d="M{_LEFT} {py(tick):.1f}H{_WIDTH - _RIGHT}"/>'
        body += f'<text x="{_LEFT - 6}" y="{py(tick) + 4:.1f}" text-anchor="end">{text}</text>'
    for share in (0.0, 0.5, 1.0):
        step = round(share * steps[-1])
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        body += f'<text x="{px(step):.1f}" y="{height - 24}" text-anchor="{anchor}">{step:,}</text>'
    body += f'<text x="{px(steps[-1] / 2):.1f}" y="{height - 6}" text-anchor="middle">step</text>'
    line = " ".join(f"{px(s):.1f},{py(v):.1f}" for s, v in zip(steps, values, strict=True))
    body += f'<polyline class="curve" points="{line}"/>'
    if markers:
        for s, v in zip(steps, values, strict=True):
            body += f'<circle class="dot" cx="{px(s):.1f}" cy="{py(v):.1f}" r="3.5"/>'
    return _svg(_WIDTH, height, label, body)


def _percent_ticks(lowest: float) -> list[float]:
    step = next((s for s in (0.01, 0.02, 0.05, 0.1) if (1 - lowest) / s <= 5), 0.25)
    first = math.floor(lowest / step + 1e-9)
    return [round(i * step, 4) for i in range(first, round(1 / step) + 1)]


def _log_ticks(lowest: float, highest: float) -> list[float]:
    powers = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    for parts in ((1, 2, 5), (1,)):
        ticks = [round(m * 10.0**p, 6) for p in powers for m in parts]
        below = [t for t in ticks if t <= lowest][-1:] or ticks[:1]
        above = [t for t in ticks if t >= highest][:1] or ticks[-1:]
        inside = [t for t in ticks if below[0] <= t <= above[0]]
        if len(inside) <= 7:
            break
    return inside


# ---------------------------------------------------------------- bars


@checked
def bar_chart(rows: Sequence[tuple[str, str, str, float, float]], *, label: str) -> str:
    """Return horizontal bars from 0 to 100 % with their intervals.

    Args:
        rows: style (``"ours"``, ``"floor"``, ``"chance"``), name, value as it is printed, accuracy
            and half-width of its 95 % interval (0 for none), as fractions.
        label: description for screen readers.
    """
    row_height, right = 40, _WIDTH - 4
    body = ""
    for i, (style, name, value, mean, ci95) in enumerate(rows):
        y = i * row_height
        body += f'<text x="0" y="{y + 13}">{html.escape(name)}</text>'
        body += f'<text x="{right}" y="{y + 13}" text-anchor="end" class="value">{value}</text>'
        for kind, width in (("track", right), (style, mean * right)):
            body += f'<rect class="{kind}" y="{y + 18}" width="{width:.1f}" height="12" rx="2"/>'
        if ci95:
            low, high = (max(0.0, min(1.0, mean + s * ci95)) * right for s in (-1, 1))
            ends = "".join(f"M{end:.1f} {y + 20}v8" for end in (low, high))
            body += f'<path class="whisker" d="M{low:.1f} {y + 24}H{high:.1f}{ends}"/>'
    return _svg(_WIDTH, row_height * len(rows) - 6, label, body)


# ---------------------------------------------------------------- maps


@checked
def embedding_map(
    z: Tensor,
    classes: npt.NDArray[np.int64],
    *,
    seed: int,
    label: str,
    images: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> str:
    """Return a two-dimensional map of embeddings (t-SNE), each drawn as its own image or a dot.

    Args:
        z: embeddings ``[M, D]``; a few hundred at most.
        classes: class of each, numbered from 0 ``[M]``; each class has its colour. Below 0 = one
            of many other classes, grey.
        seed: of t-SNE.
        label: description for screen readers.
        images: uint8 ``[M, channels, height, width]``, or ``None`` for dots.
        names: tooltip of each embedding.
    """
    side = 14.0
    at = _layout(z, seed) * (_WIDTH - side)  # [M, 2]
    body = ""
    for i, ((x, y), c) in enumerate(zip(at.tolist(), classes.tolist(), strict=True)):
        colour = _COLOURS[c % len(_COLOURS)] if c >= 0 else _OTHER
        title = f"<title>{html.escape(names[i])}</title>" if names else ""
        if images is None:
            body += f'<circle cx="{x + side / 2:.1f}" cy="{y + side / 2:.1f}" r="4.5" '
            body += f'fill="{colour}">{title}</circle>'
            continue
        uri = image_uri(images[i], ink=colour if len(images[i]) == 1 else None)
        body += f'<image x="{x:.1f}" y="{y:.1f}" width="{side:g}" height="{side:g}" '
        body += f'href="{uri}">{title}</image>' if title else f'href="{uri}"/>'
    return _svg(_WIDTH, _WIDTH, label, body)


@checked
def map_legend(names: Sequence[str], *, others: str = "") -> str:
    """Return the colours of classes in :func:`embedding_map` as a list.

    Args:
        names: of the classes, numbered from 0; beyond ten classes the colours recur.
        others: name of the grey ones, if there are any.
    """
    entries = "".join(
        f'<li><svg width="12" height="12" aria-hidden="true"><circle cx="6" cy="6" r="4.5" '
        f'fill="{colour}"/></svg> {html.escape(name)}</li>'
        for colour, name in [
            *((_COLOURS[c % len(_COLOURS)], name) for c, name in enumerate(names)),
            *([(_OTHER, others)] if others else []),
        ]
    )
    return f'<ul class="legend">{entries}</ul>'


def _layout(z: Tensor, seed: int) -> npt.NDArray[np.float64]:
    """Return a place in the unit square for each embedding, ``[M, D] -> [M, 2]``."""
    # the sign of a principal component is arbitrary and differs between machines: its largest entry
    # is made positive, so that t-SNE starts, and ends, the same everywhere
    spread = z.double().cpu()
    spread = spread - spread.mean(0)
    _, _, axes = torch.linalg.svd(spread, full_matrices=False)
    strongest = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    first = (spread @ (axes * strongest).T)[:, :2].numpy()
    first = np.pad(first, ((0, 0), (0, 2 - first.shape[1])))  # embeddings of one number
    mapped = first
    if len(z) > _MOST_WITHOUT_TSNE:
        # imported here: scikit-learn takes a second
        from sklearn.manifold import TSNE

        perplexity = max(2.0, min(40.0, (len(z) - 1) / 4))
        # spread as widely as scikit-learn's own start by principal components
        start = (1e-4 * first / max(float(first[:, 0].std()), 1e-12)).astype(np.float32)
        mapped = TSNE(
            n_components=2, init=start, perplexity=perplexity, random_state=seed
        ).fit_transform(spread.numpy())
    low, high = mapped.min(0), mapped.max(0)
    placed: npt.NDArray[np.float64] = (mapped - low) / np.maximum(high - low, 1e-9)
    return placed

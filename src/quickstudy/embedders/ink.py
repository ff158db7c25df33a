"""Ink on paper, as it is photographed, scanned or drawn: made dark on clean white, and large.

Chosen on the validation characters of Omniglot's random split, 20-way 1-shot, with drawings printed
on grey paper under uneven light with a camera's noise: 48 % with the border's level alone, 92 %
with the paper's level at every place; a drawing on a third of its sheet: 49 %, cropped 95 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

__all__ = ["ink_on_white"]

_CLEAN = 8  # paper that is nearly white is left as it is: so are the images trained on
_FAINT = 0.5  # the darkest ink of a pencil on clean paper may be this light
_WORK = 160  # side in pixels at which paper is levelled
_COARSE = 56  # side at which the paper's level is looked for
_REACH = 0.12  # ... as far around a place, as a share of the side: wider than a stroke
_GRAIN = 0.4  # share of the darkest ink that the paper's grain may have
_SMALL, _FILL = 0.4, 0.75  # a drawing that fills less than the one is cropped to fill the other
_FRAMED = 128  # smaller images, as in data sets, are framed already

Ink = npt.NDArray[np.float64]


def ink_on_white(image: Image.Image) -> Image.Image:
    """Return a drawing as dark ink on a square white sheet.

    The paper's level is the middle value of the border; the ink lies on the side of it that reaches
    further, so chalk on a board is read like ink on paper. A clean drawing of usual size keeps its
    values. Grey or uneven paper is levelled, faint ink is darkened, and a drawing that is small on
    its sheet of 128 pixels or more is cropped.

    Args:
        image: mode ``"L"``, any size.
    """
    pixels = np.asarray(image)
    paper = float(np.median(_border(pixels)))
    low, high = float(pixels.min()), float(pixels.max())
    if high == low:
        return Image.new("L", (max(image.size),) * 2, 255)
    if paper - low <= high - paper:
        pixels, paper, low = 255 - pixels, 255 - paper, 255 - high
    image = _square(Image.fromarray(pixels), round(paper))
    framed = image.width < _FRAMED
    if paper >= 255 - _CLEAN:
        ink = 1 - np.asarray(image, dtype=np.float64) / 255
        darkest = float(ink.max())
        changed = 0 < darkest < _FAINT
        ink = ink / darkest if changed else ink
    else:
        ink, changed = _levelled(image), True
    cropped = None if framed else _cropped(ink)
    if cropped is not None:
        ink, changed = cropped, True
    return Image.fromarray(np.rint((1 - ink) * 255).astype(np.uint8)) if changed else image


def _border(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _square(image: Image.Image, paper: int) -> Image.Image:
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("L", (side, side), paper)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _levelled(image: Image.Image) -> Ink:
    """Return ink in [0, 1] of a drawing on grey paper that may lie in uneven light."""
    if image.width > _WORK:
        image = image.resize((_WORK, _WORK), Image.Resampling.BOX)
    side = image.width
    coarse = image.resize((_COARSE, _COARSE), Image.Resampling.BOX)
    reach = 2 * round(_REACH * _COARSE) + 1
    # the brightest value around is paper, wherever a stroke is thinner than that
    level = coarse.filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.MaxFilter(reach))
    level = level.filter(ImageFilter.GaussianBlur(reach / 2))
    paper = np.asarray(level.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
    smooth = image.filter(ImageFilter.GaussianBlur(side / 224))
    ink = np.clip(1 - np.asarray(smooth, dtype=np.float64) / np.maximum(paper, 1), 0, 1)
    # a few pixels are enough to be a stroke, one is a speck
    darkest = float(np.quantile(ink, 1 - max(0.002, min(0.5, 4 / side**2))))
    if darkest <= 0:
        return np.zeros_like(ink)
    levelled: Ink = np.clip((ink / darkest - _GRAIN) / (1 - _GRAIN), 0, 1)
    return levelled


def _cropped(ink: Ink) -> Ink | None:
    """Return the square around a small drawing, or ``None`` if it is not small."""
    strokes = ink > 0.5 * ink.max()
    rows, columns = (np.flatnonzero(strokes.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    if extent >= _SMALL * len(ink):
        return None
    side = round(extent / _FILL)
    padded = np.pad(ink, side)
    top, left = (round((at[0] + at[-1] + 1 - side) / 2) + side for at in (rows, columns))
    square: Ink = padded[top : top + side, left : left + side]
    return square

"""Characters of the world's scripts, rendered from fonts and deformed like handwriting.

The fonts that come with matplotlib are enough for more than a thousand classes, so meta-training
works on a machine without data and without a network.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from quickstudy.core import ConfigError, DataError, uniforms
from quickstudy.core.arguments import checked
from quickstudy.tasks.pool import Pool

__all__ = ["default_fonts", "glyph_split", "render_glyphs"]

_CANVAS = 64  # side of the canvas of an undeformed glyph, in pixels
_GLYPH_SIDE = 40  # longer side of the glyph on this canvas
_FONT_SIZE = 64
_GLYPHS_AT_ONCE = 1024
_SAME_SHAPE_COSINE = 0.93  # of two thumbnails, above which they count as one shape
_DIGIT_SHAPE_COSINE = 0.88  # of a thumbnail and a digit's, above which it is too close to a digit
_SPLIT_SEED = 20_160_613
_DIGIT_CATEGORIES = frozenset({"Nd", "Nl", "No"})  # Unicode's general categories of numbers
_DIGIT_SHAPES = "0123456789OoIl|"  # people write 0 as a ring and 1 as a bar
# patterns of dots, lines and hexagram bars: many classes that hardly differ
_REPETITIVE_BLOCKS = ((0x2500, 0x259F), (0x2800, 0x28FF), (0x4DC0, 0x4DFF), (0xA700, 0xA71F))

_FONTS = (
    *("DejaVuSans", "DejaVuSerif", "STIXGeneral", "DejaVuSansMono", "DejaVuSans-Oblique"),
    *("DejaVuSerif-Bold", "STIXGeneralItalic", "DejaVuSans-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneralBol", "cmr10", "cmss10", "cmti10", "cmtt10"),
)

Floats = npt.NDArray[np.float64]
_Glyphs = dict[int, list[npt.NDArray[np.uint8]]]


def default_fonts() -> list[Path]:
    """Return the fonts that come with matplotlib, the reference font first."""
    # imported here: matplotlib takes a third of a second
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / f"{name}.ttf" for name in _FONTS if (folder / f"{name}.ttf").is_file()]


@checked
def glyph_split(character: str) -> str:
    """Return the part of a character, which never changes: 70 % train, 15 % val, 15 % test."""
    draw = float(uniforms(_SPLIT_SEED, ord(character)))
    return "train" if draw < 0.7 else "val" if draw < 0.85 else "test"


@checked
def render_glyphs(
    *,
    size: int = 28,
    per_class: int = 20,
    fonts: Sequence[str | Path] | None = None,
    chars: Sequence[str] | None = None,
    categories: Sequence[str] = ("L", "S", "P"),
    digits: bool = False,
    split: str = "all",
    seed: int = 0,
) -> Pool:
    """Return a pool whose classes are characters, bright strokes on black.

    The examples of a class are the character in several fonts, each turned, scaled, sheared,
    shifted, bent elastically, made thicker or thinner and blurred. Of characters that look alike
    only one is kept. Digits and characters that look like digits are left out, so that tests on
    handwritten digits meet new shapes only.

    Args:
        size: height and width in pixels.
        per_class: examples per class.
        fonts: TrueType or OpenType files; those of matplotlib by default.
        chars: characters to render; by default all of ``categories`` that at least two fonts have.
        categories: beginnings of Unicode general categories: ``"L"`` for letters, ``"Sm"`` for
            mathematical symbols.
        digits: whether to keep digits and characters that look like them.
        split: ``"train"``, ``"val"`` or ``"test"`` (see :func:`glyph_split`), or ``"all"``.
        seed: of all randomness; an example depends on seed, character and its number only.

    Returns:
        Pool with ``x`` uint8 ``[M, 1, size, size]``; classes are named ``"U+0416 CYRILLIC ...
        ZHE"``.

    Raises:
        ConfigError: if an argument is not usable.
        DataError: if a font cannot be read or no character is left.

    Source: elastic deformation, Simard, Steinkraus and Platt (2003), section 2.
    *Difference from the paper*: the displacement noise is drawn on a grid with a spacing of one
    sigma, not on every pixel; its smoothing and its strength (up to alpha = 34, sigma = 4 at 29
    pixels) are the same.
    """
    if per_class < 1 or not 8 <= size <= 256:
        raise ConfigError(
            f"per_class must be at least 1 and size 8 to 256; got {per_class} and {size}."
        )
    if split not in ("train", "val", "test", "all"):
        raise ConfigError(f"split must be 'train', 'val', 'test' or 'all'; got {split!r}.")
    glyphs = _collect(fonts, chars, categories, digits)
    codes = [c for c in glyphs if split in ("all", glyph_split(chr(c)))]
    if not codes:
        raise DataError(
            "no character is left to render. Give more characters or fonts that have them."
        )
    x = _variants([glyphs[c] for c in codes], np.array(codes), size, per_class, seed)
    names = [_class_name(c) for c in codes for _ in range(per_class)]
    return Pool.build(x, names, name="glyphs", split=split)


def _class_name(code: int) -> str:
    return f"U+{code:04X} {unicodedata.name(chr(code), 'UNNAMED')}"


# ---------------------------------------------------------------- which characters


def _collect(
    fonts: Sequence[str | Path] | None,
    chars: Sequence[str] | None,
    categories: Sequence[str],
    digits: bool,
) -> _Glyphs:
    """Return, for each character that is kept, its normalised image in each font that has it."""
    paths = default_fonts() if fonts is None else [Path(font) for font in fonts]
    if not paths:
        raise ConfigError("fonts is empty. Give at least one font file.")
    maps = [_characters(path) for path in paths]
    known = sorted({ord(c) for c in chars} if chars is not None else set().union(*maps))
    wanted = [c for c in known if _is_wanted(c, categories if chars is None else ("",), digits)]
    least = 2 if chars is None and len(paths) > 1 else 1
    faces = [_face(path) for path in paths]
    glyphs: _Glyphs = {}
    # letters first: of two characters with one shape the letter is kept
    for code in sorted(wanted, key=lambda c: (unicodedata.category(chr(c))[0] != "L", c)):
        having = [face for face, found in zip(faces, maps, strict=True) if code in found]
        if len(having) < least:
            continue
        images = [image for face in having if (image := _normalised(face, chr(code))) is not None]
        unique = list({image.tobytes(): image for image in images}.values())
        if len(unique) >= least:
            glyphs[code] = unique
    references = [] if digits else [(face, c) for face in faces[:3] for c in _DIGIT_SHAPES]
    seen = [g for face, char in references if (g := _normalised(face, char)) is not None]
    return _distinct(glyphs, seen)


def _is_wanted(code: int, categories: Sequence[str], digits: bool) -> bool:
    """Return whether a character may become a class; ``""`` stands for all categories."""
    char = chr(code)
    category = unicodedata.category(char)
    # marks, control characters and spaces have no shape of their own
    if category[0] in "MCZ" or (not digits and (category in _DIGIT_CATEGORIES or _is_digit(char))):
        return False
    if "" in categories:
        return True
    repetitive = any(low <= code <= high for low, high in _REPETITIVE_BLOCKS)
    # a decomposition marks accented letters and styled copies: near-duplicates of their base letter
    return (
        category.startswith(tuple(categories))
        and not repetitive
        and not unicodedata.decomposition(char)
    )


def _is_digit(char: str) -> bool:
    """Return whether a character stands for a number, also inside a circle or in another style."""
    if unicodedata.numeric(char, None) is not None:
        return True
    return any(c.isdigit() for c in unicodedata.normalize("NFKD", char))


def _distinct(glyphs: _Glyphs, digits: Sequence[npt.NDArray[np.uint8]]) -> _Glyphs:
    """Keep one character of each shape: Latin, Greek and Cyrillic A are one class."""
    like_digit = np.stack([_thumbnail(d) for d in digits]) if digits else np.zeros((0, 256))
    kept: _Glyphs = {}
    shapes = np.zeros((len(glyphs), 256))
    for code, images in glyphs.items():
        shape = _thumbnail(images[0])
        near = float((shapes[: len(kept)] @ shape).max(initial=0.0))
        if (
            near > _SAME_SHAPE_COSINE
            or float((like_digit @ shape).max(initial=0.0)) > _DIGIT_SHAPE_COSINE
        ):
            continue
        shapes[len(kept)] = shape
        kept[code] = images
    return kept


def _thumbnail(image: npt.NDArray[np.uint8]) -> Floats:
    """Return a glyph as a unit vector of 16x16 values."""
    side = _CANVAS // 16
    blocks = image.reshape(16, side, 16, side).mean((1, 3)).ravel()  # [64, 64] -> [256]
    return np.asarray(blocks / np.linalg.norm(blocks))


def _characters(path: Path) -> set[int]:
    """Return the code points a font has a glyph for."""
    from matplotlib.ft2font import FT2Font

    try:
        charmap = FT2Font(str(path)).get_charmap()
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{path}: cannot be read as a font ({error}). Give a .ttf or .otf."
        ) from error
    codes = {code for code, glyph in charmap.items() if glyph != 0}
    if path.stem.startswith("cm"):  # Computer Modern maps only plain letters to the right glyphs
        codes = {code for code in codes if code < 128 and chr(code).isalpha()}
    return codes


def _face(path: Path) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(path), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read as a font ({error}). Give a .ttf or .otf."
        ) from error


def _normalised(face: ImageFont.FreeTypeFont, char: str) -> npt.NDArray[np.uint8] | None:
    """Return a glyph, centred and scaled to a longer side of ``_GLYPH_SIDE`` pixels, or ``None`` if
    it is blank."""
    left, top, right, bottom = (round(edge) for edge in face.getbbox(char))
    if right <= left or bottom <= top or max(right - left, bottom - top) > 16 * _FONT_SIZE:
        return None
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), char, fill=255, font=face)
    box = image.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = _GLYPH_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize(
        (width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    )
    canvas = np.zeros((_CANVAS, _CANVAS), np.uint8)
    y, x = (_CANVAS - height) // 2, (_CANVAS - width) // 2
    canvas[y : y + height, x : x + width] = np.asarray(image)
    return canvas if int(canvas.max()) >= 64 else None


# ---------------------------------------------------------------- deformed examples


def _variants(
    images: Sequence[Sequence[npt.NDArray[np.uint8]]],
    codes: npt.NDArray[Any],
    size: int,
    per_class: int,
    seed: int,
) -> Tensor:
    """Return uint8 ``[C * per_class, 1, size, size]``, the examples of a class side by side."""
    first = np.cumsum([0, *(len(faces) for faces in images)])[:-1]
    n_faces = np.array([len(faces) for faces in images])
    bases = torch.from_numpy(np.stack([image for faces in images for image in faces]))
    variant = np.tile(np.arange(per_class), len(codes))  # [M]
    owner = np.repeat(np.arange(len(codes)), per_class)  # [M]
    face = first[owner] + variant % n_faces[owner]  # the variants use the fonts in turn
    out = torch.empty(len(owner), 1, size, size, dtype=torch.uint8)
    starts = range(0, len(owner), _GLYPHS_AT_ONCE)
    for start in tqdm(starts, desc="rendering glyphs", delay=2, disable=None):
        rows = slice(start, start + _GLYPHS_AT_ONCE)
        base = bases[torch.from_numpy(face[rows])].float()[:, None] / 255  # [B, 1, 64, 64]
        counters = (codes[owner[rows], None], variant[rows, None])
        out[rows] = _deform(base, size, counters, seed)
    return out


def _deform(base: Tensor, size: int, counters: tuple[Any, Any], seed: int) -> Tensor:
    """Return deformed copies of glyphs: ``[B, 1, 64, 64] -> uint8 [B, 1, size, size]``."""
    side = 2 * size  # drawn at twice the resolution and halved at the end, for smooth edges
    draws = torch.from_numpy(uniforms(seed, *counters, 0, np.arange(9)[None])).float()  # [B, 9]
    grid = _affine_grid(draws, side) + _elastic(draws[:, 6], side, counters, seed)
    ink = F.grid_sample(base, grid, align_corners=False)  # [B, 1, side, side]
    ink = F.avg_pool2d(_thickness(ink, 2.3 * draws[:, 7] - 0.5), 2)  # [B, 1, size, size]
    ink = _blurred(ink, 2.0 * draws[:, 8])
    peak = ink.amax((2, 3), keepdim=True).clamp_min(
        1e-3
    )  # thin strokes stay as bright as thick ones
    return (ink / peak * 255).round().to(torch.uint8)


def _affine_grid(draws: Tensor, side: int) -> Tensor:
    """Return the positions in the glyph of all pixels, turned by up to 15 degrees, scaled, sheared,
    stretched and shifted: ``[B, 9] -> [B, side, side, 2]``."""
    angle = (2 * draws[:, 0] - 1) * (np.pi / 12)
    fill = 0.62 + 0.28 * draws[:, 1]  # the glyph's longer side, as a share of the image's side
    zoom = (_GLYPH_SIDE / _CANVAS) / fill
    stretch = torch.exp(0.2 * (2 * draws[:, 2] - 1))
    shear = 0.25 * (2 * draws[:, 3] - 1)
    shift = (2 * draws[:, 4:6] - 1) * 0.08  # as a share of half the side
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([zoom * stretch * cos, zoom * (shear - sin), shift[:, 0]], 1),
        torch.stack([zoom * sin, zoom / stretch * cos, shift[:, 1]], 1),
    ]
    theta = torch.stack(rows, 1)  # [B, 2, 3]
    grid: Tensor = F.affine_grid(theta, [len(draws), 1, side, side], align_corners=False)
    return grid


def _elastic(strength: Tensor, side: int, counters: tuple[Any, Any], seed: int) -> Tensor:
    """Return smooth random displacements of all pixels: ``[B] -> [B, side, side, 2]``."""
    sigma = 2 * 4.0 / 29  # 4 of 29 pixels, in coordinates from -1 to 1
    knots = torch.arange(-1 - sigma, 1 + 2 * sigma, sigma)
    n = len(knots)
    pixels = (torch.arange(side) + 0.5) * (2 / side) - 1
    weights = torch.exp(-0.5 * ((pixels[:, None] - knots) / sigma) ** 2)  # [side, n]
    weights = weights / weights.norm(dim=1, keepdim=True)
    noise = 2 * uniforms(seed, *counters, 1, np.arange(2 * n * n)[None]) - 1
    field = torch.from_numpy(noise * np.sqrt(3)).float().unflatten(1, (2, n, n))  # variance 1
    field = weights @ field @ weights.mT  # [B, 2, side, side], variance 1 everywhere
    # the standard deviation of the paper's displacements: uniform noise, smoothed by a Gaussian of
    # sigma = 4 pixels and multiplied by alpha = 34 pixels, at 29 pixels a side
    deviation = float(34 * np.sqrt(1 / 3) / (2 * np.sqrt(np.pi) * 4) * (2 / 29))
    offsets: Tensor = field * (deviation * strength)[:, None, None, None]
    return offsets.permute(0, 2, 3, 1)


def _thickness(ink: Tensor, amount: Tensor) -> Tensor:
    """Return thicker or thinner strokes: grey dilation by ``amount`` up to 2 pixels, or erosion
    below 0; fractions of a pixel blend two results."""
    amount = amount[:, None, None, None]
    once = F.max_pool2d(ink, 3, 1, 1)
    twice = F.max_pool2d(once, 3, 1, 1)
    thin = -F.max_pool2d(-ink, 3, 1, 1)
    ink = ink + amount.clamp(0, 1) * (once - ink) + (amount - 1).clamp(0, 1) * (twice - once)
    return ink + (-amount).clamp(0, 1) * (thin - ink)


def _blurred(ink: Tensor, amount: Tensor) -> Tensor:
    """Return the image after ``amount`` passes, up to two, of the binomial filter (1, 2, 1)."""
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line)[None, None]
    amount = amount[:, None, None, None]
    once = F.conv2d(ink, kernel, padding=1)
    twice = F.conv2d(once, kernel, padding=1)
    return ink + amount.clamp(0, 1) * (once - ink) + (amount - 1).clamp(0, 1) * (twice - once)

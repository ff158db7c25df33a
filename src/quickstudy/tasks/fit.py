"""Fit images of another data set to an encoder: channels, size, and bright or dark ink."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import DataError
from quickstudy.core.arguments import checked
from quickstudy.tasks.pool import Pool

__all__ = ["Invert", "fit_images", "fit_inputs", "looks_dark_on_light"]

Invert = Literal["auto", "yes", "no"]
_LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as Pillow's "L"
_PAPER_GRAIN = 16  # of 255: how far the brightness of plain paper varies
_PLAIN_SHARE = 1 / 3  # of an image
_IMAGES_AT_ONCE = 4096  # as floats they take four times the memory


@checked
def looks_dark_on_light(pool: Pool) -> bool:
    """Return whether most images are drawings: dark ink on plain paper that is light.

    Paper has the brightness of the border's median, which is above mid-grey, and a third of the
    image or more has this brightness: nearly all drawings and characters have such a plain ground,
    and less than half of the photographs with a light border (miniImageNet, CIFAR-FS, GTSRB).
    """
    x = pool.x.float().mean(1)  # [M, H, W]
    # the median: ink that touches the border does not decide
    border = torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], dim=1)
    paper = border.median(1).values
    plain = ((x - paper[:, None, None]).abs() < _PAPER_GRAIN).float().mean((1, 2)) > _PLAIN_SHARE
    return bool(((paper > 127.5) & plain).float().mean() > 0.5)


@checked
def fit_inputs(
    pool: Pool, *, channels: int, size: int, features: int | None, invert: Invert = "no"
) -> Pool:
    """Return the pool as an encoder takes it: vectors as they are, images by :func:`fit_images`.

    Args:
        pool: floating vectors ``[M, D]``, or images.
        channels: of images.
        size: of images, side in pixels.
        features: length of the vectors that the encoder takes; ``None`` = it takes images.
        invert: of images.

    Raises:
        DataError: if the encoder takes other inputs.
    """
    if features is None:
        return fit_images(pool, channels=channels, size=size, invert=invert)
    if pool.x.ndim != 2 or pool.x.shape[1] != features:
        vectors = pool.x.ndim == 2
        what = f"vectors of {pool.x.shape[1]} numbers" if vectors else "images"
        raise DataError(
            f"{pool.name} holds {what}, and the encoder takes vectors of {features} numbers. Give "
            "it data like that it was trained on."
        )
    return pool


@checked
def fit_images(pool: Pool, *, channels: int, size: int, invert: Invert = "no") -> Pool:
    """Return the pool with images ``[M, channels, size, size]`` uint8.

    Args:
        pool: uint8 images ``[M, 1 or 3, height, width]``.
        channels: 1 (colour becomes luma, ITU-R BT.601) or 3 (grey is repeated).
        size: side in pixels; resized with an antialiased bilinear filter if it differs.
        invert: ``"yes"`` turns dark ink on light paper into bright ink on black, as the character
            data sets have it; ``"auto"`` does so if most images have a light border.

    Raises:
        DataError: if the pool holds no uint8 images of 1 or 3 channels.
    """
    x = pool.x
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.dtype != torch.uint8:
        raise DataError(
            f"{pool.name} holds {str(x.dtype).removeprefix('torch.')} {list(x.shape[1:])}, not "
            "images of 1 or 3 channels. Choose an encoder for such inputs."
        )
    if x.shape[1] == 3 and channels == 1:
        weights = torch.tensor(_LUMA_WEIGHTS)[:, None, None]
        parts = x.split(_IMAGES_AT_ONCE)
        x = torch.cat([_to_uint8((part * weights).sum(1, keepdim=True)) for part in parts])
    elif x.shape[1] == 1 and channels == 3:
        x = x.expand(-1, 3, -1, -1).contiguous()
    if tuple(x.shape[2:]) != (size, size):
        x = torch.cat(
            [
                _to_uint8(
                    F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
                )
                for part in x.split(_IMAGES_AT_ONCE)
            ]
        )
    fitted = replace(pool, x=x)
    if invert == "yes" or (invert == "auto" and looks_dark_on_light(fitted)):
        return replace(fitted, x=255 - x)
    return fitted


def _to_uint8(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)

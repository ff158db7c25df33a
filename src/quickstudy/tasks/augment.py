"""Augmentation of images: a small random affine map for each image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import uniforms

__all__ = ["AffineJitter"]


@dataclass(frozen=True, slots=True)
class AffineJitter:
    """A random rotation, scale, shear and shift for each image, and a mirror image if asked for.

    Args:
        degrees: rotation is uniform in ``[-degrees, degrees]``.
        scale: each axis is scaled by a factor uniform in ``[1 - scale, 1 + scale]``.
        shear: uniform in ``[-shear, shear]``.
        shift: uniform in ``[-shift, shift]`` of half the image's side, on each axis.
        flip: mirror left and right with probability one half.
        brightness: each image is multiplied by a factor uniform in ``[1 - brightness, 1 + brightness]``.
    """

    degrees: float = 10.0
    scale: float = 0.12
    shear: float = 0.15
    shift: float = 0.1
    flip: bool = False
    brightness: float = 0.0

    def __call__(self, x: Tensor, draws: npt.NDArray[np.uint64]) -> Tensor:
        """Return the jittered images; outside is 0 for one channel, the border repeated for more.

        Args:
            x: images ``[B, channels, height, width]``, floating.
            draws: one random 64-bit key for each image ``[B]``.

        Returns:
            Images of the same shape.
        """
        u = torch.from_numpy(uniforms(0, draws[None].view(np.int64), np.arange(8)[:, None]))
        u = (2 * u - 1).to(x)  # [8, B] in [-1, 1)
        angle = u[0] * math.radians(self.degrees)
        across = 1 + self.scale * u[1]
        if self.flip:
            across = across * torch.where(u[6] < 0, -1.0, 1.0)
        along, shear = 1 + self.scale * u[2], self.shear * u[3]
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack(
            [
                torch.stack([cos * across, shear - sin * along, self.shift * u[4]], dim=1),
                torch.stack([sin * across, cos * along, self.shift * u[5]], dim=1),
            ],
            dim=1,
        )  # [B, 2, 3]
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        # padding with 0 for ink on black; photographs repeat their border instead of a black frame
        padding = "zeros" if x.shape[1] == 1 else "border"
        moved = F.grid_sample(x, grid, padding_mode=padding, align_corners=False)
        if self.brightness:
            moved = moved * (1 + self.brightness * u[7])[:, None, None, None]
        return moved

"""Augmentation of images: random affine maps, for each image and for each class of a task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import uniforms

__all__ = ["AffineJitter", "compose", "warp"]

Draws = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class AffineJitter:
    """Random rotation, scale, shear and shift of images, and if asked for mirroring and brightness.

    Args:
        degrees: rotation is uniform in ``[-degrees, degrees]``.
        scale: each axis is scaled by a factor uniform in ``[1 - scale, 1 + scale]``.
        shear: uniform in ``[-shear, shear]``.
        shift: uniform in ``[-shift, shift]`` of half the image's side, on each axis.
        flip: mirror left and right with probability one half.
        brightness: pixels are multiplied by a factor uniform in ``[1 - brightness, 1 +
            brightness]``.

    Example::

        jitter = AffineJitter(degrees=20, flip=True)
        images = torch.rand(4, 3, 32, 32)
        moved = jitter(images, keys(0, range(4)))  # [4, 3, 32, 32]
        source = AugmentedSource(PoolSource(load_pool("digits")), jitter)
    """

    degrees: float = 10.0
    scale: float = 0.12
    shear: float = 0.15
    shift: float = 0.1
    flip: bool = False
    brightness: float = 0.0

    def __call__(self, x: Tensor, draws: Draws, *, outer: Tensor | None = None) -> Tensor:
        """Return the jittered images.

        Args:
            x: images ``[B, channels, height, width]``, floating.
            draws: one random 64-bit key for each image ``[B]``.
            outer: maps ``[B, 2, 3]`` composed with the random ones, so that pixels are looked up
                once.
        """
        theta = self.theta(draws)
        moved = warp(x, theta if outer is None else compose(outer, theta))
        if self.brightness:
            moved = moved * self.gain(draws).to(x)[:, None, None, None]
        return moved

    def theta(self, draws: Draws) -> Tensor:
        """Return affine maps ``[B, 2, 3]``, from positions in the output to positions in the input.

        Args:
            draws: one random 64-bit key for each map ``[B]``.
        """
        u = self._uniforms(draws)  # each row is one independent decision
        angle = u[0] * math.radians(self.degrees)
        across, along, shear = 1 + self.scale * u[1], 1 + self.scale * u[2], self.shear * u[3]
        if self.flip:
            across = across * torch.where(u[6] < 0, -1.0, 1.0)
        cos, sin = angle.cos(), angle.sin()
        rows = [
            torch.stack([cos * across, shear - sin * along, self.shift * u[4]], dim=1),
            torch.stack([sin * across, cos * along, self.shift * u[5]], dim=1),
        ]
        return torch.stack(rows, dim=1)  # [B, 2, 3]

    def gain(self, draws: Draws) -> Tensor:
        """Return brightness factors ``[B]``."""
        return 1 + self.brightness * self._uniforms(draws)[7]

    @staticmethod
    def _uniforms(draws: Draws) -> Tensor:
        """Return eight numbers in [-1, 1) for each key ``[8, B]``."""
        u = uniforms(0, draws[None].view(np.int64), np.arange(8)[:, None])
        return torch.from_numpy(2 * u - 1).float()


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the affine map ``[B, 2, 3]`` that applies ``inner`` first and then ``outer``."""
    linear = outer[..., :2]
    shift = linear @ inner[..., 2:] + outer[..., 2:]
    return torch.cat([linear @ inner[..., :2], shift], dim=-1)


def warp(x: Tensor, theta: Tensor) -> Tensor:
    """Return images moved by affine maps, one bilinear look-up per pixel.

    Outside the image pixels are 0 if there is one channel (ink on black); with more channels
    (photographs) the border is repeated.

    Args:
        x: images ``[B, channels, height, width]``, floating.
        theta: maps ``[B, 2, 3]``, from positions in the output to positions in the input.
    """
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)
    padding = "zeros" if x.shape[1] == 1 else "border"
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=False)

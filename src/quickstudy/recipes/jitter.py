"""Random warps of training images in a recipe."""

from __future__ import annotations

from pydantic import Field

from quickstudy.recipes.base import Frozen
from quickstudy.tasks import AffineJitter

__all__ = ["JitterConfig"]


class JitterConfig(Frozen):
    """Random affine maps of training images, see :class:`quickstudy.tasks.AffineJitter`.

    Args:
        degrees: rotation is uniform in ``[-degrees, degrees]``.
        scale: each axis is scaled by a factor uniform in ``[1 - scale, 1 + scale]``.
        shear: uniform in ``[-shear, shear]``.
        shift: uniform in ``[-shift, shift]`` of half the image's side, on each axis.
        flip: mirror left and right with probability one half.
        brightness: pixels are multiplied by a factor uniform in ``[1 - brightness, 1 +
            brightness]``.

    Example::

        data = ImageData(name="cifar-fs", jitter=JitterConfig(degrees=5, flip=True))
        recipe = override(get_recipe("cifar-fs-protonet"), ["data.jitter.degrees=5"])
        moved = data.jitter.build()(torch.rand(4, 3, 32, 32), keys(0, range(4)))  # [4, 3, 32, 32]
    """

    degrees: float = Field(10.0, ge=0)
    scale: float = Field(0.12, ge=0, lt=1)
    shear: float = Field(0.15, ge=0)
    shift: float = Field(0.1, ge=0)
    flip: bool = False
    brightness: float = Field(0.0, ge=0, lt=1)

    def build(self) -> AffineJitter:
        """Return the augmentation."""
        return AffineJitter(**self.model_dump())

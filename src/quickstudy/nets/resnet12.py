"""ResNet-12: the residual network of the few-shot papers."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.nets.encoder import Encoder
from quickstudy.nets.norm import NormContext, build_norm, under_vmap

__all__ = ["ResNet12"]


class _ResidualBlock(nn.Module):
    """Three 3x3 convolutions with a 1x1 shortcut, then 2x2 max-pooling."""

    def __init__(self, inputs: int, outputs: int, norm: str, name: str) -> None:
        super().__init__()
        widths = [inputs, outputs, outputs, outputs]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(build_norm(norm, outputs, name=f"{name}.{i}") for i in range(3))
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.shortcut_norm = build_norm(norm, outputs, name=f"{name}.shortcut")

    def forward(self, x: Tensor, context: NormContext) -> Tensor:
        z = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            z = norm(conv(z), context)
            if i < 2:
                z = F.leaky_relu(z, 0.1)
        z = z + self.shortcut_norm(self.shortcut(x), context)
        return F.leaky_relu(F.max_pool2d(z, 2), 0.1)


@checked
class ResNet12(Encoder):
    """Four residual blocks of three convolutions, then global average pooling.

    Oreshkin et al. (2018), "TADAM", section 4; the widths 64-160-320-640 are those of Lee et al.
    (2019), "MetaOptNet", section 4.1.

    Args:
        in_channels: 1 for greyscale, 3 for colour.
        image_size: side of the square input.
        widths: channels of the four blocks.
        norm: ``"batch"`` (frozen at test), ``"group"`` or ``"support"``.

    *Difference from the paper*: no DropBlock; global average pooling instead of flattening.

    Raises:
        ConfigError: if the image is too small or there are not four widths.

    Example::

        encoder = ResNet12(image_size=32, widths=(16, 32, 64, 128))
        images = torch.rand(1, 5, 3, 32, 32)
        z, _ = encoder.encode(images)  # [1, 5, 128]
        learner = MatchingNetwork(encoder)
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 84,
        widths: tuple[int, int, int, int] = (64, 160, 320, 640),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if image_size < 16 or len(widths) != 4:
            raise ConfigError(
                f"ResNet-12 needs image_size >= 16 and four widths; got {image_size} and "
                f"{list(widths)}."
            )
        inputs = [in_channels, *widths]
        self.blocks = nn.ModuleList(
            _ResidualBlock(a, b, norm, f"block{i}") for i, (a, b) in enumerate(pairwise(inputs))
        )
        self._in_shape = (in_channels, image_size, image_size)
        self.out_features = widths[-1]
        self.episodic = norm == "support"
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one input, ``(channels, height, width)``."""
        return self._in_shape

    def features(self, x: Tensor, context: NormContext) -> Tensor:
        """Return embeddings ``[B, D]`` of images ``[B, channels, height, width]``."""
        if not under_vmap(x):
            x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, context)
        return x.mean((2, 3))  # [B, D, h, w] -> [B, D]

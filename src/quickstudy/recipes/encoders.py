"""The encoder of a recipe: its configuration, and the network that it describes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quickstudy.nets import MLP, Conv4, Encoder, ResNet12
from quickstudy.recipes.base import Frozen

__all__ = ["EncoderConfig", "build_encoder"]


class EncoderConfig(Frozen):
    """Which network embeds the inputs.

    Args:
        kind: ``"conv4"``, ``"resnet12"`` or ``"mlp"``.
        image_size: side of the square input in pixels.
        in_channels: 1 for greyscale, 3 for colour.
        channels: width of Conv-4, or of each layer of the MLP.
        norm: ``"batch"`` (running averages), ``"group"``, or ``"support"`` (statistics of the
            task's support).
        downsample: of Conv-4: ``"pool"`` (max-pooling) or ``"stride"`` (strided convolutions).
        in_features: length of the input vectors of the MLP; ``None`` = its inputs are images.

    Example::

        config = EncoderConfig(kind="conv4", image_size=28, in_channels=1, channels=64)
        encoder = build_encoder(config)
        z = encoder.encode(torch.rand(1, 5, 1, 28, 28))[0]  # [1, 5, 64]
        encoder.out_features
    """

    kind: Literal["conv4", "resnet12", "mlp"] = "conv4"
    image_size: int = Field(28, ge=8)
    in_channels: Literal[1, 3] = 1
    channels: int = Field(64, ge=1)
    norm: Literal["batch", "group", "support"] = "batch"
    downsample: Literal["pool", "stride"] = "pool"
    in_features: int | None = Field(None, ge=1)


def build_encoder(config: EncoderConfig) -> Encoder:
    """Return the network of a configuration, with fresh weights."""
    c = config
    if c.kind == "conv4":
        return Conv4(
            in_channels=c.in_channels,
            image_size=c.image_size,
            channels=c.channels,
            norm=c.norm,
            downsample=c.downsample,
        )
    if c.kind == "resnet12":
        return ResNet12(in_channels=c.in_channels, image_size=c.image_size, norm=c.norm)
    image = (c.in_channels, c.image_size, c.image_size)
    shape = image if c.in_features is None else (c.in_features,)
    return MLP(shape, (c.channels, c.channels), last_activation=c.in_features is not None)

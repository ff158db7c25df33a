"""The encoder of a recipe: its configuration, and the network that it describes."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from quickstudy.core.arguments import checked
from quickstudy.nets import MLP, Conv4, Encoder, Identity, ResNet12
from quickstudy.recipes.base import Frozen

__all__ = ["EncoderConfig", "build_encoder"]

# far above every use, and far below what fills the memory of a machine before an error is seen
_MOST_WEIGHTS, _MOST_FEATURES, _LARGEST_SIDE = 1_000_000_000, 10_000_000, 4096


class EncoderConfig(Frozen):
    """Which network embeds the inputs.

    Args:
        kind: ``"conv4"``, ``"resnet12"``, ``"mlp"``, or ``"pixels"``: no network, the numbers of
            the input as they are.
        image_size: side of the square input in pixels.
        in_channels: 1 for greyscale, 3 for colour.
        channels: width of Conv-4, or of each layer of the MLP.
        norm: ``"batch"`` (running averages), ``"group"``, or ``"support"`` (statistics of the
            task's support).
        downsample: of Conv-4: ``"pool"`` (max-pooling) or ``"stride"`` (strided convolutions).
        in_features: length of the input vectors of the MLP, or of ``"pixels"``; ``None`` = inputs
            are images.
        standardise: of the MLP: whether each number of the input is brought to mean 0 and standard
            deviation 1 over the training examples, as columns of a table need it.

    Example::

        config = EncoderConfig(kind="conv4", image_size=28, in_channels=1, channels=64)
        encoder = build_encoder(config)
        z = encoder.encode(torch.rand(1, 5, 1, 28, 28))[0]  # [1, 5, 64]
        encoder.out_features
    """

    kind: Literal["conv4", "resnet12", "mlp", "pixels"] = "conv4"
    image_size: int = Field(28, ge=8, le=_LARGEST_SIDE)
    in_channels: Literal[1, 3] = 1
    channels: int = Field(64, ge=1)
    norm: Literal["batch", "group", "support"] = "batch"
    downsample: Literal["pool", "stride"] = "pool"
    in_features: int | None = Field(None, ge=1, le=_MOST_FEATURES)
    standardise: bool = False

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``standardise`` out where it is off, as in the documents of older runs."""
        return {n: v for n, v in handler(self).items() if n != "standardise" or v}

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        """Refuse a network that no machine could hold, before memory is asked for."""
        inputs = (
            self.in_channels * self.image_size**2 if self.in_features is None else self.in_features
        )
        weights = {
            "conv4": 9 * self.channels * (self.in_channels + 3 * self.channels),
            "mlp": self.channels * (inputs + self.channels),
            "resnet12": 0,  # of fixed width
            "pixels": 0,
        }[self.kind]
        if weights > _MOST_WEIGHTS:
            raise ValueError(
                f"a {self.kind} of this size has {weights:,} weights, and {_MOST_WEIGHTS:,} are "
                "the most. Lower encoder.channels"
            )
        return self


@checked
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
    if c.kind == "pixels":
        return Identity(shape)
    widths = (c.channels, c.channels)
    below_head = c.in_features is not None
    return MLP(shape, widths, last_activation=below_head, standardise=c.standardise)

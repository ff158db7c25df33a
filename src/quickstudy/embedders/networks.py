"""Networks inside embedders: run in evaluation mode, and identified by a hash of their weights."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import DataError
from quickstudy.nets import Encoder
from quickstudy.storage.tensors import hash_tensors

__all__ = [
    "Held",
    "ManyViews",
    "Network",
    "PlainEncoder",
    "affine_warp",
    "hash_of",
    "module_output",
    "weights_hash",
]


class PlainEncoder(nn.Module):
    """An encoder of ours, which takes tasks ``[T, B, ...]``, as a module ``[B, ...] -> [B, D]``.

    Example::

        from quickstudy.embedders.networks import PlainEncoder
        net = PlainEncoder(Conv4(channels=16, norm="group")).eval()
        z = net(torch.rand(4, 1, 28, 28))  # [4, 16]
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings ``[B, D]``."""
        return self.encoder.encode(x[None])[0][0]  # one task: [1, B, ...] -> [1, B, D]


class ManyViews(nn.Module):
    """The mean of a network's embeddings of an image and of warped copies of it.

    A drawing that is turned a little is still the same character, and the mean of several
    embeddings varies less than each of them: test-time augmentation (Krizhevsky, Sutskever and
    Hinton 2012, section 4.1, for crops).

    Args:
        net: ``[B, C, H, W] -> [B, D]``.
        warps: affine maps from places in the output to places in the input ``[V, 2, 3]``; lengths
            are in half sides of the image.

    Example::

        from quickstudy.embedders.networks import ManyViews, PlainEncoder, affine_warp
        warps = torch.stack([affine_warp(10, 0.9, 0.1, 0, 0), affine_warp(-10, 1.1, -0.1, 0, 0)])
        net = ManyViews(PlainEncoder(Conv4(channels=16, norm="group")), warps).eval()
        z = net(torch.rand(4, 1, 28, 28))  # [4, 16]
    """

    warps: Tensor

    def __init__(self, net: nn.Module, warps: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("warps", warps)

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings ``[B, D]``."""
        total: Tensor = self.net(x)
        for warp in self.warps.to(x):
            # x.shape[0], not len(x): a traced graph would be fixed to that number of images
            maps = warp.expand(x.shape[0], 2, 3)
            places = F.affine_grid(maps, list(x.shape), align_corners=False)
            total = total + self.net(F.grid_sample(x, places, align_corners=False))
        return total / (1 + len(self.warps))


def affine_warp(degrees: float, scale: float, shear: float, left: float, up: float) -> Tensor:
    """Return one warp ``[2, 3]`` of :class:`ManyViews`.

    Args:
        degrees: by which the image is turned.
        scale: factor by which it becomes larger.
        shear: share of their height by which columns are moved.
        left: share of half a side by which the scaled image is moved.
        up: share of half a side by which the scaled image is moved.
    """
    c, s = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    return torch.tensor([[c, shear - s, left], [s, c, up]])


def weights_hash(module: nn.Module) -> str:
    """Return the sha256 over names, types, shapes and values of all weights and buffers."""
    hasher = sha256()
    hash_tensors(hasher, module.state_dict())
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class Network:
    """The part of an embedder that an exported graph contains.

    Args:
        net: ``[B, *shape] -> [B, D]``, in evaluation mode on the CPU; ``None`` = the inputs are the
            embeddings.
        shape: of one input.
        about: how a user makes such an input, in one line.
        unit: whether embeddings are divided by their length.

    Example::

        network = module_embedder(Conv4(channels=16, norm="group")).network()
        z = network.net(torch.rand(4, *network.shape))  # [4, 16]
        print(network.about)
    """

    net: nn.Module | None
    shape: tuple[int, ...]
    about: str
    unit: bool = False


class Held:
    """A function without arguments that returns a network which is in memory already.

    It is a class because a function inside a function cannot be pickled.

    Args:
        net: the network.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    def __call__(self) -> nn.Module:
        """Return the network."""
        return self._net


def module_output(net: nn.Module, x: Tensor, name: str) -> Tensor:
    """Return the embeddings ``[B, D]`` of a batch, without changing the network's mode.

    Args:
        net: ``[B, ...] -> [B, D]``.
        x: inputs ``[B, ...]``.
        name: of the network, for errors.

    Raises:
        DataError: if the network fails, or returns another shape.
    """
    try:
        with _in_evaluation_mode(net), torch.inference_mode():
            z = net(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name} failed on inputs of shape {list(x.shape)}: {reason}. Check size and channels."
        ) from error
    if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(x) or not z.shape[1]:
        got = list(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise DataError(
            f"{name} returned {got} for {len(x)} inputs; an embedding needs [{len(x)}, D]. End the "
            "network with pooling and flattening."
        )
    return z


_modes_lock = threading.Lock()
# by id of the network: how many threads run it, and the mode of each module before the first one
_in_use: dict[int, tuple[int, list[tuple[nn.Module, bool]]]] = {}


@contextmanager
def _in_evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Keep a network in evaluation mode as long as any thread runs it.

    The first thread notes the modes of all modules, and the last one puts them back: otherwise a
    thread that ends would switch the network to training mode under another one.
    """
    with _modes_lock:
        users, modes = _in_use.get(id(net), (0, []))
        if not users:
            modes = [(module, module.training) for module in net.modules()]
            net.eval()
        _in_use[id(net)] = users + 1, modes
    try:
        yield
    finally:
        with _modes_lock:
            users, modes = _in_use[id(net)]
            if users > 1:
                _in_use[id(net)] = users - 1, modes
            else:
                del _in_use[id(net)]
                for module, training in modes:
                    module.training = training


def hash_of(document: dict[str, Any]) -> str:
    """Return the sha256 of a JSON document."""
    return sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

"""Encoders that the user brings: any module, any function, or embeddings that are there already."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from quickstudy.core import ConfigError, DataError
from quickstudy.core.values import is_frame
from quickstudy.embedders.base import Embedder, FixedEmbedder, Item, Vectors
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.images import ImageEmbedder, Transform
from quickstudy.embedders.inputs import content_key, numeric_rows, read_images, read_texts, rows_of
from quickstudy.embedders.networks import (
    Held,
    Network,
    PlainEncoder,
    hash_of,
    module_output,
    weights_hash,
)
from quickstudy.nets import Encoder

__all__ = ["ArrayEmbedder", "CallableEmbedder", "ModuleEmbedder", "module_embedder"]

_VERSION = 1


def _array_items(X: Any, *, what: str) -> list[Item]:
    """Return the rows of a numeric array as items; every number must be finite."""
    array = numeric_rows(X, what=what)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DataError(f"row {row}: a number is NaN or inf. Correct it or leave the row out.")
    labels: list[str | None] = [None] * len(array)
    if is_frame(X) and type(X.index).__name__ != "RangeIndex":
        labels = [str(label) for label in X.index]
    return [
        Item(row, content_key("array", f"{row.dtype.str}{row.shape}".encode(), row.tobytes()), name)
        for row, name in zip(np.ascontiguousarray(array), labels, strict=True)
    ]


def _stack(values: Sequence[Any], names: Sequence[str]) -> npt.NDArray[Any]:
    for name, value in zip(names, values, strict=True):
        if value.shape != values[0].shape:
            raise DataError(
                f"{name} has shape {list(value.shape)}, others have {list(values[0].shape)}. Give "
                "examples of one shape."
            )
    return np.stack(values)


def _as_input(array: npt.NDArray[Any]) -> Tensor:
    """Return what a module takes: 8-bit numbers become parts of one."""
    x = torch.from_numpy(array)
    return x.float() / 255 if x.dtype == torch.uint8 else x


class ArrayEmbedder(Embedder):
    """Embeddings that are there already: the rows of an array ``[N, D]``, as they are.

    It is ``fitted`` only in that the support set says how long an embedding is.

    Args:
        dim: length of an embedding; ``None`` = what the support set has.
    """

    modality = "array"
    name = "array"
    fitted = True

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(None)
        self._dim = dim

    @property
    def fingerprint(self) -> str:
        """sha256 over the length and version."""
        return hash_of({"version": _VERSION, "kind": "array", "dim": self._dim})

    @property
    def dim(self) -> int:
        """The length of an embedding."""
        if self._dim is None:
            raise ConfigError("the length of the embeddings is not known yet. Call fit(items).")
        return self._dim

    def read(self, X: Any) -> list[Item]:
        """Return the rows of an array ``[N, D]``."""
        array = numeric_rows(X, what="embeddings")
        if array.ndim != 2 or self._dim not in (None, array.shape[1]):
            raise DataError(
                f"embeddings have shape [N, {self._dim or 'D'}]; got {list(array.shape)}. Give one "
                "row per example."
            )
        with np.errstate(over="ignore"):  # becomes infinite, and is refused as that
            return _array_items(array.astype(np.float32), what="embeddings")

    def fit(self, items: Sequence[Item]) -> Self:
        """Return the embedder of rows as long as these."""
        if not items:
            raise DataError("got no embeddings. Give at least one.")
        return type(self)(len(items[0].value))

    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return the rows."""
        return np.asarray(_stack(values, names), dtype=np.float32)

    def config(self) -> dict[str, Any]:
        """Return JSON from which ``get_embedder`` makes this embedder again."""
        return {"encoder": "array", "dim": self._dim, "fingerprint": self.fingerprint}

    def preview(self, item: Item) -> bytes | str | None:
        """Return what was kept: numbers show nothing to people."""
        return item.preview


class _Own(FixedEmbedder):
    """What the user brings: its code cannot be seen, so embeddings are remembered by this object
    only, and how long they are is known after the first."""

    modality = "array"

    def __init__(self, name: str) -> None:
        super().__init__(EmbeddingCache(disk=False))
        self.name = name
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """The length of an embedding, known after the first."""
        if self._dim is None:
            raise ConfigError(f"{self.name} has embedded nothing yet. Embed an example first.")
        return self._dim

    def preview(self, item: Item) -> bytes | str | None:
        """Return the beginning of a text, or what was kept: numbers show nothing to people."""
        return item.preview


class CallableEmbedder(_Own):
    """A function ``f(examples) -> [N, D]``.

    It gets an array if the examples are the rows of a numeric array, else a list of what the user
    gave: texts, paths, bytes, PIL images or arrays.

    Two functions of one name in one module are taken for the same space, as nothing else can be
    seen from outside; so embeddings are remembered in this process only, by this object.

    Args:
        function: the function.
        name: for errors and saved tasks; the function's own by default.
    """

    def __init__(self, function: Callable[[Any], Any], *, name: str | None = None) -> None:
        own = getattr(function, "__qualname__", type(function).__qualname__)
        module = getattr(function, "__module__", None) or type(function).__module__
        super().__init__(name or f"{module}.{own}")
        self._function = function

    @property
    def fingerprint(self) -> str:
        """sha256 over the name and version."""
        return hash_of({"version": _VERSION, "kind": "callable", "name": self.name})

    def read(self, X: Any) -> list[Item]:
        """Return the rows of an array, texts, or images in any form.

        Raises:
            DataError: if a row is none of these; the message names it.
        """
        numeric = isinstance(X, np.ndarray) and X.dtype.kind in "biuf"
        if numeric or isinstance(X, Tensor) or (is_frame(X) and X.shape[1] > 1):
            return _array_items(X, what="examples")
        rows, _ = rows_of(X, what="examples")
        if all(isinstance(row, str) for row in rows):
            return read_texts(rows)
        if all(isinstance(row, list | tuple | float | int) for row in rows):
            return _array_items(rows, what="examples")
        if all(isinstance(row, np.ndarray | Tensor) for row in rows):
            arrays = [np.asarray(row) for row in rows]
            if len({row.shape for row in arrays}) == 1:
                return _array_items(np.stack(arrays), what="examples")
        if not all(
            isinstance(row, Path | bytes | Image.Image | np.ndarray | Tensor) for row in rows
        ):
            kinds = sorted({type(row).__name__ for row in rows})
            raise DataError(
                f"{self.name} got rows of {', '.join(kinds)}. Give texts, paths, bytes, PIL images "
                "or arrays, all of one kind."
            )
        # the function gets what the user gave; only the hash is taken from what was read
        return [
            Item(row, item.key, item.source)
            for row, item in zip(rows, read_images(rows), strict=True)
        ]

    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return what the function returns, checked."""
        arrays = all(isinstance(value, np.ndarray) for value in values)
        same = arrays and len({value.shape for value in values}) == 1
        given: Any = np.stack(values) if same else list(values)
        found = self._function(given)
        try:
            if isinstance(found, Tensor):
                found = found.detach().cpu().float().numpy()
            z = np.asarray(found, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.name} returned {type(found).__name__}, not numbers [N, D] ({error})."
            ) from error
        if z.ndim != 2 or len(z) != len(values) or not z.shape[1]:
            raise DataError(
                f"{self.name} returned shape {list(z.shape)} for {len(values)} examples; it must "
                f"be [{len(values)}, D], a row for each in their order."
            )
        if self._dim not in (None, z.shape[1]):
            raise DataError(
                f"{self.name} returned embeddings of {z.shape[1]} numbers after {self._dim} "
                f"({names[0]}). All must be equally long."
            )
        self._dim = z.shape[1]
        return z

    def config(self) -> dict[str, Any]:
        """Return what is known; ``get_embedder`` cannot make a function again."""
        return {"encoder": None, "callable": self.name, "fingerprint": self.fingerprint}


class ModuleEmbedder(_Own):
    """A module that takes arrays ``[B, ...]`` and returns ``[B, D]``.

    It is run in evaluation mode and left as it was. 8-bit numbers are divided by 255. Changed
    weights are another fingerprint; changed code cannot be seen, so embeddings are remembered by
    this object only.

    Args:
        module: any module.
        device: where it is moved; ``None`` = it stays where it is.
        name: for errors and saved tasks; the class's name by default.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        device: torch.device | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name or type(module).__qualname__)
        self.module = module if device is None else module.to(device)
        self._shape: tuple[int, ...] | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 over class, printed structure and weights, taken anew each time."""
        # what a forward() does with its weights cannot be seen; its text is the best there is
        about = f"{type(self.module).__module__}.{type(self.module).__qualname__} {self.module!r}"
        weights = weights_hash(self.module)
        return hash_of({"version": _VERSION, "kind": "module", "is": about, "weights": weights})

    def read(self, X: Any) -> list[Item]:
        """Return the rows of a numeric array or tensor ``[N, ...]``.

        Raises:
            DataError: if it is no such array, or a number is not finite.
        """
        try:
            return _array_items(X, what="inputs")
        except DataError as error:
            if isinstance(X, Tensor | np.ndarray) and np.asarray(X).dtype.kind in "biuf":
                raise
            raise DataError(
                f"{error} For paths and images of any size make the encoder with "
                "module_embedder(module, size=..., mean=..., std=...)."
            ) from error

    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return what the module returns, checked."""
        x = _as_input(_stack(values, names))
        like = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        x = x.float() if like is None else x.to(like.device, like.dtype)
        z = module_output(self.module, x, self.name).float().cpu().numpy()
        self._dim, self._shape = z.shape[1], tuple(x.shape[1:])
        return np.asarray(z)

    def network(self) -> Network:
        """Return the module on inputs like the last ones."""
        if self._shape is None:
            raise ConfigError(f"{self.name} has embedded nothing yet. Embed an example first.")
        net = copy.deepcopy(self.module).cpu().float().eval()
        return Network(net, self._shape, "the module's inputs, float32; 8-bit numbers over 255")

    def inputs(self, X: Any) -> Vectors:
        """Return float32 inputs of the module ``[N, ...]``."""
        items = self.read(X)
        names = [item.where(row) for row, item in enumerate(items)]
        return np.asarray(_as_input(_stack([i.value for i in items], names)).float())

    def config(self) -> dict[str, Any]:
        """Return what is known; ``get_embedder`` cannot make a module again."""
        return {"encoder": None, "module": self.name, "fingerprint": self.fingerprint}


def module_embedder(
    module: nn.Module,
    *,
    size: int | None = None,
    channels: int = 3,
    mean: float = 0.0,
    std: float = 255.0,
    device: torch.device | None = None,
    name: str | None = None,
) -> Embedder:
    """Return the embedder of a module: of images where a size is given, else of arrays.

    Args:
        module: any module ``[B, ...] -> [B, D]``; an encoder of ours knows its size and channels.
        size: height and width of the images that it takes.
        channels: 1 or 3.
        mean: of 8-bit pixels; the module gets ``(pixels - mean) / std``.
        std: of 8-bit pixels.
        device: where it is moved; ``None`` = it stays where it is.
        name: for errors and saved tasks.

    Raises:
        ConfigError: if an encoder's embeddings depend on the support set.
        DataError: if the module does not take such images.
    """
    name = name or type(module).__qualname__
    if isinstance(module, Encoder):
        if module.episodic:
            raise ConfigError(
                f"{name}: its embeddings depend on the support set (norm='support'), so an image "
                "has none of its own. Take an encoder with norm='batch' or 'group'."
            )
        if size is None and len(module.in_shape) == 3:
            channels, size = module.in_shape[0], module.in_shape[1]
        module = PlainEncoder(module)
    if size is None:
        return ModuleEmbedder(module, device=device, name=name)
    if device is not None:
        module.to(device)
    first = next(module.parameters(), torch.empty(0))
    transform = Transform(size, channels, mean, std)  # type: ignore[arg-type]  # checked there
    blank = transform.inputs(torch.zeros(1, channels, size, size, device=first.device))
    return ImageEmbedder(
        name,
        transform,
        Held(module),
        dim=module_output(module, blank, name).shape[1],
        weights=partial(weights_hash, module),  # the user may go on training it
        recipe={"encoder": None, "module": name},
        device=first.device,
        cache=EmbeddingCache(disk=False),
    )

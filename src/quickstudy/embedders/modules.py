"""Encoders of the user: any module, any function, or embeddings that are computed already."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from quickstudy.core import ConfigError, DataError
from quickstudy.core.arguments import checked
from quickstudy.core.values import is_frame
from quickstudy.embedders.base import Embedder, FixedEmbedder, Item, Vectors
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.images import ImageEmbedder, Transform
from quickstudy.embedders.inputs import content_key, numeric_rows, read_texts, rows_of
from quickstudy.embedders.networks import (
    Held,
    Network,
    PlainEncoder,
    hash_of,
    module_output,
    weights_hash,
)
from quickstudy.embedders.pictures import read_images
from quickstudy.nets import Encoder

__all__ = ["ArrayEmbedder", "CallableEmbedder", "ModuleEmbedder", "module_embedder"]

_VERSION = 1  # count up when the way examples are embedded changes


def _array_items(X: Any, *, what: str) -> list[Item]:
    """Return the rows of a numeric array as items; every number must be finite.

    Raises:
        DataError: if a number is not; the message names its row.
    """
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
    """Return arrays of one shape as one array ``[N, ...]``.

    Raises:
        DataError: if one has another shape than the first; the message names it.
    """
    for name, value in zip(names, values, strict=True):
        if value.shape != values[0].shape:
            raise DataError(
                f"{name} has shape {list(value.shape)}, others have {list(values[0].shape)}. Give "
                "examples of one shape."
            )
    return np.stack(values)


def _as_input(array: npt.NDArray[Any]) -> Tensor:
    """Return what a module takes; 8-bit numbers are divided by 255."""
    x = torch.from_numpy(array)
    return x.float() / 255 if x.dtype == torch.uint8 else x


class ArrayEmbedder(Embedder):
    """For embeddings that are computed already: returns the rows of an array ``[N, D]`` unchanged.

    Args:
        dim: length of an embedding; ``None`` = not known until :meth:`fit` sees the support set.

    Example::

        embedder = get_embedder("array")
        items = embedder.read([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
        embedder = embedder.fit(items)
        z = embedder.embed(items)  # [2, 3]
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
        with np.errstate(over="ignore"):  # too large for float32: becomes inf, which is refused
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
        """Return the preview of the item: numbers would say nothing to people."""
        return item.preview


class _UserEncoder(FixedEmbedder):
    """What embedders of a user's function or module share.

    Their code cannot be hashed, so no fingerprint is sure to change with it: embeddings are cached
    in memory by this object only. The length of an embedding is known after the first one.
    """

    modality = "array"

    def __init__(self, name: str) -> None:
        super().__init__(EmbeddingCache(disk=False))
        self.name = name
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """The length of an embedding.

        Raises:
            ConfigError: before the first embedding.
        """
        if self._dim is None:
            raise ConfigError(f"{self.name} has embedded nothing yet. Embed an example first.")
        return self._dim

    def preview(self, item: Item) -> bytes | str | None:
        """Return the preview of the item: the beginning of a text, or ``None``."""
        return item.preview


class CallableEmbedder(_UserEncoder):
    """Embeds examples with a function ``f(examples) -> [N, D]``.

    The function gets an array if the examples are the rows of a numeric array, otherwise a list of
    what the user gave: texts, paths, bytes, PIL images or arrays.

    The fingerprint is a hash of the function's name, as its code cannot be hashed: two functions of
    one name in one module have one fingerprint. So embeddings are cached by this object only.

    Args:
        function: the function.
        name: for errors and saved tasks; the function's own by default.

    Example::

        embedder = get_embedder(lambda texts: [[len(text), text.count(" ")] for text in texts])
        items = embedder.read(["a short text", "one"])
        z = embedder.embed(items)  # [2, 2]
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
        """Return the rows of an array, texts or images as items.

        Args:
            X: array, tensor or table of numbers; list of texts, of rows of numbers, or of images
                (paths, bytes, PIL images, arrays, tensors).

        Raises:
            DataError: if the rows are none of these, or of several kinds.
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
        # the function gets what the user gave, not what we read of it; only the hash is taken
        return [replace(item, value=row) for row, item in zip(rows, read_images(rows), strict=True)]

    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return the embeddings ``[N, D]`` of the function, after checks.

        Raises:
            DataError: if it returns another shape, or no numbers.
        """
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
                f"be [{len(values)}, D], one row for each example in the same order."
            )
        if self._dim not in (None, z.shape[1]):
            raise DataError(
                f"{self.name} returned embeddings of {z.shape[1]} numbers after {self._dim} "
                f"({names[0]}). All embeddings must have the same length."
            )
        self._dim = z.shape[1]
        return z

    def config(self) -> dict[str, Any]:
        """Return name and fingerprint; ``get_embedder`` cannot make a function from them."""
        return {"encoder": None, "callable": self.name, "fingerprint": self.fingerprint}


class ModuleEmbedder(_UserEncoder):
    """Embeds arrays with a module ``[B, ...] -> [B, D]``.

    The module is run in evaluation mode, and its mode is put back afterwards. 8-bit numbers are
    divided by 255. The fingerprint changes with the weights; it does not change with the code, so
    embeddings are cached by this object only.

    Args:
        module: any module.
        device: where the module is moved; ``None`` = it stays where it is.
        name: for errors and saved tasks; the class's name by default.

    Example::

        embedder = get_embedder(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)))
        items = embedder.read(torch.rand(5, 2, 3))
        z = embedder.embed(items)  # [5, 4]
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
        """sha256 over class, printed structure and weights, computed at each call."""
        # what forward() does cannot be hashed; the printed structure is the nearest to it
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
        """Return the embeddings ``[N, D]`` of the module, after checks.

        Raises:
            DataError: if it fails, or returns another shape.
        """
        x = _as_input(_stack(values, names))
        like = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        x = x.float() if like is None else x.to(like.device, like.dtype)
        z = module_output(self.module, x, self.name).float().cpu().numpy()
        self._dim, self._shape = z.shape[1], tuple(x.shape[1:])
        return np.asarray(z)

    def network(self) -> Network:
        """Return the module, for inputs of the shape of the last ones.

        Raises:
            ConfigError: before the first embedding.
        """
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
        """Return name and fingerprint; ``get_embedder`` cannot make a module from them."""
        return {"encoder": None, "module": self.name, "fingerprint": self.fingerprint}


@checked
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
    """Return the embedder of a module: for images of any kind if a size is given, else for arrays.

    Args:
        module: any module ``[B, ...] -> [B, D]``. The size and channels of an encoder of ours are
            found by itself.
        size: height and width of the images that the module takes.
        channels: of these images, 1 (grey) or 3 (RGB).
        mean: the module gets ``(pixels - mean) / std`` of 8-bit pixels.
        std: see ``mean``.
        device: where the module is moved; ``None`` = it stays where it is.
        name: for errors and saved tasks; the class's name by default.

    Raises:
        ConfigError: if the embeddings of an encoder depend on the support set.
        DataError: if the module does not take such images.

    Example::

        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        embedder = module_embedder(net, size=32, channels=3, mean=127.0, std=128.0)
        items = embedder.read(torch.rand(2, 3, 50, 40))
        z = embedder.embed(items)  # [2, 8]
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
        weights=partial(weights_hash, module),  # computed each time: the user may train it further
        recipe={"encoder": None, "module": name},
        device=first.device,
        cache=EmbeddingCache(disk=False),
    )

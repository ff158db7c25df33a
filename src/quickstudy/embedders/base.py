"""The contract of embedders: they read what a user gives and return one embedding per example.

Embedders of one :attr:`Embedder.fingerprint` give the same embeddings; embeddings of two
fingerprints are never compared. An embedding depends on its own example alone, so it is computed
once and cached under the hash of the example's content.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from quickstudy.core import DataError
from quickstudy.core.arguments import checked
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.networks import Network

__all__ = ["Embedder", "FixedEmbedder", "Item", "Vectors"]

Vectors = npt.NDArray[np.float32]

_EXAMPLES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Item:
    """One example as an embedder reads it.

    Args:
        value: what is embedded; its type depends on the embedder. It may be dropped (``None``)
            after the example is embedded.
        key: sha256 of the content in hexadecimal: equal content has an equal key.
        source: the file it comes from, or its name in the user's table; ``None`` = neither.
        preview: a small PNG or a short text to show to people; ``None`` = not made.
        group: name of what belongs together (the frames of one film): such examples are held out
            together; ``None`` = it stands alone.

    Example::

        items = get_embedder("array").read([[0.1, 0.2], [0.3, 0.4]])
        item = items[0]
        print(item.value, item.key[:8], item.where(0))
    """

    value: Any
    key: str
    source: str | None = None
    preview: bytes | str | None = None
    group: str | None = None

    def where(self, row: int) -> str:
        """Return the name of this example in errors: ``"row 3 (koala/4.jpg)"``, counted from 0."""
        return f"row {row}" if self.source is None else f"row {row} ({self.source})"


@checked
class Embedder(ABC):
    """Maps examples to embeddings of ``dim`` numbers.

    Embedders do not change: :meth:`fit` returns another one, and a copy is the object itself.

    Args:
        cache: where embeddings are kept; ``None`` = nowhere.

    Example::

        embedder = get_embedder(lambda texts: [[len(t), t.count(" ")] for t in texts])
        items = embedder.read(["a short text", "another one, a little longer"])
        z = embedder.embed(items)  # [2, 2]
        print(embedder.name, embedder.dim, embedder.fingerprint[:8])
    """

    modality: str
    """``"image"``, ``"text"``, ``"table"`` or ``"array"``."""
    name: str
    """What the user calls the encoder: ``"image"``, a path, a class name."""
    fitted: bool = False
    """Whether :meth:`fit` returns an embedder that depends on the support set."""

    def __init__(self, cache: EmbeddingCache | None) -> None:
        self._cache = cache

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 over weights, transform and version: an equal one means equal embeddings."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """The length of an embedding."""

    @abstractmethod
    def read(self, X: Any) -> list[Item]:
        """Return the examples that a user gave, in the same order.

        Args:
            X: inputs; which types it may have depends on the embedder.

        Raises:
            DataError: if there are none, or one cannot be used; the message names its row.
        """

    @abstractmethod
    def fit(self, items: Sequence[Item]) -> Self:
        """Return the embedder for this support set: itself, unless it is :attr:`fitted`."""

    @abstractmethod
    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return the embeddings ``[N, D]`` of values of items, without using the cache.

        Args:
            values: ``N`` values.
            names: their names in errors.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return JSON from which ``get_embedder`` makes this embedder again."""

    def network(self) -> Network:
        """Return the network that an exported graph contains: none by default, so that the graph
        takes embeddings."""
        return Network(None, (self.dim,), f"embeddings by {self.name!r}, float32")

    def inputs(self, X: Any) -> Vectors:
        """Return the inputs of an exported graph, see :meth:`network`, ``[N, *shape]``."""
        return self.embed(self.read(X))

    @abstractmethod
    def preview(self, item: Item) -> bytes | str | None:
        """Return a PNG of at most 64 pixels a side, or a short text, to show to people."""

    def embed(self, items: Sequence[Item], *, progress: bool = False) -> Vectors:
        """Return the embeddings float32 ``[N, D]`` of examples.

        Equal content is embedded once, and not at all if the cache has it.

        Args:
            items: what :meth:`read` returned.
            progress: show a bar on stderr if it takes more than two seconds.

        Raises:
            DataError: if an example cannot be embedded, or its embedding is not finite; the message
                names its row.
        """
        space = self.fingerprint
        first: dict[str, int] = {}
        for row, item in enumerate(items):
            first.setdefault(item.key, row)
        known = {} if self._cache is None else self._cache.get(space, list(first))
        missing = [row for key, row in first.items() if key not in known]
        bar = tqdm(
            total=len(missing),
            desc=f"embedding ({self.name})",
            delay=2,
            disable=None if progress else True,
            leave=False,
        )
        with bar:
            for start in range(0, len(missing), _EXAMPLES_AT_ONCE):
                rows = missing[start : start + _EXAMPLES_AT_ONCE]
                names = [items[row].where(row) for row in rows]
                z = self._checked(self.compute([items[row].value for row in rows], names), names)
                keys = [items[row].key for row in rows]
                known |= zip(keys, z, strict=True)
                if self._cache is not None:
                    self._cache.put(space, keys, z)
                bar.update(len(rows))
        if not items:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([known[item.key] for item in items])

    def _checked(self, z: Vectors, names: Sequence[str]) -> Vectors:
        bad = np.flatnonzero(~np.isfinite(z).all(1))
        if len(bad):
            raise DataError(
                f"{names[int(bad[0])]}: its embedding by {self.name!r} is not finite (NaN or inf). "
                "Check the example and the encoder's weights."
            )
        return z

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: scikit-learn's ``clone`` copies its arguments, and weights are large."""
        return self


class FixedEmbedder(Embedder):
    """An embedder that does not depend on the support set.

    Example::

        embedder = get_embedder(lambda texts: [[len(text)] for text in texts])
        items = embedder.read(["a", "bcd"])
        z = embedder.embed(items)  # [2, 1]
        assert isinstance(embedder, FixedEmbedder) and embedder.fit(items) is embedder
    """

    def fit(self, items: Sequence[Item]) -> Self:  # noqa: ARG002
        """Return itself."""
        return self

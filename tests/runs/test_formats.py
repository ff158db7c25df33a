"""A run whose weights mean something else in this version is refused; others load as before."""

import json
import shutil
from pathlib import Path

import pytest

from quickstudy.core import CheckpointError
from quickstudy.recipes import get_recipe, override
from quickstudy.runs import load_run, read_recipe, train_recipe
from quickstudy.runs.folder import manifest, save_recipe

OLD = Path(__file__).parents[1] / "compatibility" / "run-finished" / "matching"


def rewritten(folder, **changes):
    document = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    document["recipe"]["learner"]["full_context"] = True
    (folder / "recipe.json").write_text(json.dumps(document | changes), encoding="utf-8")
    return folder


@pytest.fixture
def old(tmp_path):
    return shutil.copytree(OLD, tmp_path / "run")


def test_an_old_run_without_full_context_loads(old):
    assert json.loads((old / "recipe.json").read_text(encoding="utf-8"))["format"] == 1
    assert load_run(old).recipe.learner.format == 1


def test_an_old_run_with_full_context_is_refused_by_everything(old):
    rewritten(old)
    for read in (load_run, read_recipe):
        with pytest.raises(CheckpointError, match=r"format 1: an older version .* Train it again"):
            read(old)
    with pytest.raises(CheckpointError, match="format 1"):
        train_recipe(read_name(old), out=old, resume=True)


def read_name(folder):
    return get_recipe(
        json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["recipe"]["name"]
    )


@pytest.mark.parametrize("written", [3, 0, "2", None, True])
def test_formats_of_newer_versions_and_none_at_all_are_refused(old, written):
    rewritten(old, format=written)
    with pytest.raises(CheckpointError, match=f"format {written!r}"):
        read_recipe(old)


def test_new_runs_say_their_format_and_a_resumed_one_must_have_the_same(tmp_path):
    plain = get_recipe("omniglot-protonet")
    context = override(get_recipe("omniglot-matching"), ["full_context=true"])
    for recipe, number in ((plain, 1), (context, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_recipe(folder, recipe, {})
        assert json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["format"] == number
        assert read_recipe(folder).learner.format == number
    assert manifest(context, {})["format"] == 2
    assert "format" not in manifest(plain, {})

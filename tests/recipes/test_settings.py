"""``train RECIPE --show``: every setting with its value, what it may be, and what it means."""

import json

import pytest

from quickstudy.cli import main
from quickstudy.recipes import LEARNERS, RECIPES, override
from quickstudy.recipes.settings import settings_of, settings_text


def paths(document, prefix=""):
    for name, value in document.items():
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_every_recipe_is_explained(name):
    recipe = RECIPES[name]
    found = {one.path: one for one in settings_of(recipe)}
    assert not [path for path, one in found.items() if len(one.meaning) < 8 or not one.allowed]
    documented = {p for p in paths(recipe.model_dump(mode="json")) if p.split(".")[0] != "learner"}
    if not recipe.data.regression:
        assert documented <= found.keys()
    lines = settings_text(list(found.values())).splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "``" in line or ":class:" in line]


@pytest.mark.parametrize("kind", LEARNERS)
def test_every_setting_of_every_learner_is_explained(kind):
    recipe = override(RECIPES["omniglot-protonet"], [])
    recipe = recipe.model_copy(update={"learner": LEARNERS[kind]()})
    mine = [one for one in settings_of(recipe) if one.path.startswith("learner.")]
    assert {one.path.removeprefix("learner.") for one in mine} == set(LEARNERS[kind].model_fields)
    assert not [one.path for one in mine if len(one.meaning) < 8]


def test_what_is_shown_can_be_set(capsys):
    for words in ([], ["--json"], ["-s", "steps=7"], ["--data", "digits", "-s", "steps=7"]):
        with pytest.raises(SystemExit) as stop:
            main(["train", "cifar-fs-protonet", "--show", *words])
        assert not stop.value.code
    text = capsys.readouterr().out
    assert "train.steps = 7\n    (whole number, at least 1)\n" in text
    with pytest.raises(SystemExit):
        main(["train", "cifar-fs-protonet", "--show", "--json"])
    document = json.loads(capsys.readouterr().out)
    for one in document["settings"]:
        if one["value"] is not None and one["path"] != "name":
            override(RECIPES["cifar-fs-protonet"], [f"{one['path']}={json.dumps(one['value'])}"])
    with pytest.raises(SystemExit) as stop:
        main(["train", "--show"])
    assert stop.value.code == 2

"""Recipes: overriding, building, saving and loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from quickstudy.core import CheckpointError, ConfigError, EpisodeSpec, Examples
from quickstudy.learners import (
    ANIL,
    FOMAML,
    MAML,
    MANN,
    SNAIL,
    AttentiveNeuralProcess,
    ConditionalNeuralProcess,
    InContextTransformer,
    LSTMLearner,
    MatchingNetwork,
    MetaSGD,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
)
from quickstudy.recipes import (
    RECIPES,
    EncoderConfig,
    ProtoNetConfig,
    build_learner,
    get_recipe,
    override,
    sources,
)
from quickstudy.runs.folder import load_run

KINDS = {
    "protonet": PrototypicalNetwork,
    "matching": MatchingNetwork,
    "maml": MAML,
    "fomaml": FOMAML,
    "metasgd": MetaSGD,
    "anil": ANIL,
    "protomaml": ProtoMAML,
    "reptile": Reptile,
    "cnp": ConditionalNeuralProcess,
    "anp": AttentiveNeuralProcess,
    "incontext": InContextTransformer,
    "mann": MANN,
    "lstm": LSTMLearner,
    "snail": SNAIL,
}


def test_names_are_the_keys_and_every_recipe_builds() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        learner = build_learner(recipe.encoder, recipe.learner, seed=0, n_way=recipe.n_way)
        assert type(learner) is KINDS[recipe.learner.kind]
        side, inputs = recipe.encoder.image_size, recipe.encoder.in_features
        one = (recipe.encoder.in_channels, side, side) if inputs is None else (inputs,)
        y = torch.zeros(1, 2, dtype=torch.float32 if inputs else torch.int64)
        support = Examples.full(torch.rand(1, 2, *one), y)
        with torch.no_grad():
            state = learner.eval().adapt(support, n_way=recipe.n_way)
            assert learner.predict(state, support.x).shape == (1, 2, recipe.n_way)


def test_override_by_path_and_by_last_part() -> None:
    recipe = get_recipe("omniglot-protonet")
    changed = override(
        recipe, ["train.steps=7", "distance=cosine", "jitter.degrees=3", "norm=group"]
    )
    assert changed.train.steps == 7
    assert changed.learner.distance == "cosine"
    assert changed.data.jitter is not None
    assert changed.data.jitter.degrees == 3
    assert changed.encoder.norm == "group"
    assert override(recipe, ["data.jitter=null"]).data.jitter is None
    assert override(recipe, ["train.n_way=[5, 20]"]).train.n_way == (5, 20)
    assert recipe.train.steps != 7


@pytest.mark.parametrize("setting", ["steps=many", "distance=manhattan", "train.steps=0", "nope=1"])
def test_override_refuses(setting: str) -> None:
    with pytest.raises(ConfigError):
        override(get_recipe("omniglot-protonet"), [setting])


def test_weights_depend_on_the_seed_alone_and_the_global_generator_is_left_alone() -> None:
    config = EncoderConfig(channels=8), ProtoNetConfig()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_learner(*config, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = build_learner(*config, seed=5), build_learner(*config, seed=6)
    name = "encoder.convs.0.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_a_run_of_another_shape_is_refused(tmp_path: Path) -> None:
    from quickstudy.runs.folder import save_recipe
    from quickstudy.storage.tensors import save_tensors

    recipe = get_recipe("omniglot-protonet")
    save_recipe(tmp_path, recipe, {})
    small = build_learner(EncoderConfig(channels=8), ProtoNetConfig(), seed=0)
    save_tensors(tmp_path / "model.safetensors", small.state_dict(), {"step": 1})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_run(tmp_path)
    document = json.loads((tmp_path / "recipe.json").read_text())
    document["recipe"]["encoder"]["channels"] = 8
    (tmp_path / "recipe.json").write_text(json.dumps(document))
    assert load_run(tmp_path).meta == {"step": 1}


DIGITS_TOO = 'data.also=[{"name": "digits", "train": "all", "validation": "all", "weight": 3}]'


def test_tasks_of_several_data_sets_are_mixed_by_weight_and_fit_the_encoder() -> None:
    recipe = override(get_recipe("glyphs-protonet"), [DIGITS_TOO, "in_channels=3", "image_size=16"])
    assert recipe.data.names == "glyphs+digits"
    train, validation, facts = sources(recipe)
    assert set(facts) == {
        "training data",
        "validation data",
        "training data of digits",
        "validation data of digits",
    }
    for source in (train, validation):
        episode = source.episodes(EpisodeSpec(5, 1, 2), range(40), seed=0)
        assert episode.support.x.shape[2:] == (3, 16, 16)
        # three of four tasks are of digits; 16 to 40 of 40 with more than 99.99 %
        assert 20 <= int(episode.info["source"].sum()) < 40
    alone = sources(override(get_recipe("glyphs-protonet"), ["image_size=16"]))[2]
    assert alone.keys() == {"training data", "validation data"}


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ('[{"name": "glyphs"}]', "glyphs is named twice"),
        ('[{"name": "sinusoid"}]', "sine waves"),
        ('[{"name": "digits", "weight": 0}]', "data.also.0.weight: Input should be greater than 0"),
        ('[{"name": "digits", "also": []}]', "data.also.0.also: there is no such setting"),
        ("digits", "also: Input should be a list, in brackets; got 'digits'"),
        ('{"name": "digits"}', "also: Input should be a list, in brackets"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(also: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(get_recipe("glyphs-protonet"), [f"also={also}"])


def test_one_data_set_under_two_names_is_no_mixture() -> None:
    with pytest.raises(ConfigError, match="fc100 holds the images of cifar-fs"):
        sources(override(get_recipe("cifar-fs-protonet"), ['also=[{"name": "fc100"}]']))

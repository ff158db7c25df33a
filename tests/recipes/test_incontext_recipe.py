"""The recipe of the in-context transformer: settings, building, training, its start."""

import pytest
import torch

from quickstudy.core import ConfigError
from quickstudy.learners import InContextTransformer
from quickstudy.recipes import EncoderConfig, InContextConfig, build_learner, get_recipe, override
from quickstudy.recipes.build import encoder_of
from quickstudy.runs import load_run, train_recipe
from quickstudy.runs.start import load_start

SMALL = [
    *("data.name=glyphs", "split_file=null", "data.rotations=false", "jitter=null"),
    *("class_jitter=null", "channels=4", "train.n_way=4", "train.n_query=2", "steps=2"),
    *("precision=float32", "validation.episodes=4", "validation.every=2", "validation.n_way=4"),
    *("watch_episodes=4", "checkpoint_every=2", "log_every=1"),
]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("width=30", "multiple"),
        ("layers=0", "layers"),
        ("dropout=1", "dropout"),
        ("distance=manhattan", "distance"),
        ("temperature=0", "temperature"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, words):
    with pytest.raises(ConfigError, match=words):
        override(get_recipe("omniglot-incontext"), [setting])


def test_every_setting_reaches_the_learner():
    config = InContextConfig(width=24, layers=3, heads=3, distance="cosine", temperature=2.0)
    learner = build_learner(EncoderConfig(channels=4), config, seed=0)
    assert isinstance(learner, InContextTransformer)
    assert (learner.head.width, len(learner.head.blocks)) == (24, 3)
    assert learner.head.blocks[0].heads == 3
    assert learner.head.distance == "cosine"
    assert float(learner.head.log_scale.detach().exp()) == pytest.approx(0.5)
    assert learner.family == config.family == "in-context"


def test_it_starts_from_a_trained_encoder_and_is_read_again(tmp_path):
    train_recipe("omniglot-protonet", SMALL, out=tmp_path / "omniglot-protonet")
    recipe = override(get_recipe("omniglot-incontext"), [*SMALL, "width=8"])
    learner = build_learner(recipe.encoder, recipe.learner, seed=0)
    load_start(learner, recipe, tmp_path / "omniglot-protonet")
    theirs = encoder_of(load_run(tmp_path / "omniglot-protonet").learner).state_dict()
    for name, value in encoder_of(learner).state_dict().items():
        assert torch.equal(value, theirs[name]), name  # running averages too
    out = tmp_path / "omniglot-incontext"
    train_recipe("omniglot-incontext", [*SMALL, "width=8"], out=out)
    read = load_run(out)
    assert read.recipe.learner == recipe.learner
    assert isinstance(read.learner, InContextTransformer)
    assert "start" in read.meta or "start" in str(read.meta)

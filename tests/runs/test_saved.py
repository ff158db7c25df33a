"""Learners that were built in Python: saved, loaded, and given to the commands."""

import json

import pytest
import torch
from torch import nn

from quickstudy.comparing import compare_runs
from quickstudy.core import CheckpointError, ConfigError, EpisodeSpec
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    InnerLoop,
    Learner,
    MatchingNetwork,
    MetaSGD,
    NearestNeighbour,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
)
from quickstudy.nets import MLP, Conv4, ModuleEncoder, ResNet12
from quickstudy.recipes import ImageData
from quickstudy.runs import check, judge, load_learner, load_run, save_learner, train_recipe
from quickstudy.tasks import PoolSource
from quickstudy.tasks.datasets import load_pool
from quickstudy.training import TrainConfig, ValidationConfig, train


def net(**settings):
    return Conv4(**({"channels": 8, "norm": "support"} | settings))


LEARNERS = {
    "cosine": lambda: PrototypicalNetwork(net(norm="batch"), distance="cosine", temperature=3.0),
    "shrunk": lambda: PrototypicalNetwork(net(norm="group"), shrinkage=0.5),
    "full context": lambda: MatchingNetwork(net(norm="batch"), full_context=True),
    "maml": lambda: MAML(net(), n_way=5, inner=InnerLoop(lr=0.07, steps=2), order="first"),
    "fomaml": lambda: FOMAML(net(downsample="stride"), n_way=5),
    "metasgd": lambda: MetaSGD(net(), n_way=5),
    "anil": lambda: ANIL(net(), n_way=5, inner=InnerLoop(lr=0.1, steps=3)),
    "protomaml": lambda: ProtoMAML(net(), inner=InnerLoop(lr=0.1, steps=2)),
    "reptile": lambda: Reptile(net(), n_way=5),
    "imaml": lambda: IMAML(net(), n_way=5),
    "mlp": lambda: PrototypicalNetwork(MLP((1, 28, 28), (16, 16))),
    "resnet": lambda: PrototypicalNetwork(ResNet12(in_channels=1, image_size=28)),
}


@pytest.fixture(scope="module")
def episode():
    return PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1, 2), [0, 1], seed=0)


def answers(learner: Learner, episode):
    learner.eval()
    return learner.predict(learner.adapt(episode.support, n_way=5), episode.query.x).detach()


@pytest.mark.parametrize("name", LEARNERS)
def test_our_learners_with_our_encoders_become_runs(name, tmp_path, episode):
    learner = LEARNERS[name]()
    with torch.no_grad():  # so that not every weight is as it was drawn
        for weight in learner.parameters():
            weight.add_(0.01)
    assert save_learner(learner, tmp_path / "saved")
    loaded = load_learner(tmp_path / "saved")
    assert type(loaded) is type(learner)
    assert torch.equal(answers(loaded, episode), answers(learner, episode))
    run = load_run(tmp_path / "saved")
    assert torch.equal(answers(run.learner, episode), answers(learner, episode))
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "recipe.json",
        "model.safetensors",
    }


def test_a_learner_trained_in_python_goes_into_every_command(tmp_path):
    pool = load_pool("digits")
    source = PoolSource(pool.select(range(5), split="train"))
    validation = PoolSource(pool.select(range(5, 10), split="val"))
    config = TrainConfig(
        steps=3,
        n_way=3,
        n_query=2,
        validation=ValidationConfig(n_way=3, n_query=2, episodes=4, every=2),
    )
    learner = PrototypicalNetwork(net(norm="group"))
    result = train(learner, source, config, validation=validation)
    data = ImageData(name="digits", train="all", validation="all")
    out = tmp_path / "mine"
    assert save_learner(learner, out, data=data, train=config, result=result)
    run = load_run(out)
    assert run.meta["step"] == result.best_step
    judged = judge(run, "digits", n_way=2, n_query=2, episodes=2)
    assert judged.facts["trained_on"]
    assert "classes-seen" in check(out, episodes=4).text()
    save_learner(learner, out)  # without data
    assert not judge(out, "digits", n_way=2, n_query=2, episodes=2).facts["trained_on"]
    compare_runs([out], ["digits"], n_way=2, n_query=2, episodes=2, workers=1, baselines=[])
    with pytest.raises(ConfigError, match="Name data to check it on"):
        check(out)


def plain(width: int = 5) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.LayerNorm(width))


@pytest.mark.parametrize(
    "build",
    [PrototypicalNetwork, MatchingNetwork, lambda net: MAML(net, head=None)],
    ids=["prototypical", "matching", "maml"],
)
def test_any_module_is_an_encoder_and_given_again_to_load(build, tmp_path, episode):
    learner = build(plain())
    assert not save_learner(learner, tmp_path / "saved")
    loaded = load_learner(tmp_path / "saved", encoder=plain())
    assert torch.equal(answers(loaded, episode), answers(learner, episode))
    with pytest.raises(ConfigError, match="no document describes"):
        load_learner(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_learner(tmp_path / "saved", encoder=plain(7))
    with pytest.raises(CheckpointError, match=r"is a .*Sequential; got a .*Linear"):
        load_learner(tmp_path / "saved", encoder=nn.Linear(784, 16))
    with pytest.raises(CheckpointError, match="with an encoder that no recipe describes"):
        judge(tmp_path / "saved", "digits")


def test_a_width_that_was_told_is_saved(tmp_path, episode):
    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 6))

    learner = MatchingNetwork(ModuleEncoder(build(), features=6), full_context=True)
    save_learner(learner, tmp_path / "saved")
    for encoder in (build(), ModuleEncoder(build(), features=6)):
        loaded = load_learner(tmp_path / "saved", encoder=encoder)
        assert torch.equal(answers(loaded, episode), answers(learner, episode))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.Sigmoid()), "'2' was a ReLU, .* Sigm"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 5)), "'2' was a ReLU, here it is a none"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.ReLU(), nn.Tanh()), "'3' was a none"),
    ],
)
def test_a_module_of_the_same_weights_and_other_layers_is_refused(other, what, tmp_path, episode):
    learner = PrototypicalNetwork(nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.ReLU()))
    save_learner(learner, tmp_path / "saved")
    with pytest.raises(CheckpointError, match=what):
        load_learner(tmp_path / "saved", encoder=other)
    # a document of before names no layers
    file = tmp_path / "saved" / "recipe.json"
    document = json.loads(file.read_text())
    del document["from_python"]["layers"], document["from_python"]["features"]
    file.write_text(json.dumps(document))
    again = nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.ReLU())
    loaded = load_learner(tmp_path / "saved", encoder=again)
    assert torch.equal(answers(loaded, episode), answers(learner, episode))


class Mine(PrototypicalNetwork):
    pass


def test_what_is_refused(tmp_path):
    learner = PrototypicalNetwork(net())
    maml = MAML(net(), n_way=5)
    for wrong, words in (
        (Mine(net()), "learner of your own"),
        (maml.with_inner_steps(9), "not as its arguments build it"),
        (NearestNeighbour(), "EncoderConfig"),
    ):
        with pytest.raises(ConfigError, match=words):
            save_learner(wrong, tmp_path / "saved")
        assert not (tmp_path / "saved").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match="other things"):
        save_learner(learner, tmp_path / "photos")
    tiny = ["data.name=digits", "data.train=all", "data.validation=all", "classes=null"]
    tiny += ["steps=1", "train.n_way=3", "validation.n_way=3", "validation.episodes=2"]
    run = train_recipe("glyphs-few", [*tiny, "channels=8"], out=tmp_path / "run").folder
    with pytest.raises(CheckpointError, match="already holds a run"):
        save_learner(learner, run)
    assert isinstance(load_learner(run), PrototypicalNetwork)
    for bad in (None, 3, ""):
        with pytest.raises(ConfigError):
            save_learner(learner, bad)
        with pytest.raises(ConfigError):
            load_learner(bad)
        with pytest.raises(ConfigError):
            save_learner(bad, tmp_path / "saved")
    save_learner(learner, tmp_path / "saved")
    with pytest.raises(ConfigError, match="Leave encoder out"):
        load_learner(tmp_path / "saved", encoder=net())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("from_python",), 3),
        (("from_python", "learner"), None),
        (("from_python", "learner", "learner"), "EmbeddingLearner"),
        (("from_python", "learner", "learner"), "meta_loss"),
        (("from_python", "learner", "arguments"), {"distance": 3}),
        (("from_python", "learner", "arguments"), {"size": 3}),
        (("from_python", "learner", "arguments"), {"a": {"class": "eval", "arguments": {}}}),
        (("from_python", "features"), "wide"),
        (("from_python", "features"), -1),
        (("from_python", "layers"), [1]),
        (("format",), 99),
    ],
)
def test_a_document_builds_nothing_but_our_learners(path, value, tmp_path):
    save_learner(PrototypicalNetwork(plain()), tmp_path / "saved")
    file = tmp_path / "saved" / "recipe.json"
    document = at = json.loads(file.read_text())
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    file.write_text(json.dumps(document))
    with pytest.raises((CheckpointError, ConfigError)):
        load_learner(tmp_path / "saved", encoder=plain())

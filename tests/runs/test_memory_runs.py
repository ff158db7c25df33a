"""Runs of memory learners: trained, resumed, judged on streams, compared, checked, saved."""

import json

import pytest
import torch

from quickstudy.comparing import compare_runs
from quickstudy.core import ConfigError
from quickstudy.learners import MANN, SNAIL, PrototypicalNetwork
from quickstudy.nets import Conv4, Identity
from quickstudy.recipes import RECIPES, get_recipe, override
from quickstudy.runs import check, judge, load_learner, load_run, save_learner, train_recipe
from quickstudy.storage.tensors import load_tensors
from quickstudy.training import TrainingInterrupted, Watcher

ON_DIGITS = [
    *('data={"name": "digits", "train": "all", "validation": "all"}', "train.n_way=3"),
    *("validation.n_way=3", "validation.episodes=4", "watch_episodes=0", "image_size=16"),
    *("checkpoint_every=2", "validation.every=2", "train.tasks_per_step=2"),
]
SMALL = {
    "omniglot-mann": ["hidden_size=8", "slots=6", "width=4", "heads=2", "train.k_shot=3"],
    "omniglot-lstm": ["hidden_size=8", "train.k_shot=3"],
    "omniglot-snail": ["filters=4", "channels=8", "train.k_shot=[1, 2]"],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def trained(name, out, *more, **options):
    return train_recipe(name, [*ON_DIGITS, *SMALL[name], "steps=4", *more], out=out, **options)


class StopAt(Watcher):
    def __init__(self, step):
        self.step = step

    def on_step(self, step, figures):
        if step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", SMALL)
def test_a_stopped_and_resumed_run_is_the_unbroken_run_bit_for_bit(name, tmp_path):
    trained(name, tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        trained(name, tmp_path / "parts", watchers=StopAt(3))
    train_recipe(None, out=tmp_path / "parts", resume=True)
    whole, parts = (
        load_tensors(tmp_path / run / "model.safetensors")[0] for run in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[n], parts[n]) for n in whole)


def test_a_run_goes_on_with_more_steps(tmp_path):
    trained("omniglot-mann", tmp_path / "more")
    more = train_recipe(None, ["steps=6"], out=tmp_path / "more", resume=True)
    assert more.result.steps == 6
    # the rate is constant, so that a run that is trained on is one that was longer from the start
    trained("omniglot-mann", tmp_path / "long", "steps=6")
    long, short = (
        load_tensors(tmp_path / run / "checkpoint.safetensors")[0] for run in ("long", "more")
    )
    assert all(torch.equal(long[n], short[n]) for n in long if n.startswith("weights/"))


def test_a_run_trained_on_streams_is_judged_on_streams(tmp_path):
    trained("omniglot-mann", tmp_path / "mann")
    judged = judge(tmp_path / "mann", "digits", n_way=3, episodes=6, seed=2, split="all")
    assert judged.streams is not None
    assert judged.streams.instances == 10
    document = json.loads(json.dumps(judged.to_dict()))
    assert document["accuracy"]["mean"] == judged.report.mean
    assert document["streams"]["protocol"] | {"streams_sha256": ""} == {
        "split": "all",
        "n_way": 3,
        "instances": 10,
        "streams": 6,
        "seed": 2,
        "label": "one step late",
        "streams_sha256": "",
    }
    assert list(document["streams"]["accuracy_by_instance"]) == [str(k) for k in range(1, 11)]
    assert "  instance  2:" in judged.text()
    plain = judge(tmp_path / "mann", "digits", n_way=3, episodes=6, split="all", streams=False)
    assert plain.streams is None
    assert "streams" not in plain.to_dict()


def test_any_run_of_classes_can_be_judged_on_streams(tmp_path):
    save_learner(PrototypicalNetwork(Conv4(channels=8)), tmp_path / "protonet")
    run = load_run(tmp_path / "protonet")
    assert judge(run, "digits", split="all", episodes=2).streams is None
    judged = judge(run, "digits", split="all", episodes=2, streams=True)
    assert judged.streams is not None
    assert judged.streams.accuracy(10).mean > judged.streams.accuracy(1).mean


def test_streams_of_sine_waves_are_refused(tmp_path):
    run = train_recipe("sinusoid-maml", ["steps=1", "validation.episodes=2"], out=tmp_path / "s")
    with pytest.raises(ConfigError, match="streams=True needs classes"):
        judge(run.load(), "sinusoid", k_shot=5, episodes=2, streams=True)


def test_memory_runs_are_compared_and_checked(tmp_path):
    for name in ("omniglot-lstm", "omniglot-snail"):
        trained(name, tmp_path / name)
    runs = [str(tmp_path / name) for name in SMALL if (tmp_path / name).exists()]
    compared = compare_runs(runs, ["digits"], n_way=3, episodes=4, out=str(tmp_path / "compared"))
    assert "omniglot-snail" in compared.text()
    for run in runs:
        text = check(run, data="digits", n_way=3, episodes=20).text()
        assert "passed: query-statistics" in text
        assert "label-order" in text
        assert "skipped: support-order: the learner declares that it is order-sensitive" in text


@pytest.mark.parametrize(
    "learner",
    [
        MANN(Identity((1, 16, 16)), n_way=3, hidden_size=8, slots=6, width=4, heads=2),
        SNAIL(Conv4(channels=8, image_size=16), n_way=3, length=4, filters=4),
        MANN(Identity((6,)), n_way=3, hidden_size=8, protocol="episode"),
    ],
    ids=["mann", "snail", "mann on vectors"],
)
def test_a_learner_built_in_python_is_saved_and_loaded(learner, tmp_path):
    save_learner(learner, tmp_path / "saved")
    again = load_learner(tmp_path / "saved")
    assert type(again) is type(learner)
    assert again.built_with.keys() == learner.built_with.keys()
    x = torch.rand(1, 6, *learner.encoder.in_shape)
    from quickstudy.core import Examples

    support = Examples.full(x, torch.arange(3).repeat(1, 2))
    answers = [
        one.eval().predict(one.adapt(support, n_way=3), x).detach() for one in (learner, again)
    ]
    assert torch.equal(*answers)


def test_pixels_of_no_square_image_are_no_run(tmp_path):
    """(4, 8) and (2, 16) are both 32 numbers: no document of an image describes them."""
    assert not save_learner(PrototypicalNetwork(Identity((4, 8))), tmp_path / "odd")
    assert save_learner(PrototypicalNetwork(Identity((8,))), tmp_path / "vectors")


def test_the_recipes_are_the_papers():
    mann, lstm = RECIPES["omniglot-mann"], RECIPES["omniglot-lstm"]
    assert (mann.learner.slots, mann.learner.width, mann.learner.heads) == (128, 40, 4)
    assert mann.learner.decay == 0.95
    assert mann.learner.hidden_size == lstm.learner.hidden_size == 200
    assert mann.encoder.image_size == 20
    assert mann.train == lstm.train
    assert (mann.train.n_way, mann.train.k_shot) == (5, 10)
    with pytest.raises(ConfigError, match="slots is for mann, not for lstm"):
        override(lstm, ["slots=4"])
    assert get_recipe("omniglot-snail").learner.length == 26

"""A learner of the user's own is trained, scored and compared by the verbs that it writes."""

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.comparing import compare_learners
from quickstudy.core import ConfigError, EpisodeSpec, TaskError
from quickstudy.evaluation import evaluate
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    EmbeddingLearner,
    Learner,
    MatchingNetwork,
    MetaSGD,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
    meta_loss,
)
from quickstudy.learners.heads import RidgeHead
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool
from quickstudy.training import TrainConfig, train
from quickstudy.training.step import check_config

SPEC = EpisodeSpec(3, 1, 2)
CONFIG = TrainConfig(steps=2, n_way=3, n_query=2, tasks_per_step=2)


def source():
    return PoolSource(gaussian_pool(8, 9, (4,), separation=3.0))


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))


class Reversed(PrototypicalNetwork):
    def predict(self, state, x):
        return -super().predict(state, x)


class Ridged(EmbeddingLearner):
    def __init__(self, encoder):
        super().__init__(encoder, RidgeHead())

    def predict(self, state, x):
        return -super().predict(state, x)


class Blind(MatchingNetwork):
    def adapt(self, support, *, n_way):
        state = super().adapt(support, n_way=n_way)
        return {**state, "support": torch.ones_like(state["support"])}


def patched(encoder):
    learner = PrototypicalNetwork(encoder)
    answer = learner.predict
    learner.predict = lambda state, x: -answer(state, x)
    return learner


@pytest.mark.parametrize("make", [Reversed, Ridged, Blind, patched])
def test_what_a_class_writes_itself_is_what_is_scored_and_trained(make):
    learner = make(net()).eval()
    cached, uncached = (
        evaluate(learner, source(), SPEC, episodes=30, cache_embeddings=cached)
        for cached in (True, False)
    )
    np.testing.assert_array_equal(cached.scores, uncached.scores)
    assert cached.mean < 0.5  # the head alone would reach nearly 1
    compared = compare_learners({"own": learner}, {"tasks": source()}, SPEC, episodes=5)
    assert compared.comparison.cells[0].report.mean < 0.5
    episode = source().episodes(SPEC, [0, 1], seed=0)
    torch.testing.assert_close(
        learner.training_loss(episode, progress=0.0), meta_loss(learner, episode)
    )


def test_running_averages_are_tracked_where_a_class_writes_predict_itself():
    learner = Reversed(net()).train()
    norm = learner.encoder.module[1]
    learner.training_loss(source().episodes(SPEC, [0], seed=0), progress=0.0)
    assert int(norm.num_batches_tracked) == 2  # the support and the queries
    learner.adapt(source().episodes(SPEC, [0], seed=0).support, n_way=3)
    assert int(norm.num_batches_tracked) == 2


@pytest.mark.parametrize("flag", ["transductive", "order_sensitive", "label_sensitive"])
def test_what_a_class_declares_is_kept(flag):
    assert not getattr(PrototypicalNetwork(nn.Linear(4, 2)), flag)
    own = type("Own", (PrototypicalNetwork,), {flag: True, "family": "memory"})
    learner = own(nn.Linear(4, 2))
    assert getattr(learner, flag)
    assert learner.family == "memory"


def test_a_loss_that_calls_what_a_class_writes_is_trained():
    own = type("Own", (IMAML,), {"predict": IMAML.predict})
    check_config(own(nn.Linear(4, 4)), CONFIG)


@pytest.mark.parametrize("family", [MAML, FOMAML, MetaSGD, ANIL, Reptile, ProtoMAML])
@pytest.mark.parametrize("verb", ["adapt", "predict"])
def test_a_loss_that_does_not_call_what_a_class_writes_is_refused(family, verb):
    check_config(family(nn.Linear(4, 4)), CONFIG)  # ours is trained by its own loss
    own = type("Own", (family,), {verb: lambda self, *a, **k: None})
    with pytest.raises(ConfigError, match=f"Own writes {verb} itself"):
        train(own(nn.Linear(4, 4)), source(), CONFIG)

    def training_loss(self, episode, *, progress, roles=None):
        return meta_loss(self, episode)

    with_loss = type(
        "Own", (family,), {verb: getattr(family, verb), "training_loss": training_loss}
    )
    check_config(with_loss(nn.Linear(4, 4)), CONFIG)


class Answers(Learner):
    def __init__(self, answer):
        super().__init__()
        self.answer, self.weight = answer, nn.Parameter(torch.zeros(()))

    def adapt(self, support, *, n_way):
        return {"n_way": torch.full((len(support.y),), n_way)}

    def predict(self, state, x):
        return self.answer(x)


SHAPES = {
    "no classes": lambda x: torch.zeros(x.shape[:2]),
    "a class too many": lambda x: torch.zeros(*x.shape[:2], 4),
    "a class too few": lambda x: torch.zeros(*x.shape[:2], 2),
    "one task": lambda x: torch.zeros(1, x.shape[1], 3),
    "one query": lambda x: torch.zeros(len(x), 1, 3),
    "an axis more": lambda x: torch.zeros(*x.shape[:2], 3, 1),
    "an array": lambda x: np.zeros((*x.shape[:2], 3)),
    "nothing": lambda _: None,
}


@pytest.mark.parametrize("answer", SHAPES)
def test_answers_of_another_shape_are_refused(answer):
    learner = Answers(SHAPES[answer])
    with pytest.raises(TaskError, match=r"Answers\.predict returned .* need logits \[T, Q, C\]"):
        evaluate(learner, source(), SPEC, episodes=2)
    with pytest.raises(TaskError, match=r"Answers\.predict returned"):
        train(learner, source(), CONFIG)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_answers_without_probabilities_are_refused(value):
    learner = Answers(lambda x: torch.full((*x.shape[:2], 3), value))
    with pytest.raises(TaskError, match="it has no probabilities"):
        evaluate(learner, source(), SPEC, episodes=2)


LOSSES = {
    "a mean": lambda loss: loss.mean(),
    "one for each query": lambda loss: loss[:, None].expand(-1, 4),
    "a number": lambda _: 1.0,
    "nothing": lambda _: None,
    "more than a loss": lambda loss: (loss, {}),
    "no gradient": lambda loss: loss.detach(),
    "whole numbers": lambda loss: loss.long(),
}


@pytest.mark.parametrize("made", LOSSES)
def test_losses_that_are_no_number_for_each_task_are_refused(made):
    class Own(PrototypicalNetwork):
        def training_loss(self, episode, *, progress, roles=None):
            return LOSSES[made](super().training_loss(episode, progress=progress, roles=roles))

    with pytest.raises(ConfigError, match=r"the training_loss of Own returned .* each task"):
        train(Own(nn.Linear(4, 4)), source(), CONFIG)

"""Streams: accuracy by instance, of learners that answer in one pass and of all others."""

import numpy as np
import pytest
import torch

from quickstudy.core import ConfigError, EpisodeSpec, Examples, QuickstudyError, TaskError
from quickstudy.evaluation import Mean, evaluate_streams, instance_numbers
from quickstudy.learners import (
    LSTMLearner,
    NearestNeighbour,
    PrototypicalNetwork,
    StreamLearner,
    stream_logits,
    stream_loss,
)
from quickstudy.learners.streams import in_order, learned_on_streams
from quickstudy.nets import MLP, Identity
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool


def source(classes=8, each=12, shape=(4,)):
    return PoolSource(gaussian_pool(classes, each, shape))


class Knowing(StreamLearner):
    """Names a class from its second example on, and class 0 before that."""

    def adapt(self, support, *, n_way):
        raise AssertionError("a stream is answered in one pass")

    predict = adapt

    def stream_logits(self, stream, *, n_way):
        second = instance_numbers(stream.y, stream.mask) > 1
        return torch.nn.functional.one_hot(stream.y * second, n_way).float()


def test_the_instances_of_a_class_are_counted_in_their_order():
    y = torch.tensor([[0, 1, 0, 0, 2, 1], [2, 2, 2, 2, 2, 2]])
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2] = False
    assert instance_numbers(y, mask).tolist() == [[1, 1, 0, 2, 1, 2], [1, 2, 3, 4, 5, 6]]


def test_the_table_by_instance_is_that_of_a_learner_that_is_known():
    report = evaluate_streams(Knowing(), source(), n_way=4, instances=5, streams=30)
    assert report.scores.shape == (30, 5)
    # of the first instances only those of class 0 are right
    assert report.scores[:, 0].tolist() == [0.25] * 30
    assert np.all(report.scores[:, 1:] == 1)
    assert report.accuracy(1) == Mean.of(report.scores[:, 0], over="streams")
    document = report.to_dict()
    assert document["accuracy_by_instance"]["1"]["mean"] == 0.25
    assert document["protocol"]["streams"] == 30
    text = report.text()
    assert "streams of 4 classes, 5 examples each" in text
    assert "95 % CI over 30 streams" in text
    assert text.splitlines()[1].split() == ["instance", "1:", "25.00", "±", "0.00"]


@pytest.mark.parametrize("instance", [0, 6])
def test_an_instance_that_streams_do_not_have_is_refused(instance):
    report = evaluate_streams(Knowing(), source(), n_way=4, instances=5, streams=2)
    with pytest.raises(ConfigError, match="instances 1 to 5"):
        report.accuracy(instance)


def test_streams_do_not_depend_on_how_they_are_batched(monkeypatch):
    from quickstudy.evaluation import streams

    learner, told = NearestNeighbour(), []
    once = evaluate_streams(learner, source(), n_way=3, instances=3, streams=7, seed=4)
    monkeypatch.setattr(streams, "_STREAMS_AT_ONCE", 3)
    again = evaluate_streams(
        learner, source(), n_way=3, instances=3, streams=7, seed=4, progress=told.append
    )
    assert told == [3, 3, 1]
    assert np.array_equal(once.scores, again.scores)
    assert once.streams_sha256 == again.streams_sha256
    other = evaluate_streams(learner, source(), n_way=3, instances=3, streams=7, seed=5)
    assert other.streams_sha256 != once.streams_sha256


@pytest.mark.parametrize(
    "learner", [NearestNeighbour(), PrototypicalNetwork(Identity((4,)))], ids=["1-NN", "protonet"]
)
def test_other_learners_learn_the_examples_before_each_step_anew(learner):
    stream = source().episodes(EpisodeSpec(3, 4, 1), [0, 1], seed=0).support
    logits = stream_logits(learner, stream, n_way=3)
    assert logits[:, 0].tolist() == [[0, 0, 0]] * 2
    for t in range(1, 12):
        before = Examples.full(stream.x[:, :t], stream.y[:, :t])
        expected = learner.predict(learner.adapt(before, n_way=3), stream.x[:, t : t + 1])[:, 0]
        torch.testing.assert_close(logits[:, t], expected)
    report = evaluate_streams(learner, source(), n_way=3, instances=6, streams=40)
    # without an example a class is not known at all
    assert report.accuracy(1).mean < 0.2
    assert report.accuracy(6).mean > 0.6


def test_padding_goes_to_the_end_and_back():
    x = torch.arange(8.0).view(2, 4, 1)
    x[0, 1] = float("nan")
    mask = torch.tensor([[True, False, True, True], [False, True, True, False]])
    y = torch.tensor([[0, -9, 1, 0], [-9, 1, 0, -9]])
    ordered, places = in_order(Examples(x, y, mask))
    assert ordered.x[..., 0].tolist() == [[0, 2, 3, 0], [5, 6, 0, 0]]
    assert ordered.y.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert ordered.mask.tolist() == [[True, True, True, False], [True, True, False, False]]
    from quickstudy.learners.streams import back_in_place

    assert back_in_place(ordered.x, places)[..., 0].tolist() == [[0, 0, 2, 3], [0, 5, 6, 0]]


def test_the_loss_of_a_stream_is_the_mean_over_its_steps():
    learner = LSTMLearner(MLP((4,), (8,)), n_way=3, hidden_size=8)
    stream = source().episodes(EpisodeSpec(3, 4, 1), range(5), seed=0).support
    logits = stream_logits(learner, stream, n_way=3)
    by_hand = -logits.log_softmax(2).gather(2, stream.y[..., None])[..., 0].mean(1)
    torch.testing.assert_close(stream_loss(learner, stream, n_way=3), by_hand)
    # classes that were not shown have no probability with learners that are asked step by step
    assert bool(stream_loss(NearestNeighbour(), stream, n_way=3).isinf().all())


def test_an_lstm_learns_to_bind_labels_on_streams():
    """Two clouds with random labels: a network that keeps labels knows the later ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = LSTMLearner(Identity((4,)), n_way=2, hidden_size=24)
    training, optimiser = source(2), torch.optim.Adam(learner.parameters(), 1e-2)
    for step in range(120):
        ids = range(16 * step, 16 * step + 16)
        episode = training.episodes(EpisodeSpec(2, 5, 1), ids, seed=0)
        optimiser.zero_grad()
        learner.training_loss(episode, progress=0.0).mean().backward()
        optimiser.step()
    report = evaluate_streams(learner, training, n_way=2, instances=5, streams=100, seed=1)
    assert report.accuracy(1).mean < 0.85
    assert report.accuracy(5).mean > 0.9
    assert learned_on_streams(learner)
    assert not learned_on_streams(NearestNeighbour())
    assert not learned_on_streams(
        LSTMLearner(Identity((4,)), n_way=2, hidden_size=4, protocol="episode")
    )


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(TaskError, match="streams must be at least 1"):
        evaluate_streams(NearestNeighbour(), source(), streams=0)
    with pytest.raises(QuickstudyError, match="5-way tasks need 5"):
        evaluate_streams(NearestNeighbour(), source(4), n_way=5)
    regression = Examples.full(torch.rand(1, 3, 4), torch.rand(1, 3))
    with pytest.raises(TaskError, match="real numbers"):
        stream_logits(NearestNeighbour(), regression, n_way=1)

    class Broken(Knowing):
        def stream_logits(self, stream, *, n_way):
            return super().stream_logits(stream, n_way=n_way) * float("nan")

    with pytest.raises(TaskError, match="Broken predicted NaN"):
        evaluate_streams(Broken(), source(), n_way=3, instances=2, streams=2)

"""Evaluation: the same scores however they are computed, and numbers with their protocol."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.core import ConfigError, Episode, EpisodeSpec, Examples, ProtocolError, TaskError
from quickstudy.evaluation import compare, embed_pool, evaluate, mean_interval
from quickstudy.evaluation.classes import class_interval
from quickstudy.evaluation.statistics import CalibrationCounts
from quickstudy.learners import MatchingNetwork, NearestNeighbour, PrototypicalNetwork
from quickstudy.nets import MLP, Conv4, Identity
from quickstudy.tasks import AffineJitter, AugmentedSource, PoolSource, SinusoidSource
from quickstudy.testing import ConstantLearner, OracleLearner, gaussian_pool, snapshot

SPEC = EpisodeSpec(3, 2, 3)


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def source(shape=(1, 16, 16), **options):
    return PoolSource(gaussian_pool(8, 9, shape, separation=0.3, **options))


@pytest.mark.parametrize("learner", [PrototypicalNetwork, MatchingNetwork])
@pytest.mark.parametrize("norm", ["batch", "group", "support"])
@pytest.mark.parametrize("spec", [SPEC, EpisodeSpec((2, 5), (1, 3), 3)])
def test_cached_embeddings_give_the_same_scores(learner, norm, spec):
    model = seeded(lambda: learner(Conv4(image_size=16, channels=8, norm=norm)))
    a, b = (
        evaluate(model, source(), spec, episodes=12, cache_embeddings=cached)
        for cached in (True, False)
    )
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-12)
    assert a.protocol == b.protocol
    assert abs(a.calibration_error - b.calibration_error) < 1e-4
    assert abs(a.class_interval.low - b.class_interval.low) < 1e-9


def test_the_list_of_episodes_has_one_hash_whatever_the_batches(monkeypatch):
    spec = EpisodeSpec((2, 5), (1, 3), 3)
    whole = evaluate(ConstantLearner(), source(), spec, episodes=20)
    for name, value in (("_TASKS_AT_ONCE", 7), ("_FLOATS_AT_ONCE", 1)):
        monkeypatch.setattr(sys.modules["quickstudy.evaluation.evaluate"], name, value)
        other = evaluate(ConstantLearner(), source(), spec, episodes=20)
        assert other.protocol.episodes_sha256 == whole.protocol.episodes_sha256
        assert np.array_equal(other.scores, whole.scores)
    again = evaluate(ConstantLearner(), source(), spec, episodes=20, seed=1)
    assert again.protocol.episodes_sha256 != whole.protocol.episodes_sha256


def test_the_hash_does_not_depend_on_the_learner():
    prototypes = PrototypicalNetwork(Identity((1, 16, 16)))
    hashes = {
        evaluate(learner, source(), SPEC, episodes=5).protocol.episodes_sha256
        for learner in (
            ConstantLearner(),
            NearestNeighbour(),
            prototypes,
        )
    }
    assert len(hashes) == 1


def test_scores_are_what_a_loop_would_find():
    model = seeded(lambda: PrototypicalNetwork(MLP((4,), (5,))))
    report = evaluate(model, source((4,)), SPEC, episodes=10)
    for i, score in enumerate(report.scores):
        episode = source((4,)).episodes(SPEC, [i], seed=0)
        with torch.no_grad():
            logits = model.predict(model.adapt(episode.support, n_way=3), episode.query.x)
        assert score == pytest.approx(float((logits.argmax(2) == episode.query.y).float().mean()))
    assert report.mean == pytest.approx(report.scores.mean())
    assert report.ci95 == pytest.approx(mean_interval(report.scores))


def test_its_calibration_error_and_interval_over_classes_are_those_of_a_loop():
    model = seeded(lambda: PrototypicalNetwork(MLP((4,), (5,))))
    report = evaluate(model, source((4,)), SPEC, episodes=12)
    counts, classes = CalibrationCounts(), []
    for i in range(12):
        episode = source((4,)).episodes(SPEC, [i], seed=0)
        with torch.no_grad():
            logits = model.predict(model.adapt(episode.support, n_way=3), episode.query.x)
        best, answer = logits.double().softmax(2).max(2)
        counts.add(best[0].numpy(), (answer == episode.query.y)[0].numpy())
        classes.append(episode.info["classes"][0].numpy())
    assert report.calibration_error == pytest.approx(counts.error(), abs=1e-6)
    over = class_interval(report.scores, np.array(classes), most=1.0)
    assert over.high < 1
    assert (report.class_interval.low, report.class_interval.high) == (over.low, over.high)


def test_no_interval_over_classes_goes_beyond_all_right():
    near = PoolSource(gaussian_pool(8, 9, (4,), separation=1.6))
    model = PrototypicalNetwork(Identity((4,)))
    report = evaluate(model, near, SPEC, episodes=40)
    assert report.scores.min() < 1
    assert (
        class_interval(
            report.scores,
            np.array(
                [near.episodes(SPEC, [i], seed=0).info["classes"][0].numpy() for i in range(40)]
            ),
        ).high
        > 1
    )
    assert report.class_interval.high == 1


def test_sinusoids_are_scored_by_mean_squared_error():
    train_like, spec = SinusoidSource("val"), EpisodeSpec(1, 10, 20)
    report = evaluate(NearestNeighbour(), train_like, spec, episodes=30)
    assert report.protocol.metric == "mse"
    assert report.class_interval is None
    assert report.calibration_error is None
    episode = train_like.episodes(spec, range(30), seed=0)
    gap = (episode.query.x - episode.support.x.transpose(1, 2)).abs()  # [T, Q, S]
    nearest = episode.support.y.gather(1, gap.argmin(2))
    expected = (nearest - episode.query.y).square().mean(1)
    np.testing.assert_allclose(report.scores, expected, rtol=1e-5)
    more = evaluate(NearestNeighbour(), train_like, EpisodeSpec(1, 100, 20), episodes=30)
    assert more.mean < report.mean / 4  # more examples help
    assert "mean squared error" in str(report)
    assert set(report.to_dict()["mse"]) == {"mean", "ci95"}


def test_the_document_is_json_with_fractions():
    report = evaluate(OracleLearner(), source((3,), tell_class=True), SPEC, episodes=6, name="me")
    document = json.loads(json.dumps(report.to_dict()))
    assert set(document) == {
        "learner",
        "data",
        "protocol",
        "accuracy",
        "calibration_error",
        "seconds",
    }
    assert document["learner"] == "me"
    assert document["data"] == "gaussian"
    assert set(document["protocol"]) == {
        "split",
        "n_way",
        "k_shot",
        "n_query",
        "episodes",
        "seed",
        "transductive",
        "metric",
        "episodes_sha256",
    }
    assert document["accuracy"] == {
        "mean": 1.0,
        "ci95": 0.0,
        "class_interval95": [1.0, 1.0],
        "class_bootstrap95": [1.0, 1.0],  # its key in documents of earlier versions
        "class_interval_method": "jackknife over classes",
    }
    text = str(report)
    assert "100.00 ± 0.00 % (95 % CI over 6 episodes, fixed classes, seed 0)" in text
    assert "over new classes" in text


def test_transduction_is_printed():
    class Peeking(ConstantLearner):
        transductive = True

    report = evaluate(Peeking(), source((3,)), SPEC, episodes=3)
    assert str(report).endswith("[transductive]")
    assert report.to_dict()["protocol"]["transductive"] is True


def test_comparison_is_paired():
    a = evaluate(OracleLearner(), source((3,), tell_class=True), SPEC, episodes=20, name="a")
    b = evaluate(NearestNeighbour(), source((3,), tell_class=True), SPEC, episodes=20, name="b")
    paired = compare(a, b)
    assert (paired.first, paired.second) == ("a", "b")
    assert paired.mean == pytest.approx(a.mean - b.mean)
    assert paired.ci95 == pytest.approx(mean_interval(a.scores - b.scores))


def test_comparison_refuses_and_names_every_difference():
    a = evaluate(ConstantLearner(), source((3,)), SPEC, episodes=5)
    b = evaluate(
        ConstantLearner(), source((3,), name="other"), EpisodeSpec(4, 2, 3), episodes=5, seed=3
    )
    with pytest.raises(ProtocolError) as caught:
        compare(a, b)
    message = str(caught.value)
    for part in (
        "data: 'gaussian' and 'other'",
        "n_way: 3 and 4",
        "seed: 0 and 3",
        "episodes_sha256",
    ):
        assert part in message
    for part in ("k_shot", "split", "metric"):
        assert part not in message


def test_evaluation_restores_the_mode_also_after_an_error():
    model = PrototypicalNetwork(MLP((3,), (4,))).train()
    before = snapshot(model)
    with pytest.raises(TaskError):
        evaluate(model, source((3,)), EpisodeSpec(9, 1, 1), episodes=2)
    assert model.training
    assert snapshot(model) == before


def test_nan_predictions_and_no_episodes_are_refused():
    class Broken(ConstantLearner):
        def predict(self, state, x):
            return super().predict(state, x) * float("nan")

    with pytest.raises(TaskError, match="Broken predicted NaN"):
        evaluate(Broken(), source((3,)), SPEC, episodes=2)
    with pytest.raises(TaskError, match="at least 1; got 0"):
        evaluate(ConstantLearner(), source((3,)), SPEC, episodes=0)


def test_a_diverged_encoder_is_reported_as_such():
    model = PrototypicalNetwork(MLP((3,), (4,)))
    nn.init.constant_(model.encoder.layers[0].weight, float("nan"))
    with pytest.raises(TaskError, match=r"NaN.*diverge"):
        evaluate(model, source((3,)), SPEC, episodes=2)


def test_progress_counts_all_episodes():
    seen = []
    evaluate(ConstantLearner(), source((3,)), SPEC, episodes=300, progress=seen.append)
    assert sum(seen) == 300


def test_embedding_some_rows_leaves_the_others_zero():
    model = seeded(lambda: PrototypicalNetwork(MLP((3,), (4,))))
    pool = source((3,))
    some = embed_pool(model, pool, rows=np.array([1, 5]))
    every = embed_pool(model, pool)
    torch.testing.assert_close(some.pool.x[[1, 5]], every.pool.x[[1, 5]])
    assert some.pool.x.abs().sum(1).count_nonzero() == 2
    with torch.no_grad():
        torch.testing.assert_close(every.pool.x, model.encoder.encode(pool.pool.x[None])[0][0])


def test_calibration_error_by_hand():
    counts = CalibrationCounts(bins=10)
    counts.add(np.array([0.95, 0.91, 0.25]), np.array([True, False, True]))
    counts.add(np.array([1.0]), np.array([True]))
    # bin [0.9, 1]: mean confidence 2.86 / 3, accuracy 2 / 3; bin [0.2, 0.3): 0.25 and 1
    assert counts.error() == pytest.approx((abs(2.86 - 2) + abs(0.25 - 1)) / 4)
    assert CalibrationCounts().error() == 0.0


def test_interval_of_the_mean_by_hand():
    assert mean_interval(np.array([0.0, 1.0, 2.0])) == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert np.isnan(mean_interval(np.array([0.5])))


def test_other_sources_are_evaluated_uncached():
    jittered = AugmentedSource(source(), AffineJitter())
    model = seeded(lambda: PrototypicalNetwork(Conv4(image_size=16, channels=8)))
    first, second = (evaluate(model, jittered, SPEC, episodes=5) for _ in range(2))
    assert np.array_equal(first.scores, second.scores)
    assert first.protocol.episodes_sha256 == second.protocol.episodes_sha256


class PaddedWaves:
    """Regression tasks whose padding holds anything."""

    name, split = "waves", "test"

    def episodes(self, spec, task_ids, *, seed):
        episode = SinusoidSource("test").episodes(spec, task_ids, seed=seed)
        q = episode.query
        mask = torch.ones_like(q.mask)
        mask[:, -2:] = False
        x, y = (
            v.masked_fill(~mask.view(*mask.shape, *(1,) * (v.ndim - 2)), np.nan) for v in (q.x, q.y)
        )
        return Episode(episode.support, Examples(x, y, mask), 1, episode.info)


def test_what_stands_in_padding_matters_to_no_error():
    class Zero(ConstantLearner):
        def predict(self, state, x):
            return x.new_zeros(*x.shape[:2], 1)

    spec = EpisodeSpec(1, 5, 6)
    report = evaluate(Zero(), PaddedWaves(), spec, episodes=4)
    y = SinusoidSource("test").episodes(spec, range(4), seed=0).query.y[:, :-2]
    np.testing.assert_allclose(report.scores, y.square().mean(1), rtol=1e-5)
    assert "classes" not in str(report)


@pytest.mark.parametrize("device", ["cuda:99", "potato", "meta", torch.device("meta")])
def test_a_device_that_is_none_is_refused_and_the_learner_stays_where_it_is(device):
    model = seeded(lambda: PrototypicalNetwork(MLP((4,), (5,))))
    with pytest.raises(ConfigError, match="device"):
        evaluate(model, source((4,)), SPEC, episodes=2, device=device)
    evaluate(model, source((4,)), SPEC, episodes=2, device="cpu")


def test_numbers_of_numpy_are_numbers():
    learner = ConstantLearner()
    plain = evaluate(learner, source(), SPEC, episodes=3, seed=2)
    for kind in (np.int64, np.uint8):
        report = evaluate(learner, source(), SPEC, episodes=kind(3), seed=kind(2))
        assert json.dumps(report.to_dict()["protocol"]) == json.dumps(plain.to_dict()["protocol"])


@pytest.mark.parametrize("rows", [[-1, 3], [0, 10**6]])
def test_rows_that_are_not_there_are_refused(rows):
    model = PrototypicalNetwork(MLP((4,), (5,)))
    with pytest.raises(ConfigError, match="rows must lie in"):
        embed_pool(model, source((4,)), rows=np.array(rows))

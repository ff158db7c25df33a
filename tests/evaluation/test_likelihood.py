"""Likelihood and intervals of regression: by construction, by a plain loop, and where there are
none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quickstudy.core import DivergenceError, Episode, EpisodeSpec, Examples, TaskError
from quickstudy.evaluation import evaluate, predictive
from quickstudy.evaluation.likelihood import scores_of
from quickstudy.learners import ConditionalNeuralProcess, Gaussian, NearestNeighbour
from quickstudy.learners.base import Learner
from quickstudy.nets import Identity
from quickstudy.tasks import GaussianProcessSource, SinusoidSource

EXACT = GaussianProcessSource(
    "test", kernels=("rbf",), lengths=(0.5, 0.5), scales=(1.0, 1.0), noise=0.1
)


class ExactPosterior(Learner):
    """Knows the one kernel of EXACT, so that what it says is the truth."""

    factor = 1.0

    def adapt(self, support, *, n_way):
        return {"x": support.x, "y": support.y, "mask": support.mask}

    def predictive(self, state, x):
        tasks = len(x)
        info = {"kernel": torch.zeros(tasks).long(), "period": torch.full((tasks,), math.nan)}
        info |= {"length": torch.full((tasks,), 0.5), "scale": torch.ones(tasks)}
        support = Examples(state["x"], state["y"], state["mask"])
        queries = Examples.full(x, x[..., 0])
        mean, deviation = EXACT.posterior(Episode(support, queries, 1, info))
        return Gaussian(mean, self.factor * deviation)

    def predict(self, state, x):
        return self.predictive(state, x).mean[..., None]


class MeanOnly(ExactPosterior):
    def predictive(self, state, x):
        return None

    def predict(self, state, x):
        return super().predictive(state, x).mean[..., None]


def test_the_exact_posterior_is_calibrated_and_its_likelihood_has_the_closed_form():
    spec, n = EpisodeSpec(1, (1, 8), 20), 1500
    report = evaluate(ExactPosterior(), EXACT, spec, episodes=n)
    found = report.likelihood
    assert not found.estimated
    assert abs(found.mean_coverage.mean - 0.9) < 2 * found.mean_coverage.ci95
    assert found.mean_coverage.ci95 < 0.01
    # the entropy of a Gaussian is log(s) + log(2 pi e) / 2
    tasks = EXACT.episodes(spec, range(n), seed=0)
    _, deviation = EXACT.posterior(tasks)
    entropy = deviation.log().mean(1).numpy() + 0.5 * math.log(2 * math.pi * math.e)
    gap = found.nll - entropy
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(n)
    # and the squared error is the variance
    gap = report.scores - deviation.square().mean(1).numpy()
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(n)


@pytest.mark.parametrize(("factor", "share"), [(0.5, 0.589), (2.0, 0.999)])
def test_too_narrow_and_too_wide_intervals_are_seen(factor, share):
    learner = ExactPosterior()
    learner.factor = factor
    spec = EpisodeSpec(1, 5, 20)
    found = evaluate(learner, EXACT, spec, episodes=600).likelihood
    assert abs(found.mean_coverage.mean - share) < 0.02
    best = evaluate(ExactPosterior(), EXACT, spec, episodes=600).likelihood
    assert found.mean_nll.mean > best.mean_nll.mean + 0.1


def test_a_mean_only_is_judged_by_errors_on_held_out_support():
    source, spec = SinusoidSource("test"), EpisodeSpec(1, (3, 6), 5)
    report = evaluate(NearestNeighbour(), source, spec, episodes=9)
    assert report.likelihood.estimated
    tasks = source.episodes(spec, range(9), seed=0)
    for t in range(9):
        real = tasks.support.mask[t]
        points = list(
            zip(
                tasks.support.x[t, real, 0].tolist(), tasks.support.y[t, real].tolist(), strict=True
            )
        )

        def nearest(x, among):
            return min(among, key=lambda point: abs(point[0] - x))[1]

        errors = [
            y - nearest(x, [p for j, p in enumerate(points) if j != i])
            for i, (x, y) in enumerate(points)
        ]
        s = math.sqrt(sum(e**2 for e in errors) / len(errors))
        losses, inside = [], 0
        for x, y in zip(tasks.query.x[t, :, 0].tolist(), tasks.query.y[t].tolist(), strict=True):
            gap = y - nearest(x, points)
            losses.append(0.5 * (gap / s) ** 2 + math.log(s) + 0.5 * math.log(2 * math.pi))
            inside += abs(gap) <= 1.6448536 * s
        assert report.likelihood.nll[t] == pytest.approx(sum(losses) / 5, rel=1e-4)
        assert report.likelihood.coverage[t] == pytest.approx(inside / 5)


def test_the_estimated_deviation_is_of_the_right_size():
    spec = EpisodeSpec(1, 30, 30)
    found = evaluate(MeanOnly(), EXACT, spec, episodes=100).likelihood
    assert found.estimated
    assert 0.85 < found.mean_coverage.mean < 0.95


def test_at_most_ten_parts_are_held_out():
    class Counting(MeanOnly):
        calls = 0

        def adapt(self, support, *, n_way):
            type(self).calls += 1
            assert bool(support.mask.any(1).all())
            return super().adapt(support, n_way=n_way)

    evaluate(Counting(), EXACT, EpisodeSpec(1, (3, 40), 3), episodes=20)
    assert Counting.calls == 11


def test_too_few_examples_have_no_estimate():
    source = SinusoidSource("test")
    for shots in (1, 2, (2, 6)):
        report = evaluate(NearestNeighbour(), source, EpisodeSpec(1, shots, 5), episodes=20)
        assert report.likelihood is None
        assert report.to_dict().keys() & {"nll", "coverage90", "deviation"} == set()
    own = ConditionalNeuralProcess(Identity((1,)))
    assert evaluate(own, source, EpisodeSpec(1, 1, 5), episodes=5).likelihood is not None
    one = source.episodes(EpisodeSpec(1, 2, 5), [0], seed=0)
    assert predictive(NearestNeighbour(), one.support, one.query.x) is None


def test_a_learner_that_diverges_on_less_support_has_no_estimate():
    class Fragile(NearestNeighbour):
        def adapt(self, support, *, n_way):
            if int(support.mask.sum(1).min()) < 5:
                raise DivergenceError("too little")
            return super().adapt(support, n_way=n_way)

    report = evaluate(Fragile(), SinusoidSource("test"), EpisodeSpec(1, 5, 5), episodes=8)
    assert report.likelihood is None
    assert len(report.scores) == 8


def test_documents_and_words_have_both_numbers():
    source, spec = SinusoidSource("test"), EpisodeSpec(1, 5, 5)
    learner = ConditionalNeuralProcess(Identity((1,)))
    report = evaluate(learner, source, spec, episodes=12)
    document = report.to_dict()
    assert document["mse"]["mean"] == report.mean
    assert document["nll"]["mean"] == pytest.approx(float(report.likelihood.nll.mean()))
    assert document["nll"]["ci95"] > 0
    assert 0 <= document["coverage90"]["mean"] <= 1
    assert document["deviation"] == "learner"
    assert "negative log-likelihood" in str(report)
    assert "90 % intervals hold" in str(report)
    without = evaluate(learner, source, spec, episodes=12, likelihood=False)
    assert without.likelihood is None
    np.testing.assert_array_equal(without.scores, report.scores)


def test_padded_queries_count_nothing():
    said = Gaussian(torch.zeros(1, 3), torch.ones(1, 3))
    mask = torch.tensor([[True, False, True]])
    y = torch.tensor([[0.0, math.nan, 2.0]])
    nll, coverage = scores_of(said, Examples(y[..., None], y, mask))
    assert nll[0] == pytest.approx((2**2 / 2) / 2 + 0.5 * math.log(2 * math.pi))
    assert coverage[0] == 0.5


def test_impossible_answers_are_refused():
    class Wrong(ExactPosterior):
        def predictive(self, state, x):
            mean = x[..., 0]
            return Gaussian(mean, torch.zeros_like(mean))

    class Odd(ExactPosterior):
        def predictive(self, state, x):
            return Gaussian(x[:, :1, 0], x[:, :1, 0])

        def predict(self, state, x):
            return x

    for kind, about in ((Wrong, "deviation of 0"), (Odd, r"need \[T, Q\]")):
        with pytest.raises(TaskError, match=about):
            evaluate(kind(), EXACT, EpisodeSpec(1, 3, 4), episodes=2)
    with pytest.raises(TaskError, match="a mean and a deviation for each query"):
        Gaussian(torch.zeros(1, 2), torch.ones(1, 3))
    classes = Examples(torch.zeros(1, 2, 1), torch.zeros(1, 2).long(), torch.ones(1, 2).bool())
    with pytest.raises(TaskError, match="is for regression"):
        predictive(NearestNeighbour(), classes, torch.zeros(1, 1, 1))


def test_intervals_hold_the_share_they_are_asked_for():
    from quickstudy.core import ConfigError

    said = Gaussian(torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    low, high = said.interval(0.5)
    assert float(high - 1) == pytest.approx(0.6744898 * 2)
    assert float(1 - low) == pytest.approx(0.6744898 * 2)
    for share in (0.0, 1.0, math.nan):
        with pytest.raises(ConfigError, match="share"):
            said.interval(share)

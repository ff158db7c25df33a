"""The interval over new classes: by hand, against every way to leave out a class, simulated."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.evaluation import class_interval, evaluate
from quickstudy.learners import NearestNeighbour
from quickstudy.tasks import AffineJitter, AugmentedSource, MixtureSource, PoolSource
from quickstudy.testing import gaussian_pool


def all_episodes(n: int, ways: int) -> np.ndarray:
    """Return every set of ``ways`` of ``n`` classes once ``[E, ways]``."""
    return np.array(list(combinations(range(n), ways)))


def half_width(interval) -> float:
    return (interval.high - interval.low) / 2


def test_by_hand_on_all_pairs_of_four_classes():
    # class 3 takes 0.6 from each episode that it is in: every episode once, twice over
    classes = np.repeat(all_episodes(4, 2), 2, axis=0)
    scores = np.where((classes == 3).any(1), 0.2, 0.8)
    # the mean is 0.5; m_c = 0.6 for the others and 0.2 for class 3, n = 4, N = 2:
    # d = N (n-1) / (n-N) (m - U) = 3 (0.1, 0.1, 0.1, -0.3), variance 0.36, over n: 0.09
    between = 0.09
    # in one class's 12 summands (n/E)(n-1)/(n-N)(y - U) = 0.5 (y - 0.5): for the others four of
    # 0.15 and two of -0.15, for class 3 six of -0.15; the sum over classes is 2 x 0.15 (-1)^..., so
    own = 3 * (6 * 0.15**2 - 0.3**2 / 12) + (6 * 0.15**2 - 0.9**2 / 12)
    own, joint = own * 12 / 11, 12 * (12 * 0.3**2) / 11
    noise = (own - joint / 4) / 3 / 4
    among = 12 * 0.3**2 / 11 / 12
    total = between - noise + among
    freedom = total**2 / (among**2 / 11 + between**2 / 3 + noise**2 / 11)
    expected = stats.t.ppf(0.975, max(4.0, freedom)) * total**0.5
    found = class_interval(scores, classes)
    # it would reach below 0, which no score does
    assert found.low == 0
    assert found.high == pytest.approx(0.5 + expected)
    assert class_interval(scores, classes, most=1.0).high == 1.0


def test_the_variance_is_that_of_leaving_out_one_class():
    """Of all episodes, many times over, nothing is noise: the jackknife by its own definition."""
    n, ways, times = 7, 3, 4000
    classes = np.tile(all_episodes(n, ways), (times, 1))
    effect = np.random.default_rng(0).normal(0, 0.05, n)
    scores = 0.5 + effect[classes].sum(1)
    means = [scores[(classes != c).all(1)].mean() for c in range(n)]
    variance = (n - 1) / n * np.square(means - np.mean(means)).sum()
    # and of a sum of N effects of classes, this is N^2 / n times their variance, exactly
    assert variance == pytest.approx(ways**2 * effect.var(ddof=1) / n)
    expected = stats.t.ppf(0.975, n - 1) * variance**0.5
    assert half_width(class_interval(scores, classes)) == pytest.approx(expected, rel=2e-3)


def simulated(n: int, ways: int, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of episodes whose classes also help or harm each other."""
    random = np.random.default_rng(seed)
    own, drag = random.normal(0, 0.07, (2, n))
    classes = np.argsort(random.random((episodes, n)), 1)[:, :ways]
    given = drag[classes]
    cells = 0.6 + own[classes] + given.sum(1, keepdims=True) - given
    return (cells + random.normal(0, 0.1, cells.shape)).mean(1), classes


@pytest.mark.parametrize(("n", "ways"), [(10, 5), (40, 5), (100, 20)])
def test_it_holds_the_mean_of_the_population(n, ways):
    found = [class_interval(*simulated(n, ways, 200, seed)) for seed in range(300)]
    held = np.mean([interval.low <= 0.6 <= interval.high for interval in found])
    # 300 repeats put a true 95 % within 2.5 points in 95 of 100 seeds; these are fixed
    assert 0.91 <= held <= 0.985


def test_more_episodes_take_away_the_noise_and_not_the_classes():
    few, many = (half_width(class_interval(*simulated(15, 5, e, 3))) for e in (100, 20_000))
    # Var = N^2 / n Var[g], and g is own / N + drag (N - 1) / N
    limit = stats.t.ppf(0.975, 14) * (0.07**2 * (1 + 16) / 15) ** 0.5
    assert many < few
    assert 0.6 * limit < many < 1.5 * limit


def test_classes_that_are_alike_leave_the_interval_over_episodes():
    random = np.random.default_rng(0)
    classes = np.argsort(random.random((4000, 400)), 1)[:, :5]
    scores = random.normal(0.5, 0.1, 4000)
    over_episodes = 1.96 * 0.1 / 4000**0.5
    assert over_episodes < half_width(class_interval(scores, classes)) < 3 * over_episodes


def test_absent_classes_and_ranges_of_ways():
    random = np.random.default_rng(0)
    effect = random.normal(0, 0.06, 30)
    classes = np.full((600, 12), -1)
    for row in classes:
        way = random.integers(4, 13)
        row[:way] = random.permutation(30)[:way]
    given = np.where(classes >= 0, effect[classes], 0)
    ways = (classes >= 0).sum(1)
    # harder with more ways: that is no effect of classes
    scores = 0.9 - 0.03 * ways + given.sum(1) / ways
    found = class_interval(scores, classes)
    expected = stats.t.ppf(0.975, 29) * effect.std(ddof=1) / 30**0.5
    assert half_width(found) == pytest.approx(expected, rel=0.1)
    assert class_interval(scores, classes[:, ::-1]) == found


def test_where_episodes_do_not_tell_how_classes_differ_there_is_none():
    scores = np.linspace(0.2, 0.8, 20)
    everything = np.tile(np.arange(5), (20, 1))
    assert class_interval(scores, everything) is None
    two = np.tile(np.arange(2), (20, 1))
    assert class_interval(scores, two) is None
    some = np.argsort(np.random.default_rng(0).random((20, 9)), 1)[:, :4]
    assert class_interval(scores, some) is not None
    assert class_interval(scores[:4], some[:4]) is None
    assert class_interval(scores[:5], some[:5]) is not None
    sources = np.array([0] * 17 + [1] * 3)
    assert class_interval(scores, some, sources=sources) is None  # three of the second
    constant = class_interval(np.full(20, 0.25), some)
    assert (constant.low, constant.high) == (0.25, 0.25)
    with pytest.raises(ConfigError, match="belong together"):
        class_interval(scores, some[:9])
    with pytest.raises(ConfigError, match="belong together"):
        class_interval(scores, some, sources=sources[:9])


def test_sources_count_as_fixed_and_their_classes_as_drawn():
    """Two sources of the same numbers: their difference is in the episodes' own spread alone."""
    (a, of_a), (b, of_b) = simulated(12, 4, 3000, 1), simulated(12, 4, 3000, 2)
    scores, classes = np.concatenate([a + 0.2, b - 0.2]), np.concatenate([of_a, of_b])
    sources = np.repeat([0, 1], 3000)
    found = half_width(class_interval(scores, classes, sources=sources))
    # Var[(U_a + U_b) / 2] = (Var[U_a] + Var[U_b]) / 4; the quantile is of more degrees of freedom
    alone = [half_width(class_interval(*s)) for s in ((a, of_a), (b, of_b))]
    assert found == pytest.approx(np.hypot(*alone) / 2, rel=0.12)
    # which source an episode comes from is no class: taken for one pool, it would count
    assert half_width(class_interval(scores, of_b[np.r_[:3000, :3000]])) != pytest.approx(found)


def mixture(**more) -> MixtureSource:
    parts = [PoolSource(gaussian_pool(12, 12, (6,), seed=s, name=f"p{s}")) for s in (0, 1)]
    return MixtureSource(parts, [1, 3], **more)


def test_mixtures_have_an_interval_over_classes():
    spec = EpisodeSpec(4, 1, 3)
    report = evaluate(NearestNeighbour(), mixture(), spec, episodes=200)
    assert report.class_interval.low < report.mean < report.class_interval.high
    assert report.class_interval.high - report.class_interval.low > 2 * report.ci95
    document = report.to_dict()["accuracy"]
    assert document["class_interval95"] == document["class_bootstrap95"]
    episode = mixture().episodes(spec, range(40), seed=0)
    assert episode.info["pool"].tolist() == episode.info["source"].tolist()
    # the classes are those of each task's own source
    parts = [PoolSource(gaussian_pool(12, 12, (6,), seed=s, name=f"p{s}")) for s in (0, 1)]
    for t in range(40):
        alone = parts[int(episode.info["source"][t])].episodes(spec, [t], seed=0)
        assert episode.info["classes"][t].tolist() == alone.info["classes"][0].tolist()


def test_a_mixture_in_a_mixture_keeps_its_sources_apart():
    third = PoolSource(gaussian_pool(12, 12, (6,), seed=2))
    nested = MixtureSource([mixture(), third, mixture()], [1, 1, 1])
    info = nested.episodes(EpisodeSpec(4, 1, 3), range(300), seed=0).info
    assert set(info["pool"].tolist()) == {0, 1, 2, 3, 4}
    inner = [info["pool"][info["source"] == s].tolist() for s in range(3)]
    assert [set(found) for found in inner] == [{0, 1}, {2}, {3, 4}]
    # each has its own weights: the outer choice does not decide the inner one
    for found, second in ((inner[0], 1), (inner[2], 4)):
        assert 0.6 < np.mean(np.array(found) == second) < 0.9


def test_a_mixture_of_other_ways_pads_its_classes():
    images = [PoolSource(gaussian_pool(n, 12, (1, 8, 8), seed=n)) for n in (6, 9)]
    source = MixtureSource([images[0], AugmentedSource(images[1], AffineJitter())], [1, 1])
    report = evaluate(NearestNeighbour(), source, EpisodeSpec((3, 6), 1, 3), episodes=120)
    assert report.class_interval is not None

"""Traps of episodes and of numbers, built on purpose, and the check that catches each."""

import numpy as np
import pytest
import torch

from quickstudy.checks import check_source
from quickstudy.core import Episode, EpisodeSpec, Examples, ProtocolError, generator, uniforms
from quickstudy.evaluation import class_interval, mean_interval
from quickstudy.learners import NearestNeighbour, PrototypicalNetwork
from quickstudy.learners.metric import PrototypeHead
from quickstudy.nets import MLP
from quickstudy.tasks import MixtureSource, Pool, PoolSource, sample_index
from quickstudy.testing import SourceConformance, gaussian_pool
from quickstudy.training import TrainConfig, train

# ---------------------------------------------------------------------- episodes


class BrokenSource:
    """A pool source with a fault put into its episodes."""

    name, split = "broken", "all"

    def __init__(self, pool=None):
        self.inner = PoolSource(pool if pool is not None else gaussian_pool(8, 12, (3,)))

    def episodes(self, spec, task_ids, *, seed):
        return self.inner.episodes(spec, task_ids, seed=seed)


class Sorted(BrokenSource):
    def episodes(self, spec, task_ids, *, seed):
        e = super().episodes(spec, task_ids, seed=seed)

        def by_label(side):
            order = side.y.argsort(dim=1, stable=True)
            x = side.x.gather(1, order[..., None].expand_as(side.x))
            return Examples(x, side.y.gather(1, order), side.mask)

        return Episode(by_label(e.support), by_label(e.query), e.n_way)


class AlwaysTheSameLabel(BrokenSource):
    def episodes(self, spec, task_ids, *, seed):
        e = super().episodes(spec, task_ids, seed=seed)
        order = e.info["classes"].argsort(1)  # label = rank of the class in the pool
        rank = order.argsort(1)

        def rename(side):
            return Examples(side.x, rank.gather(1, side.y), side.mask)

        info = {"classes": e.info["classes"].gather(1, order)}
        return Episode(rename(e.support), rename(e.query), e.n_way, info)


class GlobalRandomness(BrokenSource):
    def episodes(self, spec, task_ids, *, seed):
        e = super().episodes(spec, task_ids, seed=seed)
        noisy = Examples(e.support.x + torch.randn(e.support.x.shape), e.support.y, e.support.mask)
        return Episode(noisy, e.query, e.n_way)


class SharedExample(BrokenSource):
    def episodes(self, spec, task_ids, *, seed):
        e = super().episodes(spec, task_ids, seed=seed)
        x = e.query.x.clone()
        for t, task in enumerate(task_ids):
            if task == 99:  # in one episode of many
                x[t, 0] = e.support.x[t, 0]
        return Episode(e.support, Examples(x, e.query.y, e.query.mask), e.n_way)


class Streamed(BrokenSource):
    """Episodes that come off a stream: what is given depends on what was asked before."""

    def episodes(self, spec, task_ids, *, seed):
        e = super().episodes(spec, task_ids, seed=seed)
        order = torch.randperm(len(task_ids), generator=generator(seed, len(task_ids)))
        return Episode(
            Examples(e.support.x[order], e.support.y[order], e.support.mask[order]),
            Examples(e.query.x[order], e.query.y[order], e.query.mask[order]),
            e.n_way,
        )


def source_suite(source):
    class Suite(SourceConformance):
        fresh_process = False

        def make_source(self):
            return source()

        def make_spec(self):
            return EpisodeSpec(4, 2, 3)

    return Suite()


@pytest.mark.parametrize(
    ("source", "check", "says"),
    [
        (Sorted, "test_position_does_not_tell_the_label", "place"),
        (AlwaysTheSameLabel, "test_every_class_gets_every_label", "equally often"),
        (GlobalRandomness, "test_global_generators_are_untouched", "global generator of torch"),
        (
            GlobalRandomness,
            "test_an_episode_is_the_same_alone_in_a_batch_and_in_any_order",
            "depends",
        ),
        (SharedExample, "test_support_and_query_share_nothing", "support and query"),
        (
            Streamed,
            "test_an_episode_is_the_same_alone_in_a_batch_and_in_any_order",
            "batch it is made in",
        ),
    ],
)
def test_a_dishonest_source_is_caught(source, check, says):
    getattr(source_suite(BrokenSource), check)()  # without the fault it passes
    with pytest.raises(AssertionError, match=says):
        getattr(source_suite(source), check)()


def test_a_byte_identical_twin_is_found_by_content_and_by_the_leak_check():
    pool = gaussian_pool(5, 6, (3,))
    x = pool.x.clone()
    x[1] = x[0]
    source = PoolSource(pool.with_x(x))
    with pytest.raises(AssertionError, match="support and query"):
        source_suite(lambda: source).test_support_and_query_share_nothing()
    report = check_source(source, EpisodeSpec(4, 2, 3), episodes=200)
    assert [finding.check for finding in report.findings] == ["shared-content"]
    assert report.findings[0].evidence["easy_queries"] > 0


def test_groups_leak_without_group_awareness_and_not_with_it():
    pool = gaussian_pool(6, 12, (3,), groups_per_class=4)
    spec = EpisodeSpec(4, 2, 3)

    def facts(group_aware: bool) -> str:
        report = check_source(PoolSource(pool, group_aware), spec, episodes=100)
        return next(str(o) for o in report.outcomes if o.check == "shared-groups")

    assert "no group is support and query" not in facts(False)
    assert "no group is support and query" in facts(True)


def test_class_order_does_not_come_from_the_global_generator():
    pool, spec = gaussian_pool(9, 8, (2,)), EpisodeSpec(3, 1, 2)
    rows = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rows.append(sample_index(pool, spec, range(5), seed=0).support)
    assert np.array_equal(*rows)


def test_labels_of_any_kind_give_their_names_back():
    x = torch.randn(12, 4, generator=generator(3))
    labels = [3, 7, "cat"] * 4
    pool = Pool.build(x, labels, name="mixed")
    assert pool.class_names == ("3", "7", "cat")
    for c, name in enumerate(("3", "7", "cat")):
        mine = x[[str(label) == name for label in labels]]
        assert torch.equal(pool.x[pool.y == c], mine)
    state = PrototypeHead().adapt(
        PoolSource(pool).episodes(EpisodeSpec(3, 2, 2), [0], seed=0).support, n_way=3
    )
    assert torch.isfinite(state["prototypes"]).all()


# ---------------------------------------------------------------------- numbers


def simulated_scores(run, episodes=60, queries=15):
    """Episodes differ in difficulty; queries of an episode share it. The true mean is 0.6."""
    ids = np.arange(episodes)
    p = np.clip(0.6 + 0.2 * (2 * uniforms(run, 0, ids) - 1), 0, 1)
    right = uniforms(run, 1, ids[:, None], np.arange(queries)) < p[:, None]
    return right.astype(float)  # [E, Q]


def test_interval_over_episodes_covers_and_the_naive_one_does_not():
    runs, covered, naive = 1500, 0, 0
    for run in range(runs):
        cells = simulated_scores(run, queries=60)
        scores, mean = cells.mean(1), cells.mean()
        covered += abs(scores.mean() - 0.6) <= mean_interval(scores)
        naive += abs(mean - 0.6) <= mean_interval(cells.ravel())
    assert 0.93 <= covered / runs <= 0.97
    assert naive / runs < 0.85


def test_interval_over_episodes_says_nothing_about_new_classes():
    runs, ways, episodes, classes = 150, 5, 300, 25
    covered_episodes = covered_classes = 0
    for run in range(runs):
        difficulty = 0.5 + 0.4 * uniforms(run, 0, np.arange(classes))  # mean 0.7 over all classes
        draw = uniforms(run, 1, np.arange(episodes)[:, None], np.arange(classes))
        picked = draw.argsort(1)[:, :ways]  # [E, C]
        right = (
            uniforms(
                run, 2, np.arange(episodes)[:, None, None], np.arange(ways)[:, None], np.arange(15)
            )
            < difficulty[picked][..., None]
        )
        cells = right.mean(2)
        scores = cells.mean(1)
        half = mean_interval(scores)
        covered_episodes += abs(scores.mean() - 0.7) <= half
        interval = class_interval(scores, picked, most=1.0)
        assert interval.high - interval.low > 2 * half
        covered_classes += interval.low <= 0.7 <= interval.high
    assert covered_episodes / runs < 0.6
    assert 0.88 <= covered_classes / runs <= 0.99


def test_the_test_split_is_refused_as_validation():
    learner = PrototypicalNetwork(MLP((3,), (4,)))
    parts = {
        split: PoolSource(gaussian_pool(6, 8, (3,), split=split))
        for split in ("train", "val", "test")
    }
    config = TrainConfig(steps=1, n_way=3, n_query=2)
    hidden = MixtureSource([parts["val"], parts["test"]], [1, 1])
    for validation in (parts["test"], hidden):
        with pytest.raises(ProtocolError, match="test"):
            train(learner, parts["train"], config, validation=validation)


def test_the_floor_needs_no_training_and_beats_chance():
    source = PoolSource(gaussian_pool(8, 10, (6,), separation=3.0))
    episode = source.episodes(EpisodeSpec(5, 1, 3), range(20), seed=0)
    learner = NearestNeighbour()
    logits = learner.predict(learner.adapt(episode.support, n_way=5), episode.query.x)
    assert (logits.argmax(2) == episode.query.y).float().mean() > 0.9

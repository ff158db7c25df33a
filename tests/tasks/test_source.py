"""Sources over pools, and mixtures of them."""

import pytest
import torch

from quickstudy.core import ConfigError, EpisodeSpec, TaskError
from quickstudy.tasks import MixtureSource, Pool, PoolSource, SinusoidSource, TaskSource
from quickstudy.testing import episode_digests, gaussian_pool

SPEC = EpisodeSpec(3, 2, 2)


def test_an_episode_holds_the_rows_of_its_index():
    source = PoolSource(gaussian_pool(6, 8, (3,)))
    index, episode = source.index(SPEC, range(4), seed=1), source.episodes(SPEC, range(4), seed=1)
    assert torch.equal(episode.support.x, source.pool.x[torch.from_numpy(index.support)])
    assert torch.equal(episode.query.y, torch.from_numpy(index.query_y))
    classes = episode.info["classes"].gather(1, episode.query.y)
    assert torch.equal(classes, source.pool.y[episode.info["query_index"]])


def test_images_become_fractions_and_vectors_stay():
    x = torch.arange(0, 256, 16, dtype=torch.uint8).view(16, 1, 1, 1)
    episode = PoolSource(Pool.build(x, [i % 4 for i in range(16)], name="i")).episodes(
        SPEC, [0], seed=0
    )
    assert episode.support.x.dtype == torch.float32
    rows = episode.info["support_index"][0]
    assert episode.support.x.max() <= 1
    got = (episode.support.x[0].flatten() * 255).round().long()
    ordered = torch.cat([x[i::4].flatten() for i in range(4)]).long()
    assert torch.equal(got, ordered[rows])


def test_variable_episodes_are_padded_and_masked():
    source = PoolSource(gaussian_pool(8, 12, (3,)))
    episode = source.episodes(EpisodeSpec((2, 6), (1, 4), 3), range(12), seed=0)
    assert torch.equal(episode.support.mask, episode.info["support_index"] >= 0)
    assert not episode.support.mask.all()
    assert (episode.support.y[~episode.support.mask] == 0).all()
    assert episode.n_way == 6


def test_mixture_weights_hold():
    parts = [PoolSource(gaussian_pool(6, 8, (3,), seed=s, name=f"p{s}")) for s in range(3)]
    mixture = MixtureSource(parts, [1, 0, 3])
    chosen = mixture.episodes(SPEC, range(2000), seed=0).info["source"]
    share = torch.bincount(chosen, minlength=3) / 2000
    assert share[1] == 0
    assert abs(float(share[0]) - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5


def test_a_mixed_episode_is_the_part_s_episode():
    parts = [PoolSource(gaussian_pool(6, 8, (3,), seed=s)) for s in range(2)]
    mixture = MixtureSource(parts, [1, 1])
    chosen = mixture.episodes(SPEC, range(8), seed=0).info["source"].tolist()
    assert chosen == [1, 0, 0, 0, 1, 1, 1, 0]  # golden
    mixed = episode_digests(mixture, SPEC, range(8), 0).split()
    for i, number in enumerate(chosen):
        assert mixed[i] == episode_digests(parts[number], SPEC, [i], 0)


def test_a_mixture_pads_parts_of_different_length():
    parts = [PoolSource(gaussian_pool(6, n, (3,), seed=n)) for n in (6, 20)]
    spec = EpisodeSpec((2, 5), (1, 8), 6)
    episode = MixtureSource(parts, [1, 1]).episodes(spec, range(20), seed=0)
    assert episode.n_way == 5
    assert (episode.support.x[~episode.support.mask]).isfinite().all()
    assert episode.support.mask.any(1).all()


def test_a_mixture_says_its_splits():
    parts = [PoolSource(gaussian_pool(6, 8, (3,), split=s)) for s in ("val", "train", "val")]
    assert MixtureSource(parts, [1, 1, 1]).split == "train+val"
    assert MixtureSource(parts[:1], [1], name="m").name == "m"


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, float("inf")], [1, float("nan")]])
def test_weights_that_do_not_fit_are_refused(weights):
    parts = [PoolSource(gaussian_pool(6, 8, (3,)))] * 2
    with pytest.raises(ConfigError, match="one non-negative weight per source"):
        MixtureSource(parts, weights)


def test_parts_of_different_shape_are_refused():
    parts = [PoolSource(gaussian_pool(6, 8, (d,))) for d in (2, 3)]
    with pytest.raises(TaskError, match="one input shape"):
        MixtureSource(parts, [1, 1]).episodes(SPEC, range(20), seed=0)


def test_everything_is_a_task_source():
    pool = PoolSource(gaussian_pool(6, 8, (3,)))
    for source in (pool, MixtureSource([pool], [1]), SinusoidSource()):
        assert isinstance(source, TaskSource)
    assert not isinstance(gaussian_pool(2, 2), TaskSource)

"""Affine jitter: deterministic, bounded, and nothing when it is turned off."""

import numpy as np
import pytest
import torch

from quickstudy.core import EpisodeSpec, generator, keys
from quickstudy.tasks import AffineJitter, AugmentedSource, Pool, PoolSource
from quickstudy.tasks.augment import compose
from quickstudy.testing import gaussian_pool

OFF = {"degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def images(n=6, channels=1, side=9):
    return torch.rand(n, channels, side, side, generator=generator(0))


def test_turned_off_it_changes_nothing():
    x = images()
    torch.testing.assert_close(AffineJitter(**OFF)(x, keys(0, np.arange(6))), x)


def test_an_image_depends_on_its_key_alone():
    x, draws = images(), keys(0, np.arange(6))
    together = AffineJitter()(x, draws)
    alone = torch.cat([AffineJitter()(x[i : i + 1], draws[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone)
    same = AffineJitter()(x[:1].expand(6, -1, -1, -1), draws)
    assert not torch.allclose(same[0], same[1])


def test_flips_are_mirror_images_half_of_the_time():
    x, draws = images(200), keys(3, np.arange(200))
    out = AffineJitter(**OFF, flip=True)(x, draws)
    kept = (out - x).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (out - x.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (kept ^ mirrored).all()
    assert 60 < kept.sum() < 140


def test_brightness_scales_within_its_range():
    x, draws = torch.ones(200, 1, 4, 4), keys(1, np.arange(200))
    out = AffineJitter(**OFF, brightness=0.3)(x, draws)[:, 0, 2, 2]
    assert 0.7 <= out.min() < 0.75
    assert 1.25 < out.max() <= 1.3


def test_shifts_stay_in_their_range():
    x = torch.zeros(100, 1, 21, 21)
    x[:, :, 10, 10] = 1
    out = AffineJitter(**OFF | {"shift": 0.2})(x, keys(0, np.arange(100)))
    grid = torch.arange(21.0) - 10
    across = (out.sum(2)[:, 0] * grid).sum(1) / out.sum((1, 2, 3))
    assert across.abs().max() <= 0.2 * 10.5 + 1e-3
    assert across.abs().max() > 1.5


@pytest.mark.parametrize("channels", [1, 3])
def test_the_outside_is_black_for_ink_and_the_border_for_photographs(channels):
    x = torch.ones(20, channels, 8, 8)
    out = AffineJitter(**OFF | {"shift": 0.5})(x, keys(0, np.arange(20)))
    assert (out.min() < 0.5) == (channels == 1)


def test_labels_and_padding_are_kept():
    source = PoolSource(gaussian_pool(6, 12, (1, 8, 8)))
    spec = EpisodeSpec((2, 4), (1, 3), 2)
    plain = source.episodes(spec, range(5), seed=0)
    jittered = AugmentedSource(source, AffineJitter()).episodes(spec, range(5), seed=0)
    assert torch.equal(plain.support.y, jittered.support.y)
    assert torch.equal(plain.query.mask, jittered.query.mask)
    assert torch.equal(plain.info["support_index"], jittered.info["support_index"])
    assert not torch.allclose(plain.query.x, jittered.query.x)


def test_support_and_query_are_jittered_differently():
    pool = gaussian_pool(4, 10, (1, 8, 8)).with_x(
        images(1, side=8).expand(40, -1, -1, -1).contiguous()
    )
    episode = AugmentedSource(PoolSource(pool), AffineJitter()).episodes(
        EpisodeSpec(2, 2, 2), [0], seed=0
    )
    x = torch.cat([episode.support.x[0], episode.query.x[0]])
    assert len(x.unique(dim=0)) == len(x)


def test_class_jitter_moves_a_class_as_one():
    x = torch.rand(40, 1, 12, 12, generator=generator(0)).mul(255).to(torch.uint8)
    # four copies of each of ten images: what differs inside a class is jitter alone
    pool = Pool(
        x[:10].repeat_interleave(4, 0), torch.arange(10).repeat_interleave(4), tuple("abcdefghij")
    )
    source = AugmentedSource(PoolSource(pool), AffineJitter(**OFF), AffineJitter(degrees=40))
    episode = source.episodes(EpisodeSpec(5, 1, 3), [0, 1], seed=0)
    plain = PoolSource(pool).episodes(EpisodeSpec(5, 1, 3), [0, 1], seed=0)
    for t in range(2):
        for label in range(5):
            sides = (episode.support, episode.query)
            images = torch.cat([s.x[t][s.y[t] == label] for s in sides])
            assert (images == images[0]).all()
    assert not torch.allclose(episode.support.x, plain.support.x)
    # the same class in another task is turned by another angle
    classes = episode.info["classes"]
    shared = set(classes[0].tolist()) & set(classes[1].tolist())
    assert shared
    for c in shared:
        first, second = (
            episode.support.x[t][episode.support.y[t] == classes[t].tolist().index(c)][0]
            for t in range(2)
        )
        assert not torch.allclose(first, second)


def test_composed_maps_are_one_map_after_the_other():
    inner, outer = (AffineJitter().theta(keys(s, np.arange(5))) for s in (1, 2))
    place = torch.rand(5, 2, generator=generator(3))
    once = torch.einsum("bij,bj->bi", inner[:, :, :2], place) + inner[:, :, 2]
    twice = torch.einsum("bij,bj->bi", outer[:, :, :2], once) + outer[:, :, 2]
    both = compose(outer, inner)
    torch.testing.assert_close(
        torch.einsum("bij,bj->bi", both[:, :, :2], place) + both[:, :, 2], twice
    )

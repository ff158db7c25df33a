"""Sine waves: Finn et al.'s ranges, and a task is the same wherever it is made."""

import math

import pytest
import torch

from quickstudy.core import EpisodeSpec, TaskError
from quickstudy.tasks.sinusoid import SinusoidSource

SPEC = EpisodeSpec(1, 10, 15)


def test_targets_are_the_sine() -> None:
    episode = SinusoidSource().episodes(SPEC, range(500), seed=3)
    amplitude, phase = episode.info["amplitude"][:, None], episode.info["phase"][:, None]
    assert episode.support.x.shape == (500, 10, 1)
    assert episode.query.y.shape == (500, 15)
    assert episode.n_way == 1
    assert episode.regression
    for part in (episode.support, episode.query):
        expected = amplitude * torch.sin(part.x[..., 0].double() - phase)
        torch.testing.assert_close(part.y.double(), expected, atol=1e-5, rtol=0)


def test_ranges_are_filled() -> None:
    episode = SinusoidSource().episodes(SPEC, range(2000), seed=0)
    for values, low, high in (
        (episode.info["amplitude"], 0.1, 5.0),
        (episode.info["phase"], 0.0, math.pi),
        (episode.query.x, -5.0, 5.0),
    ):
        margin = 0.01 * (high - low)
        assert low <= float(values.min()) < low + margin
        assert high - margin < float(values.max()) <= high
        # the mean of a uniform variable, within five standard errors
        error = 5 * (high - low) / math.sqrt(12 * 2000)
        assert abs(float(values.mean()) - (low + high) / 2) < error


def test_the_function_is_that_of_the_targets() -> None:
    source = SinusoidSource("test")
    episode = source.episodes(SPEC, [4, 9], seed=1)
    found = source.function_values([4, 9], episode.query.x[1, :, 0], seed=1)
    torch.testing.assert_close(found[1], episode.query.y[1].double(), atol=1e-6, rtol=0)
    assert found.shape == (2, 15)


def test_a_task_does_not_depend_on_its_batch() -> None:
    source = SinusoidSource()
    batch = source.episodes(SPEC, [5, 900, 17], seed=1)
    alone = source.episodes(SPEC, [900], seed=1)
    assert torch.equal(batch.tasks(slice(1, 2)).support.x, alone.support.x)
    assert torch.equal(batch.tasks(slice(1, 2)).query.y, alone.query.y)
    # nor the first support points on how many are asked for
    few = source.episodes(EpisodeSpec(1, 5, 15), [900], seed=1)
    assert torch.equal(few.support.x, alone.support.x[:, :5])


def test_splits_seeds_and_tasks_differ() -> None:
    amplitudes = [
        SinusoidSource(split).episodes(SPEC, [task], seed=seed).info["amplitude"].item()
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for task in (0, 1)
    ]
    assert len(set(amplitudes)) == 12


def test_variable_shot_is_padding() -> None:
    episode = SinusoidSource().episodes(EpisodeSpec(1, (2, 6), 3), range(300), seed=0)
    shots = episode.support.mask.sum(1)
    assert sorted(shots.unique().tolist()) == [2, 3, 4, 5, 6]
    assert float(episode.support.x[~episode.support.mask].abs().sum()) == 0


def test_wrong_requests() -> None:
    with pytest.raises(TaskError, match="n_way=1"):
        SinusoidSource().episodes(EpisodeSpec(5, 1), [0], seed=0)
    with pytest.raises(TaskError, match="task_ids"):
        SinusoidSource().episodes(SPEC, [], seed=0)
    with pytest.raises(TaskError, match="split"):
        SinusoidSource("evaluation")

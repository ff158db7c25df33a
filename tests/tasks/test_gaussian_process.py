"""Functions of Gaussian processes: the kernels, one function for a task, and the posterior."""

import math

import numpy as np
import pytest
import torch

from quickstudy.core import Episode, EpisodeSpec, Examples, TaskError
from quickstudy.tasks import GaussianProcessSource
from quickstudy.tasks.gaussian_process import KERNELS

SPEC = EpisodeSpec(1, 6, 9)


def closed_form(kernel: int, r: float, length: float, scale: float, period: float) -> float:
    """Rasmussen and Williams (2006), equations 4.9, 4.17 and 4.31."""
    if KERNELS[kernel] == "rbf":
        value = math.exp(-(r**2) / (2 * length**2))
    elif KERNELS[kernel] == "matern":
        far = math.sqrt(5) * abs(r) / length
        value = (1 + far + far**2 / 3) * math.exp(-far)
    else:
        value = math.exp(-2 * math.sin(math.pi * r / period) ** 2 / length**2)
    return scale**2 * value


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("length", [0.2, 1.0])
def test_the_functions_have_the_covariance_of_their_kernel(kernel, length):
    source = GaussianProcessSource(
        kernels=(kernel,), lengths=(length, length), scales=(1.5, 1.5), periods=(2.5, 2.5)
    )
    x, n = torch.tensor([-2.0, -1.9, -1.5, 0.0, 1.0, 2.0]), 20_000
    f = source.function_values(range(n), x, seed=0)
    found = f.T @ f / n
    number = KERNELS.index(kernel)
    own = length * (2 if kernel == "periodic" else 1)
    for i, a in enumerate(x.tolist()):
        for j, b in enumerate(x.tolist()):
            wanted = closed_form(number, a - b, own, 1.5, 2.5)
            # the standard error of a product of two Gaussians is at most sqrt(2 / n) variances
            assert abs(float(found[i, j]) - wanted) < 4.5 * math.sqrt(2 / n) * 1.5**2
    assert float(f.mean(0).abs().max()) < 4.5 * 1.5 / math.sqrt(n)


def test_a_task_is_one_function_however_many_points_are_asked_for():
    source = GaussianProcessSource("test")
    batch = source.episodes(SPEC, [7, 900, 3], seed=2)
    for spec in (SPEC, EpisodeSpec(1, 3, 4), EpisodeSpec(1, (2, 20), 9)):
        alone = source.episodes(spec, [900], seed=2)
        shots, queries = (min(a.y.shape[1], b.y.shape[1]) for a, b in (
            (alone.support, batch.support), (alone.query, batch.query)))  # fmt: skip
        shots = min(shots, int(alone.support.mask.sum()))
        assert torch.equal(alone.support.y[0, :shots], batch.support.y[1, :shots])
        assert torch.equal(alone.query.y[0, :queries], batch.query.y[1, :queries])
    x = batch.query.x[1, :, 0]
    gap = batch.query.y[1].double() - source.function_values([900], x, seed=2)[0]
    assert 0.2 * source.noise < float(gap.std()) < 3 * source.noise
    # a value does not depend on the other inputs either
    one = source.function_values([900], x[:1], seed=2)[0, 0]
    assert float(one) == float(source.function_values([900], x, seed=2)[0, 0])


def test_the_same_for_ever():
    found = GaussianProcessSource("test").episodes(SPEC, [0, 1], seed=0)
    assert found.support.x[0, :2, 0].tolist() == pytest.approx(FIXED_X, abs=1e-6)
    assert found.support.y[0, :2].tolist() == pytest.approx(FIXED_Y, abs=1e-5)
    assert found.query.y[1, :2].tolist() == pytest.approx(FIXED_QUERY, abs=1e-5)


# of the first version; episodes are published by their numbers, so they must never change
FIXED_X = [0.711673, 1.2995048]
FIXED_Y = [-2.0705445, -0.5826455]
FIXED_QUERY = [0.6558294, -0.3245759]


def test_splits_seeds_and_tasks_differ():
    scales = [
        GaussianProcessSource(split).episodes(SPEC, [task], seed=seed).info["scale"].item()
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for task in (0, 1)
    ]
    assert len(set(scales)) == 12


def test_what_is_drawn_fills_its_ranges():
    source = GaussianProcessSource()
    info = source.episodes(EpisodeSpec(1, 1, 1), range(3000), seed=0).info
    assert info["kernel"].bincount().tolist() == pytest.approx([1000] * 3, abs=130)
    turns = info["kernel"] == KERNELS.index("periodic")
    assert torch.equal(turns, ~info["period"].isnan())
    for values, (low, high) in (
        (info["length"][~turns], source.lengths),
        (info["length"][turns] / 2, source.lengths),
        (info["scale"], source.scales),
        (info["period"][turns], source.periods),
    ):
        margin = 0.02 * (high - low)
        assert low <= float(values.min()) < low + margin
        assert high - margin < float(values.max()) <= high


def test_the_posterior_is_that_of_a_plain_loop():
    source = GaussianProcessSource("test")
    tasks = source.episodes(EpisodeSpec(1, (1, 6), 5), range(12), seed=0)
    mean, deviation = source.posterior(tasks)
    for t in range(tasks.n_tasks):
        about = [float(tasks.info[name][t]) for name in ("kernel", "length", "scale", "period")]

        def k(a, b, about=about):
            return closed_form(int(about[0]), a - b, *about[1:])

        real = tasks.support.mask[t]
        x, y = tasks.support.x[t, real, 0].tolist(), tasks.support.y[t, real].double().numpy()
        gram = np.array([[k(a, b) + (a == b) * source.noise**2 for b in x] for a in x])
        inverse = np.linalg.inv(gram)
        for q, query in enumerate(tasks.query.x[t, :, 0].tolist()):
            cross = np.array([k(query, a) for a in x])
            wanted = cross @ inverse @ y
            spread = k(query, query) - cross @ inverse @ cross + source.noise**2
            # the Matern series is cut after 128 terms
            assert float(mean[t, q]) == pytest.approx(wanted, abs=0.01)
            assert float(deviation[t, q]) == pytest.approx(math.sqrt(spread), abs=2e-3)
    other = tasks.query.x[:, :2]
    assert torch.equal(source.posterior(tasks, other)[0], mean[:, :2])


def test_the_posterior_ignores_padding():
    source = GaussianProcessSource("test")
    tasks = source.episodes(EpisodeSpec(1, (2, 6), 5), range(8), seed=0)
    s = tasks.support
    junk = s.x.masked_fill(~s.mask[..., None], math.nan)
    padded = Episode(
        Examples(junk, s.y.masked_fill(~s.mask, math.nan), s.mask), tasks.query, 1, tasks.info
    )
    for wanted, found in zip(source.posterior(tasks), source.posterior(padded), strict=True):
        assert torch.equal(wanted, found)


def test_wrong_requests():
    with pytest.raises(TaskError, match="n_way=1"):
        GaussianProcessSource().episodes(EpisodeSpec(5, 1), [0], seed=0)
    with pytest.raises(TaskError, match="task_ids"):
        GaussianProcessSource().episodes(SPEC, [], seed=0)
    for wrong, about in (
        ({"split": "evaluation"}, "split"),
        ({"kernels": ("linear",)}, "kernels"),
        ({"kernels": ()}, "kernels"),
        ({"lengths": (0.5, 2.0)}, "lengths"),
        ({"lengths": (0.5, 0.4)}, "lengths"),
        ({"scales": (0.0, 1.0)}, "scales"),
        ({"periods": (math.nan, 1.0)}, "periods"),
        ({"noise": 0.0}, "noise"),
    ):
        with pytest.raises(TaskError, match=about):
            GaussianProcessSource(**wrong)

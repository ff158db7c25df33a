"""Functions drawn from one-dimensional Gaussian processes, and their exact posterior.

A function is a Fourier series with random coefficients, ``f(x) = sum_k sqrt(w_k) (a_k cos(k t) +
b_k sin(k t))`` with ``t = 2 pi x / period`` and standard normal ``a_k`` and ``b_k``. That is a
Gaussian process with the kernel ``sum_k w_k cos(2 pi k (x - x') / period)``, whatever the weights:
so a task is one function, which has a value everywhere, however many points of it are asked for,
and its posterior is known exactly. The weights make it the kernel that is wanted: the Fourier
coefficients of the periodic kernel, and for the other two their spectral density on a circle so
wide that its two ends do not feel each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ive
from torch import Tensor

from quickstudy.core import Episode, EpisodeSpec, Examples, TaskError, normals, uniforms
from quickstudy.core.arguments import checked

__all__ = ["KERNELS", "GaussianProcessSource"]

Floats = npt.NDArray[np.float64]

KERNELS = ("rbf", "matern", "periodic")
"""Names of the kernels, in the order of their numbers in ``info["kernel"]``."""

_SPLIT_NUMBERS = {"train": 0, "val": 1, "test": 2}
# of random numbers
_TASK_STREAM, _SUPPORT_STREAM, _QUERY_STREAM, _COSINE_STREAM, _SINE_STREAM = range(5)
_SUPPORT_NOISE_STREAM, _QUERY_NOISE_STREAM = 5, 6
_HALF_RANGE = 2.0  # inputs lie in [-2, 2]
_CIRCLE = 12.0  # two inputs are at least 8 apart the other way round: eight length scales
_TERMS = 128  # of the series, above which less than 1e-4 of the variance is left


@checked
@dataclass(frozen=True, slots=True)
class GaussianProcessSource:
    """Regression onto functions drawn from Gaussian processes, with a little noise.

    Each task draws a kernel, its length scale, its standard deviation, and the period of a periodic
    one; inputs are U[-2, 2], as in Kim et al. (2019), section 4.1. The kernels are those of
    Rasmussen and Williams (2006), section 4.2: ``exp(-r^2 / 2 l^2)``; Matern with smoothness 5/2;
    ``exp(-2 sin^2(pi r / p) / l^2)``. The splits draw from the same distribution, but never the
    same task.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        name: data set, for reports.
        kernels: which kernels are drawn, each as often.
        lengths: range of the length scale, in the unit of the inputs, at most 1; of the periodic
            kernel, where it is a plain number, twice that.
        scales: range of the standard deviation of the functions.
        periods: range of the period of the periodic kernel, in the unit of the inputs.
        noise: standard deviation of the noise of every target, above 0.

    Raises:
        TaskError: if a name is unknown or a range empty or out of bounds.

    Example::

        from quickstudy.tasks import GaussianProcessSource

        source = GaussianProcessSource("train", kernels=("rbf",))
        episode = source.episodes(EpisodeSpec(n_way=1, k_shot=10), [0, 1], seed=0)
        mean, deviation = source.posterior(episode)  # each [2, 15]
        truth = source.function_values([0, 1], torch.linspace(-2, 2, 50), seed=0)  # [2, 50]
    """

    split: str = "train"
    name: str = "gaussian-process"
    kernels: tuple[str, ...] = KERNELS
    lengths: tuple[float, float] = (0.2, 1.0)
    scales: tuple[float, float] = (0.5, 2.0)
    periods: tuple[float, float] = (1.0, 4.0)
    noise: float = 0.05

    def __post_init__(self) -> None:
        if self.split not in _SPLIT_NUMBERS:
            raise TaskError(
                f"split must be one of {', '.join(_SPLIT_NUMBERS)}; got {self.split!r}."
            )
        if not self.kernels or not set(self.kernels) <= set(KERNELS):
            raise TaskError(f"kernels must be of {', '.join(KERNELS)}; got {self.kernels!r}.")
        bounds = {
            "lengths": (self.lengths, 0.1, 1.0),
            "scales": (self.scales, 1e-6, 1e6),
            "periods": (self.periods, 0.1, 100.0),
        }
        for name, (given, least, most) in bounds.items():
            if not least <= given[0] <= given[1] <= most:
                raise TaskError(
                    f"{name} must be a range from low to high within {least:g} to {most:g}; got "
                    f"{given}."
                )
        if not 1e-3 * self.scales[1] <= self.noise < np.inf:
            raise TaskError(
                f"noise must be at least a thousandth of the largest scale; got {self.noise}. "
                "Without noise the posterior cannot be computed: its matrices are singular."
            )

    def episodes(self, spec: EpisodeSpec, task_ids: Sequence[int], *, seed: int) -> Episode:
        """Return ``T`` tasks; task ``i`` of seed ``s`` is the same on every machine.

        Args:
            spec: ``n_way`` must be 1; ``k_shot`` support points (or a range) and ``n_query`` query
                points.
            task_ids: which tasks, ``[T]``.
            seed: names the list of tasks.

        Returns:
            Episode with x float32 ``[T, N, 1]``, y float32 ``[T, N]`` and ``n_way = 1``; ``info``
            holds, each ``[T]``, ``kernel`` (number in :data:`KERNELS`), ``length``, ``scale`` and
            ``period`` (NaN unless the kernel is periodic).

        Raises:
            TaskError: if ``spec.n_way`` is not 1 or there is no task.
        """
        if spec.n_way != 1:
            raise TaskError(
                f"{self.name} is regression and has no classes; got n_way={spec.n_way}. Use "
                "n_way=1."
            )
        ids, part = self._ids(task_ids), _SPLIT_NUMBERS[self.split]
        info = self._drawn(ids, seed)
        spread = spec.max_shot - spec.min_shot
        shots = spec.min_shot + np.floor((spread + 1) * uniforms(seed, part, ids, _TASK_STREAM, 9))
        # as many points as the longest support; the mask hides those beyond a task's own shots
        mask = torch.from_numpy(np.arange(spec.max_shot)[None] < shots)  # [T, S]

        def draw(stream: int, noise: int, n: int) -> tuple[Tensor, Tensor]:
            at = np.arange(n)[None]
            x = (2 * uniforms(seed, part, ids, stream, at) - 1) * _HALF_RANGE  # [T, n]
            # the value belongs to the input as the learner sees it, in float32
            x = x.astype(np.float32).astype(np.float64)
            y = self._values(ids, x, info, seed)
            y = y + self.noise * normals(seed, part, ids, noise, at)
            return torch.from_numpy(x).float()[..., None], torch.from_numpy(y).float()

        x, y = draw(_SUPPORT_STREAM, _SUPPORT_NOISE_STREAM, spec.max_shot)
        support = Examples(x * mask[..., None], y * mask, mask)
        query = Examples.full(*draw(_QUERY_STREAM, _QUERY_NOISE_STREAM, spec.n_query))
        return Episode(support, query, 1, {n: torch.from_numpy(v) for n, v in info.items()})

    def function_values(self, task_ids: Sequence[int], x: Tensor, *, seed: int) -> Tensor:
        """Return the functions of tasks without noise, at the same inputs ``[N]``.

        Args:
            task_ids: which tasks, ``[T]``.
            x: inputs ``[N]``.
            seed: names the list of tasks.

        Returns:
            Values float64 ``[T, N]``.
        """
        ids = self._ids(task_ids)
        at = np.broadcast_to(x.double().numpy()[None], (len(ids), len(x)))
        return torch.from_numpy(self._values(ids, at, self._drawn(ids, seed), seed))

    def posterior(self, episode: Episode, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what is known of targets to who knows the kernel: no learner can do better.

        Rasmussen and Williams (2006), equations 2.25 and 2.26, and the noise of the target on top:
        ``k* (K + n^2 I)^-1 y`` and ``k(x, x) - k* (K + n^2 I)^-1 k*' + n^2``.

        Args:
            episode: tasks of this source, with their ``info``.
            x: inputs ``[T, Q, 1]``; the episode's queries if not given.

        Returns:
            Mean and standard deviation of the targets, each float64 ``[T, Q]``.
        """
        support = episode.support
        queries = episode.query.x if x is None else x
        at, asked = (v[..., 0].double().cpu().numpy() for v in (support.x, queries))
        info = {name: value.cpu().numpy() for name, value in episode.info.items()}
        real = support.mask.cpu().numpy()
        both = real[:, :, None] & real[:, None]
        # a padded point gets a row of the identity: it has nothing to do with any other
        k = np.where(both, _kernel(at[:, :, None] - at[:, None], info), 0.0)
        k += np.eye(at.shape[1]) * np.where(real, self.noise**2, 1.0)[:, None]
        cross = np.where(real[:, None], _kernel(asked[:, :, None] - at[:, None], info), 0.0)
        solved = np.linalg.solve(k, cross.transpose(0, 2, 1))  # [T, S, Q]
        y = support.y.double().masked_fill(~support.mask, 0).cpu().numpy()
        mean = np.einsum("tsq,ts->tq", solved, y)
        known = np.einsum("tqs,tsq->tq", cross, solved)
        variance = info["scale"][:, None] ** 2 - known
        variance = np.maximum(variance, 0.0) + self.noise**2
        return torch.from_numpy(mean), torch.from_numpy(np.sqrt(variance))

    def _ids(self, task_ids: Sequence[int]) -> npt.NDArray[np.int64]:
        if len(task_ids) == 0:
            raise TaskError("task_ids is empty. Ask for at least one task.")
        return np.asarray(task_ids, dtype=np.int64)[:, None]  # [T, 1]

    def _drawn(self, ids: npt.NDArray[np.int64], seed: int) -> dict[str, npt.NDArray[np.generic]]:
        """Return kernel, length scale, standard deviation and period of each task ``[T]``."""
        part = _SPLIT_NUMBERS[self.split]
        u = [uniforms(seed, part, ids[:, 0], _TASK_STREAM, number) for number in range(4)]

        def between(ends: tuple[float, float], share: Floats) -> Floats:
            return ends[0] + (ends[1] - ends[0]) * share

        numbers = np.array([KERNELS.index(name) for name in self.kernels])
        kernel = numbers[(len(numbers) * u[0]).astype(np.int64)]
        turns = kernel == KERNELS.index("periodic")
        return {
            "kernel": kernel,
            "length": between(self.lengths, u[1]) * np.where(turns, 2.0, 1.0),
            "scale": between(self.scales, u[2]),
            "period": np.where(turns, between(self.periods, u[3]), np.nan),
        }

    def _values(
        self,
        ids: npt.NDArray[np.int64],
        x: Floats,
        info: dict[str, npt.NDArray[np.generic]],
        seed: int,
    ) -> Floats:
        """Return the functions at inputs ``[T, N] -> [T, N]``."""
        part, at = _SPLIT_NUMBERS[self.split], np.arange(_TERMS)[None]
        root = np.sqrt(_weights(info))  # [T, K]
        cosines = root * normals(seed, part, ids, _COSINE_STREAM, at)
        sines = root * normals(seed, part, ids, _SINE_STREAM, at)
        return _series(cosines - 1j * sines, _turns(x, info))


def _turns(x: Floats, info: dict[str, npt.NDArray[np.generic]]) -> Floats:
    """Return angles of inputs on the circle of each task ``[T, ...] -> [T, ...]``."""
    circle = np.where(np.isnan(info["period"]), _CIRCLE, info["period"])
    return 2 * np.pi * x / circle.reshape(-1, *(1,) * (x.ndim - 1))


def _series(c: npt.NDArray[np.complex128] | Floats, angle: Floats) -> Floats:
    """Return ``Re sum_k c_k exp(i k t)`` for coefficients ``[T, K]`` and angles ``[T, ...]``."""
    z = np.exp(1j * angle)
    total = np.zeros_like(z)
    shape = (-1, *(1,) * (angle.ndim - 1))
    for k in reversed(range(c.shape[1])):  # Horner's rule; |z| = 1, so that errors do not grow
        total = total * z + c[:, k].reshape(shape)
    return np.asarray(total.real)


def _kernel(r: Floats, info: dict[str, npt.NDArray[np.generic]]) -> Floats:
    """Return the kernel of each task at distances ``[T, ...] -> [T, ...]``."""
    return _series(_weights(info), _turns(r, info))


def _weights(info: dict[str, npt.NDArray[np.generic]]) -> Floats:
    """Return the weights of the series of each task ``[T, K]``; they add up to its variance."""
    k = np.arange(_TERMS)[None]
    kernel, length, scale = (np.asarray(info[n])[:, None] for n in ("kernel", "length", "scale"))
    u = 2 * np.pi * k / _CIRCLE * length  # frequency, in radians for each length scale
    # spectral densities: Rasmussen and Williams (2006), section 4.2.1, but for a common factor
    rbf, matern = np.exp(-0.5 * u**2), (5.0 + u**2) ** -3.0
    # exp(z cos t) = I_0(z) + 2 sum_k I_k(z) cos(k t), with z = 1 / l^2
    periodic = ive(k, 1.0 / length**2)
    found = np.select([kernel == 0, kernel == 1], [rbf, matern], periodic)
    found = found * np.where(k == 0, 1.0, 2.0)  # a frequency and its negative
    return np.asarray(found / found.sum(1, keepdims=True) * scale**2)

"""Sine waves: the regression tasks on which MAML was introduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from quickstudy.core import Episode, EpisodeSpec, Examples, TaskError, uniforms
from quickstudy.core.arguments import checked

__all__ = ["SinusoidSource"]

_SPLIT_NUMBERS = {"train": 0, "val": 1, "test": 2}
_TASK_STREAM, _SUPPORT_STREAM, _QUERY_STREAM = 0, 1, 2  # of random numbers


@checked
@dataclass(frozen=True, slots=True)
class SinusoidSource:
    """Regression onto ``y = amplitude * sin(x - phase)``, no noise.

    Amplitude U[0.1, 5], phase U[0, pi], x U[-5, 5]: Finn, Abbeel and Levine (2017), "Model-agnostic
    meta-learning", section 5.1. The splits draw from the same distribution, but never the same
    task.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        name: data set, for reports.

    Raises:
        TaskError: if ``split`` is unknown.

    Example::

        source = SinusoidSource("train")
        episode = source.episodes(EpisodeSpec(n_way=1, k_shot=10), [0, 1], seed=0)
        episode.support.x  # [2, 10, 1]
        learner = MAML(MLP((1,), (40, 40), last_activation=True), n_way=1)
        state = learner.adapt(episode.support, n_way=1)
    """

    split: str = "train"
    name: str = "sinusoid"

    def __post_init__(self) -> None:
        if self.split not in _SPLIT_NUMBERS:
            raise TaskError(
                f"split must be one of {', '.join(_SPLIT_NUMBERS)}; got {self.split!r}."
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
            holds ``amplitude`` and ``phase``, each float64 ``[T]``.

        Raises:
            TaskError: if ``spec.n_way`` is not 1 or there is no task.
        """
        if spec.n_way != 1:
            raise TaskError(
                f"sinusoid is regression and has no classes; got n_way={spec.n_way}. Use n_way=1."
            )
        if len(task_ids) == 0:
            raise TaskError("task_ids is empty. Ask for at least one task.")
        ids = np.asarray(task_ids, dtype=np.int64)[:, None]  # [T, 1]
        part = _SPLIT_NUMBERS[self.split]
        amplitude, phase = self._drawn(ids, seed)

        def draw(stream: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
            x = 10.0 * uniforms(seed, part, ids, stream, np.arange(n)[None]) - 5.0  # [T, n]
            y = amplitude * np.sin(x - phase)
            return torch.from_numpy(x).float()[..., None], torch.from_numpy(y).float()

        # as many points as the longest support; the mask hides those beyond a task's own shots
        spread = spec.max_shot - spec.min_shot
        shots = spec.min_shot + np.floor((spread + 1) * uniforms(seed, part, ids, _TASK_STREAM, 2))
        mask = torch.from_numpy(np.arange(spec.max_shot)[None] < shots)  # [T, S]
        x, y = draw(_SUPPORT_STREAM, spec.max_shot)
        support = Examples(x * mask[..., None], y * mask, mask)
        return Episode(
            support,
            Examples.full(*draw(_QUERY_STREAM, spec.n_query)),
            1,
            {
                "amplitude": torch.from_numpy(amplitude[:, 0]),
                "phase": torch.from_numpy(phase[:, 0]),
            },
        )

    def function_values(
        self, task_ids: Sequence[int], x: torch.Tensor, *, seed: int
    ) -> torch.Tensor:
        """Return the waves of tasks at the same inputs ``[N]``, as float64 ``[T, N]``.

        Args:
            task_ids: which tasks, ``[T]``.
            x: inputs ``[N]``.
            seed: names the list of tasks.
        """
        amplitude, phase = self._drawn(np.asarray(task_ids, dtype=np.int64)[:, None], seed)
        return torch.from_numpy(amplitude * np.sin(x.double().numpy()[None] - phase))

    def _drawn(
        self, ids: npt.NDArray[np.int64], seed: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return amplitude and phase of each task, ``[T, 1]`` each."""
        part = _SPLIT_NUMBERS[self.split]
        amplitude = 0.1 + 4.9 * uniforms(seed, part, ids, _TASK_STREAM, 0)
        return amplitude, np.pi * uniforms(seed, part, ids, _TASK_STREAM, 1)

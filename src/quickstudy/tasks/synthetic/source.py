"""``SyntheticTables``: made-up tables as a source of tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from quickstudy.core import ConfigError, Episode, EpisodeSpec, TaskError, keys
from quickstudy.core.arguments import checked
from quickstudy.tasks.synthetic.draws import Draws
from quickstudy.tasks.synthetic.make import TableMaker

__all__ = ["SyntheticTables"]

_SPLIT_NUMBERS = {"train": 0, "val": 1, "test": 2}
_STREAM = 211  # keeps the keys apart from those of other sources
_BINARY, _WAY, _UNEVEN, _SHOTS, _COLUMNS = range(5)


@checked
@dataclass(frozen=True, slots=True)
class SyntheticTables:
    """Classification tables by random mechanisms, made when they are asked for.

    About 60 % are random structural graphs, 20 % trees, 5 % rules and 15 % Gaussian classes, see
    :class:`~quickstudy.tasks.synthetic.TableMaker`. Half have as few classes as the episode's way
    allows, half are uneven, 30 % have missing values. Cells are numbers, or ordinal codes of
    categories. The splits draw from the same mechanisms, but never the same table.

    Tables narrower than the widest of a batch are filled with columns without any value: for a
    learner a column that the support knows nothing of is no column. Missing cells are NaN.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        columns: of a table: a number or an inclusive range, drawn evenly in logarithms.
        uneven: share of the tables whose classes have different numbers of rows, if the episode's
            shot is a range; their queries are as uneven.
        maker: mechanisms, forms of columns and missing values.
        name: data set, for reports.

    Raises:
        TaskError: if ``split`` is unknown.
        ConfigError: if ``columns`` or ``uneven`` is out of range.

    Example::

        from quickstudy.tasks import SyntheticTables
        source = SyntheticTables(columns=(2, 10))
        episode = source.episodes(EpisodeSpec((2, 5), (2, 20), 10), [0, 1], seed=0)
        episode.support.x.shape, episode.info["columns"]
    """

    split: str = "train"
    columns: int | tuple[int, int] = (2, 100)
    uneven: float = 0.5
    maker: TableMaker = field(default_factory=TableMaker)
    name: str = "synthetic_tables"

    def __post_init__(self) -> None:
        if self.split not in _SPLIT_NUMBERS:
            raise TaskError(
                f"split must be one of {', '.join(_SPLIT_NUMBERS)}; got {self.split!r}."
            )
        low, high = self._columns()
        if not 1 <= low <= high <= 1000:
            raise ConfigError(
                f"columns must be a number from 1 to 1000 or a range of such; got {self.columns}."
            )
        if not 0.0 <= self.uneven <= 1.0:
            raise ConfigError(f"uneven must be a share from 0 to 1; got {self.uneven}.")

    def _columns(self) -> tuple[int, int]:
        return self.columns if isinstance(self.columns, tuple) else (self.columns, self.columns)

    def draws(self, task_ids: Sequence[int], *, seed: int) -> Draws:
        """Return the random draws of tables."""
        ids = np.asarray(task_ids, dtype=np.int64)
        found = keys(seed, _STREAM, _SPLIT_NUMBERS[self.split], ids)
        return Draws(torch.from_numpy(found.view(np.int64).reshape(-1)))

    def episodes(self, spec: EpisodeSpec, task_ids: Sequence[int], *, seed: int) -> Episode:
        """Return ``T`` tables; table ``i`` of seed ``s`` is the same on every machine.

        Args:
            spec: way, shot and queries; ranges give tables of different sizes.
            task_ids: which tables, ``[T]``.
            seed: names the list of tables.

        Returns:
            Episode with x float32 ``[T, N, F]``; ``info`` holds ``columns`` (their number) and
            ``mechanism``, each int64 ``[T]``.

        Raises:
            TaskError: if ``spec.n_way`` is 1 or there is no task.
        """
        if spec.min_way < 2:
            raise TaskError(f"{self.name} needs at least two classes; got n_way={spec.n_way}.")
        if len(task_ids) == 0:
            raise TaskError("task_ids is empty. Ask for at least one task.")
        draws = self.draws(task_ids, seed=seed)
        shots, queries = self._sizes(draws, spec)
        low, high = self._columns()
        width = _whole(low, high, draws.uniform(_COLUMNS))
        longest = (spec.max_way * spec.max_shot, spec.max_way * spec.n_query)
        support, query = self.maker.make(
            draws, shots, queries=queries, columns=width, longest=longest
        )
        info = {"columns": width, "mechanism": self.maker.mechanism(draws)}
        return Episode(support, query, spec.max_way, info)

    def _sizes(self, draws: Draws, spec: EpisodeSpec) -> tuple[Tensor, Tensor]:
        """Return support and query rows of each class, int64 ``[T, C]`` each."""
        spread = spec.max_way - spec.min_way + 1
        way = spec.min_way + draws.whole(_WAY, below=spread)
        way = torch.where(draws.chance(_BINARY, of=0.5), spec.min_way, way)
        there = torch.arange(spec.max_way) < way[:, None]  # [T, C]
        own = _whole(spec.min_shot, spec.max_shot, draws.uniform(_SHOTS, spec.max_way))
        uneven = draws.chance(_UNEVEN, of=self.uneven)[:, None]
        shots = torch.where(uneven, own, own[:, :1]) * there
        # queries as frequent as the support: n_query of the largest class, at least one of each
        share = spec.n_query * shots // shots.amax(1, keepdim=True)
        queries = share.clamp(min=1) * there
        return shots, torch.where(uneven, queries, spec.n_query * there)


def _whole(low: int, high: int, u: Tensor) -> Tensor:
    """Return whole numbers from low to high, evenly in logarithms, from uniform numbers."""
    exact = low * torch.exp(u.double() * math.log((high + 1) / low))
    return exact.long().clamp(low, high)

"""Published episodes: lists of tasks as files, so that two laboratories score the same tasks.

A list names rows of a data set, and holds a hash of every image that it names. So it can be checked
against another copy of the data. Everybody who has the list scores the same tasks; how it was drawn
does not matter.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quickstudy.core import CheckpointError, ConfigError, DataError, EpisodeSpec, ProtocolError
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_seed
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import is_episode_list, refuse_foreign
from quickstudy.tasks.pool import Pool
from quickstudy.tasks.sampling import EpisodeIndex
from quickstudy.tasks.source import PoolSource

__all__ = ["EpisodeList", "ListedSource", "draw_episodes", "read_episodes"]

Ints = npt.NDArray[np.int64]

_FORMAT = 1
_INDEX_ARRAYS = ("support", "support_y", "query", "query_y", "classes")
_ARRAYS = (*_INDEX_ARRAYS, "rows", "digests")
_LARGEST_ARRAY_BYTES = 2 << 30  # unpacked: a small zip may hold far more


@dataclass(frozen=True, slots=True)
class EpisodeList:
    """Episodes as rows of a data set.

    Args:
        index: rows and labels of ``T`` episodes.
        spec: way, shot and queries.
        data: name of the data set.
        split: part of the data set.
        seed: the seed that the episodes were drawn with.
        group_aware: whether no group is in the support and the query of one episode.
        class_names: names of the classes of that part, in their order.
        rows: the rows that the list names, ascending ``[R]``.
        digests: the first 16 bytes of the sha256 of each of these rows, uint8 ``[R, 16]``.
        about: how the data was prepared: JSON-ready facts.
    """

    index: EpisodeIndex
    spec: EpisodeSpec
    data: str
    split: str
    seed: int
    group_aware: bool
    class_names: tuple[str, ...]
    rows: Ints
    digests: npt.NDArray[np.uint8]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.index.support)

    @property
    def sha256(self) -> str:
        """Hash of everything in the list."""
        hasher = hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode())
        for name, array in self._arrays().items():
            hasher.update(f"{name} {array.dtype} {array.shape}".encode())
            hasher.update(np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()

    def write(self, path: str | Path) -> None:
        """Write one file: a zip of plain arrays (``numpy.load`` reads it) with JSON beside them.

        Raises:
            ConfigError: if another file that is no list of episodes is there.
            DataError: if it cannot be written.
        """
        refuse_foreign(path, name="the list", ours=is_episode_list)
        facts = json.dumps({**self._facts(), "sha256": self.sha256}, sort_keys=True)
        out = io.BytesIO()
        np.savez_compressed(out, about=np.array(facts), **self._arrays())  # type: ignore[arg-type]
        try:
            write_atomically(Path(path), out.getvalue())
        except CheckpointError as error:
            raise DataError(f"{path} cannot be written ({error}). Name another file.") from error

    def faults(self, pool: Pool | None = None) -> list[str]:
        """Return what is wrong with the list, or with a copy of its data; empty if nothing is.

        Without a pool: queries that are in the support of their episode, rows or classes that occur
        twice, sizes that differ from the specification. With a pool also classes, images and labels
        that differ from those of the list.

        Args:
            pool: a copy of the data, prepared as :attr:`about` says.
        """
        return [*self._own_faults(), *([] if pool is None else self._data_faults(pool))]

    def _own_faults(self) -> list[str]:
        index, found = self.index, []
        for t in range(len(self)):
            support, query = index.support[t], index.query[t]
            s, q = support[support >= 0], query[query >= 0]
            both = np.intersect1d(s, q)
            if len(both):
                found.append(f"episode {t}: row {both[0]} is in the support and in the queries")
            if len(np.unique(s)) < len(s) or len(np.unique(q)) < len(q):
                found.append(f"episode {t}: a row occurs twice on one side")
            if not len(s) or not len(q):
                found.append(f"episode {t}: it has no support or no queries")
            classes = index.classes[t]
            classes = classes[classes >= 0]
            if len(np.unique(classes)) < len(classes):
                found.append(f"episode {t}: a class occurs twice in it")
            if not self.spec.min_way <= len(classes) <= self.spec.max_way:
                found.append(f"episode {t}: {len(classes)} classes, not {self.spec}")
            shots = np.bincount(index.support_y[t][support >= 0], minlength=len(classes))
            fixed = not self.spec.variable
            if fixed and len(shots) and (shots != self.spec.min_shot).any():
                found.append(f"episode {t}: {sorted(set(shots.tolist()))} examples per class")
        return found

    def _data_faults(self, pool: Pool) -> list[str]:
        if pool.class_names != self.class_names:
            other = sorted(set(pool.class_names) ^ set(self.class_names))
            what = f"{other[0]!r} is in one of them only" if other else "their order differs"
            return [
                f"the data has {pool.n_classes} classes, the list was drawn from "
                f"{len(self.class_names)}: {what}"
            ]
        if len(self.rows) and self.rows[-1] >= len(pool.y):
            return [f"the list names row {self.rows[-1]}, the data has {len(pool.y)} rows"]
        found = []
        wrong = np.flatnonzero((_digests(pool, self.rows) != self.digests).any(1))
        if len(wrong):
            row = int(self.rows[wrong[0]])
            name = pool.class_names[int(pool.y[row])]
            found.append(
                f"{len(wrong)} of {len(self.rows)} images are others; the first is row {row} "
                f"(class {name!r}); a file that was added or removed moves all rows after it"
            )
        y = pool.y.numpy()
        for rows, labels in (
            (self.index.support, self.index.support_y),
            (self.index.query, self.index.query_y),
        ):
            real = rows >= 0
            listed = np.take_along_axis(self.index.classes, labels.clip(0), 1)  # [T, N]
            bad = np.argwhere(real & (listed != y[rows.clip(0)]))
            if len(bad):
                t = int(bad[0][0])
                found.append(f"episode {t}: a label is not that of its row")
        return found

    def _facts(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "spec": asdict(self.spec),
            "data": self.data,
            "split": self.split,
            "seed": self.seed,
            "group_aware": self.group_aware,
            "class_names": list(self.class_names),
            "about": self.about,
        }

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        sides = {name: getattr(self.index, name) for name in _INDEX_ARRAYS}
        return {**sides, "rows": self.rows, "digests": self.digests}


@checked
def draw_episodes(
    source: PoolSource,
    spec: EpisodeSpec,
    *,
    episodes: int = 600,
    seed: int = 0,
    about: dict[str, Any] | None = None,
) -> EpisodeList:
    """Return the episodes ``(seed, 0 ... episodes-1)`` of a source as a list.

    Args:
        source: the data.
        spec: way, shot and queries.
        episodes: how many, at least 1.
        seed: names the list of episodes.
        about: how the data was prepared: JSON-ready facts.

    Raises:
        ConfigError: if there would be no episode, or the seed is too large.
        TaskError: if the data cannot give such episodes.
    """
    if episodes < 1:
        raise ConfigError(f"episodes= must be at least 1; got {episodes}.")
    check_seed(seed)
    index = source.index(spec, range(episodes), seed=seed)
    rows = np.unique(np.concatenate([index.support.ravel(), index.query.ravel()]))
    rows = rows[rows >= 0]
    pool = source.pool
    return EpisodeList(
        index,
        spec,
        source.name,
        source.split,
        seed,
        source.group_aware,
        pool.class_names,
        rows,
        _digests(pool, rows),
        dict(about or {}),
    )


@checked
def read_episodes(path: str | Path) -> EpisodeList:
    """Return the list in a file.

    Raises:
        DataError: if the file is missing, is no list of episodes, or has a newer format.
        ProtocolError: if it was altered after it was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            large = [i.filename for i in archive.infolist() if i.file_size > _LARGEST_ARRAY_BYTES]
        if large:
            raise ValueError(f"{large[0]} is larger than any list")
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in _ARRAYS}
        if facts["format"] > _FORMAT:
            raise DataError(
                f"{path} has format {facts['format']}, this version reads {_FORMAT}. Update "
                "Quickstudy."
            )
        way, shot = (_range(facts["spec"][name]) for name in ("n_way", "k_shot"))
        spec = EpisodeSpec(way, shot, int(facts["spec"]["n_query"]))
        if odd := [name for name in _ARRAYS if arrays[name].dtype.kind not in "iu"]:
            raise ValueError(f"{odd[0]} holds {arrays[odd[0]].dtype}, not whole numbers")
        sides = {name: arrays[name].astype(np.int64) for name in _INDEX_ARRAYS}
        if any(side.ndim != 2 or len(side) != len(sides["support"]) for side in sides.values()):
            raise ValueError("its arrays do not fit each other")
        found = EpisodeList(
            EpisodeIndex(**sides),
            spec,
            str(facts["data"]),
            str(facts["split"]),
            int(facts["seed"]),
            bool(facts["group_aware"]),
            tuple(map(str, facts["class_names"])),
            arrays["rows"].astype(np.int64),
            arrays["digests"].astype(np.uint8),
            dict(facts["about"]),
        )
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there. Name a file that 'episodes write' wrote.") from error
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path} is no list of episodes ({why}). Name a file that 'episodes write' wrote."
        ) from error
    if found.sha256 != facts.get("sha256"):
        raise ProtocolError(
            f"{path} was altered after it was written: its contents have sha256 "
            f"{found.sha256[:16]}, it says {str(facts.get('sha256'))[:16]}. Take another copy."
        )
    return found


class ListedSource(PoolSource):
    """The episodes of a list, made from a pool with the same rows.

    The pool may hold the rows in another form: smaller images, grey ones, or embeddings.

    Args:
        pool: the data.
        listed: the list of episodes.

    Raises:
        ProtocolError: if the pool has other classes or fewer rows than the list was drawn from.
    """

    def __init__(self, pool: Pool, listed: EpisodeList) -> None:
        if pool.class_names != listed.class_names or (
            len(listed.rows) and listed.rows[-1] >= len(pool.y)
        ):
            raise ProtocolError(
                f"the list was drawn from {listed.data} ({listed.split}, "
                f"{len(listed.class_names)} classes); {pool.name} ({pool.split}, "
                f"{pool.n_classes} classes) is other data. Name the same data and split."
            )
        super().__init__(pool, listed.group_aware)
        object.__setattr__(self, "listed", listed)

    listed: EpisodeList

    def with_pool(self, pool: Pool) -> ListedSource:
        """Return the same episodes from another pool."""
        return ListedSource(pool, self.listed)

    def index(self, spec: EpisodeSpec, task_ids: Sequence[int], *, seed: int) -> EpisodeIndex:
        """Return the rows of the episodes with these numbers in the list.

        Raises:
            ProtocolError: if the specification is not the list's, or a number is not in it.
        """
        if spec != self.listed.spec or seed != self.listed.seed:
            raise ProtocolError(
                f"the list holds {self.listed.spec} episodes of seed {self.listed.seed}; {spec} "
                f"episodes of seed {seed} were asked for. Ask for those of the list."
            )
        ids = np.asarray(task_ids, dtype=np.int64)
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self.listed):
            raise ProtocolError(
                f"the list holds episodes 0 to {len(self.listed) - 1}; {ids.min()} to {ids.max()} "
                "were asked for. Ask for those of the list."
            )
        whole = self.listed.index
        return EpisodeIndex(**{name: getattr(whole, name)[ids] for name in _INDEX_ARRAYS})


def _range(value: Any) -> int | tuple[int, int]:
    """Return a number, or a range, which JSON stores as a list."""
    return (int(value[0]), int(value[1])) if isinstance(value, list) else int(value)


def _digests(pool: Pool, rows: Ints) -> npt.NDArray[np.uint8]:
    """Return the first 16 bytes of the sha256 of each row's example ``[R, 16]``."""
    x = pool.x[torch.from_numpy(rows)].contiguous().cpu().numpy()
    head = f"{x.dtype} {x.shape[1:]}".encode()
    parts = [hashlib.sha256(head + row.tobytes()).digest()[:16] for row in x]
    return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(len(rows), 16)

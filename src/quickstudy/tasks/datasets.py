"""Named data sets as pools: found, downloaded, checked and decoded."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL
import torch
from PIL import Image

from quickstudy.core import ChecksumError, ConfigError, DataError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.storage import downloads
from quickstudy.storage.downloads import sha256_of, verify
from quickstudy.storage.places import cache_home, data_home, find_file
from quickstudy.tasks.archives import pool_from_cifar100, pool_from_omniglot_zips
from quickstudy.tasks.catalogue import DATASETS, DatasetInfo, RemoteFile, same_images
from quickstudy.tasks.decoded import cached_pool
from quickstudy.tasks.folders import pool_from_csv
from quickstudy.tasks.glyphs import default_fonts, glyph_split, render_glyphs
from quickstudy.tasks.parquet import pool_from_parquet
from quickstudy.tasks.pool import Pool
from quickstudy.tasks.splits import Split, load_split

__all__ = [
    "DATASETS",
    "DataPart",
    "DatasetInfo",
    "DatasetStatus",
    "LakeRuns",
    "RemoteFile",
    "check_dataset",
    "dataset_status",
    "get_dataset",
    "load_lake_runs",
    "load_pool",
]


@checked
def load_pool(
    name: str,
    *,
    split: str = "test",
    size: int | None = None,
    split_file: str | None = None,
    rotations: bool = False,
) -> Pool:
    """Return a data set, or a part of its classes, by name.

    Grey images have bright ink on black. The decoded images are kept in the cache folder.

    Args:
        name: one of :data:`DATASETS`.
        split: ``"train"``, ``"val"``, ``"test"``, ``"all"`` or a further part of the split file
            (``"background"``); data sets without a split file have ``"test"`` and ``"all"``, which
            both hold every class.
        size: height and width in pixels; the data set's own by default.
        split_file: short name of another split file (for Omniglot ``"vinyals"``,
            ``"random"``, ``"background-evaluation"`` or ``"by-alphabet"``).
        rotations: whether to add each class turned by 90, 180 and 270 degrees as new classes.

    Returns:
        Pool with ``x`` uint8 ``[M, channels, size, size]``.

    Raises:
        ConfigError: if a name is unknown.
        DataError: if the data is missing; the message says where it is looked for and how to get
            it.
        ChecksumError: if a file is not the expected one.

    Example::

        pool = load_pool("digits")
        pool.x  # [1797, 1, 28, 28]
        turned = load_pool("digits", rotations=True)
        print(turned.n_classes, turned.class_names[:4])
        source = PoolSource(turned)
    """
    info = _info(name)
    size = info.size if size is None else size
    chosen = _choose_split(info, split, split_file)
    if name == "glyphs":
        pool = _glyphs(size)
        if split != "all":
            mine = [i for i, c in enumerate(pool.class_names) if _glyph_part(c) == split]
            pool = pool.select(mine, split=split)
    elif name == "digits":
        pool = replace(_digits(size), split=split)
    else:
        pool = _from_files(info, size, chosen, split)
    return pool.with_rotations() if rotations else pool


class DataPart(NamedTuple):
    """A part of a named data set.

    Args:
        name: name of the data set.
        split: name of the part.
        split_file: short name of the split file; ``None`` = the data set's first.
    """

    name: str
    split: str
    split_file: str | None = None

    def overlaps(self, other: DataPart) -> bool:
        """Return whether both parts hold a class in common, from the same images.

        Raises:
            ConfigError: if a data set, a split or a split file is unknown.
        """
        if not same_images(self.name, other.name):
            return False
        mine, theirs = (_choose_split(_info(p.name), p.split, p.split_file) for p in (self, other))
        if "all" in (self.split, other.split):
            return True
        if mine is None or theirs is None:
            # without a split file every part holds all classes, except in glyphs, whose parts are
            # disjoint
            return self.name != "glyphs" or self.split == other.split
        return not set(mine.parts[self.split]).isdisjoint(theirs.parts[other.split])


def _info(name: str) -> DatasetInfo:
    if name not in DATASETS:
        raise ConfigError(f"there is no data set {name!r}. {nearest_names(name, DATASETS)}")
    return DATASETS[name]


def _choose_split(info: DatasetInfo, split: str, split_file: str | None) -> Split | None:
    """Return the split file, if the data set has one, and check the name of the part."""
    if split_file is not None and split_file not in info.split_files:
        known = nearest_names(split_file, info.split_files) if info.split_files else "It has none."
        raise ConfigError(f"{info.name} has no split file {split_file!r}. {known}")
    short = split_file or info.default_split_file
    chosen = None if short is None else load_split(info.split_files[short])
    known_parts = info.splits if chosen is None else (*chosen.parts, "all")
    if split not in known_parts:
        raise ConfigError(
            f"{info.name} has no split {split!r}. {nearest_names(split, known_parts)}"
        )
    return chosen


def _from_files(info: DatasetInfo, size: int, chosen: Split | None, split: str) -> Pool:
    path = find_file(info.path)
    options: dict[str, object] = {
        "name": Path(info.path).stem,  # CIFAR-FS and FC100 are the same images
        "size": size,
        "channels": info.channels,
        "invert": info.invert,
        "label": info.label,
        "group": info.group,
        "pillow": PIL.__version__,
    }
    # only miniImageNet is so large that decoding one part alone pays
    part = {"split": split} if info.name == "miniimagenet" and split != "all" else {}
    if path is not None:
        verify(path, info.sha256)
        pool = cached_pool(
            {**options, **part, "source": info.sha256},
            lambda: pool_from_parquet(
                path,
                size=size,
                channels=info.channels,
                invert=info.invert,
                label=info.label,
                group=info.group or None,
                where=part,
                name=info.name,
            ),
        )
    elif info.folder and (folder := find_file(info.folder)) is not None:
        pool = _from_csv_folder(info, folder, size, split)
    elif info.remote:
        pool = _from_remote(info, size, options)
    else:
        raise DataError(_how_to_get(info))
    if chosen is not None:
        pool = _select(pool, chosen, split)
    return replace(pool, name=info.name, split=split)


def _select(pool: Pool, chosen: Split, split: str) -> Pool:
    """Return the classes of one part, with readable names."""
    if split != "all":
        wanted = set(chosen.parts[split])
        missing = wanted - set(pool.class_names)
        if missing:
            raise DataError(
                f"{pool.name}: {len(missing)} of the {len(wanted)} classes of "
                f"{chosen.name}/{split} are not "
                f"in the data (first: {min(missing)!r}). Get the complete data set."
            )
        pool = pool.select([i for i, c in enumerate(pool.class_names) if c in wanted], split=split)
    if not chosen.names:
        return pool
    return replace(pool, class_names=tuple(chosen.names.get(c, c) for c in pool.class_names))


def _from_csv_folder(info: DatasetInfo, folder: Path, size: int, split: str) -> Pool:
    """Return the classes of one CSV, or of all three one after the other."""
    parts = ("train", "val", "test") if split == "all" else (split,)
    pools = [
        pool_from_csv(folder, f"{p}.csv", size=size, channels=info.channels, name=info.name)
        for p in parts
    ]
    labels = [pool.class_names[int(c)] for pool in pools for c in pool.y]
    return Pool.build(torch.cat([pool.x for pool in pools]), labels, name=info.name, split=split)


def _from_remote(info: DatasetInfo, size: int, options: Mapping[str, object]) -> Pool:
    paths = [_fetched(info, remote) for remote in info.remote]

    def build() -> Pool:
        if info.name == "omniglot":
            return pool_from_omniglot_zips(paths, size=size)
        return pool_from_cifar100(paths[0], size=size)

    source = [remote.digest for remote in info.remote]
    return cached_pool({**options, "source": source}, build)


def _fetched(info: DatasetInfo, remote: RemoteFile) -> Path:
    """Return a published file that passes its check, downloaded to the cache folder if need be."""
    found = find_file(remote.path)
    if found is None:
        try:
            return downloads.download(remote.url, remote.digest, cache_home() / remote.path)
        except ChecksumError:
            raise
        except DataError as error:
            if not info.path:
                raise
            raise DataError(
                f"{error} Or set QUICKSTUDY_DATA to a folder that holds {info.path}."
            ) from error
    verify(found, remote.digest)
    return found


def _how_to_get(info: DatasetInfo) -> str:
    """Return where a missing data set was looked for, and how to get it."""
    places = " and ".join(dict.fromkeys(map(str, (data_home(), cache_home()))))
    text = f"{info.name}: not found. Looked for {info.path} in {places}. "
    if info.folder:
        text += (
            f"Its terms ({info.licence}) allow no download from here: get the images from "
            f"{info.source}, put images/ and train.csv, val.csv, test.csv (columns filename,label) "
            f"into {data_home() / info.folder}, or set QUICKSTUDY_DATA."
        )
    else:
        text += (
            f"Set QUICKSTUDY_DATA to the folder that holds it. Original: {info.source}; class "
            "folders of the original can be read with pool_from_folder."
        )
    return text


# ---------------------------------------------------------------- data sets that need no file


def _glyphs(size: int) -> Pool:
    """Return the characters of matplotlib's fonts; other versions of the fonts are another pool."""
    fonts = hashlib.sha256("".join(sha256_of(f) for f in default_fonts()).encode()).hexdigest()
    key = {"name": "glyphs", "version": 1, "size": size, "source": fonts, "pillow": PIL.__version__}
    return cached_pool(key, lambda: render_glyphs(size=size))


def _glyph_part(class_name: str) -> str:
    """Return the part of a class named ``"U+0416 ..."``."""
    return glyph_split(chr(int(class_name.split()[0].removeprefix("U+"), 16)))


def _digits(size: int) -> Pool:
    """Return scikit-learn's digits, enlarged with a bicubic filter."""
    # imported here: scikit-learn takes a second
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels = np.empty((len(bunch.images), 1, size, size), np.uint8)
    for i, digit in enumerate(bunch.images):  # [8, 8], 0 ... 16
        image = Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8))
        pixels[i, 0] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    return Pool.build(torch.from_numpy(pixels), bunch.target.tolist(), name="digits", split="test")


# ---------------------------------------------------------------- is it there?


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """Whether a data set can be used, and from where.

    Args:
        name: of the data set.
        state: ``"built-in"`` (needs no file), ``"found"``, ``"downloadable"`` or ``"missing"``.
        path: the file or folder that would be read, or ``None``.
        message: one sentence for people: what was found, or what to do.
    """

    name: str
    state: str
    path: Path | None
    message: str


@checked
def dataset_status(name: str) -> DatasetStatus:
    """Say where a data set would be read from, without reading or downloading it.

    Raises:
        ConfigError: if the name is unknown.
    """
    info = _info(name)
    if not info.path:
        return DatasetStatus(name, "built-in", None, "needs no file")
    remote = [find_file(r.path) for r in info.remote]
    candidates = [find_file(info.path)]
    candidates += [find_file(info.folder)] if info.folder else []
    candidates += [remote[0]] if remote and all(p is not None for p in remote) else []
    found = next((path for path in candidates if path is not None), None)
    if found is not None:
        return DatasetStatus(name, "found", found, f"found at {found}")
    if info.remote:
        urls = ", ".join(r.url for r in info.remote)
        return DatasetStatus(name, "downloadable", None, f"will be downloaded from {urls}")
    return DatasetStatus(name, "missing", None, _how_to_get(info))


@checked
def get_dataset(name: str) -> DatasetStatus:
    """Make a data set available: download it if it is not there and may be downloaded.

    Raises:
        ConfigError: if the name is unknown.
        DataError: if it cannot be downloaded; the message says how to get it.
        ChecksumError: if a file is not the expected one.
    """
    status = dataset_status(name)
    if status.state == "missing":
        raise DataError(status.message)
    if status.state == "downloadable":
        info = _info(name)
        for remote in info.remote:
            _fetched(info, remote)
        status = dataset_status(name)
    return status


@checked
def check_dataset(name: str) -> DatasetStatus:
    """Check the files of a data set against their checksums.

    Returns:
        Its status. If that is ``"missing"`` or ``"downloadable"`` there is nothing to check; a
        folder of images has no checksum.

    Raises:
        ConfigError: if the name is unknown.
        ChecksumError: if a file is not the expected one; the message names both checksums.
    """
    info, status = _info(name), dataset_status(name)
    if status.state != "found":
        return status
    path = find_file(info.path)
    if path is not None:
        # read again: a disk can damage a file without changing its date
        verify(path, info.sha256, reread=True)
        return replace(status, message=f"found at {path}, sha256 as expected")
    if status.path is not None and status.path.is_dir():
        return replace(status, message=f"found at {status.path}; a folder has no checksum")
    for remote in info.remote:
        if (file := find_file(remote.path)) is not None:
            verify(file, remote.digest, reread=True)
    return replace(status, message=f"found at {status.path}, checksums as expected")


# ---------------------------------------------------------------- Lake's one-shot runs

_LAKE_PATH = "images/omniglot_oneshot_runs.npz"
_LAKE_SHA256 = "9342fcfa3217832b42afdb04d17247e8587fb48769743dd3a8c5148ef92e0390"


@dataclass(frozen=True, slots=True)
class LakeRuns:
    """The 20 runs of 20-way 1-shot classification within one alphabet, bright ink on black.

    Args:
        train: one image per class, uint8 ``[20, 20, 1, size, size]`` (run, class).
        test: one image per class, uint8 ``[20, 20, 1, size, size]`` (run, image).
        answer: int64 ``[20, 20]``: test image ``i`` of run ``r`` shows the class of ``train[r,
            answer[r, i]]``.
        alphabets: names of the alphabets of the 20 runs.

    Source: Lake, Salakhutdinov and Tenenbaum (2015), "Human-level concept learning through
    probabilistic program induction", one-shot classification.
    """

    train: torch.Tensor
    test: torch.Tensor
    answer: torch.Tensor
    alphabets: tuple[str, ...]


@checked
def load_lake_runs(path: str | Path | None = None, *, size: int = 28) -> LakeRuns:
    """Return the published one-shot runs, prepared as :func:`load_pool` prepares Omniglot.

    Args:
        path: the file; by default it is looked for in the data folder, and its checksum is
            verified.
        size: height and width in pixels.

    Raises:
        DataError: if the file is missing or damaged.
        ChecksumError: if the file of the data folder is not the expected one.
    """
    found = find_file(_LAKE_PATH) if path is None else Path(path)
    if found is None or not found.is_file():
        raise DataError(
            f"the one-shot runs are not there: looked for {path or _LAKE_PATH} "
            f"({data_home()}). Set QUICKSTUDY_DATA to the folder that holds the file."
        )
    if path is None:
        verify(found, _LAKE_SHA256)
    try:
        with np.load(found, allow_pickle=False) as file:
            train, test = (
                _lake_images(file[k], file["hw"], size) for k in ("train_bits", "test_bits")
            )
            answer = torch.from_numpy(file["answer"].astype(np.int64))
            alphabets = tuple(str(name) for name in file["alphabet"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{found}: cannot be read ({error}). Copy the file again.") from error
    return LakeRuns(train, test, answer, alphabets)


def _lake_images(bits: npt.NDArray[np.uint8], shape: npt.NDArray[Any], size: int) -> torch.Tensor:
    """Return the drawings resized, ``[R, I, bytes] -> uint8 [R, I, 1, size, size]``."""
    height, width = (int(side) for side in shape)
    ink = np.unpackbits(bits, axis=2)[..., : height * width].reshape(*bits.shape[:2], height, width)
    out = np.empty((*bits.shape[:2], 1, size, size), np.uint8)
    for run, i in np.ndindex(*bits.shape[:2]):
        # resized as black ink on white and then inverted, exactly as the images of the pool
        image = Image.fromarray((255 * (1 - ink[run, i])).astype(np.uint8))
        out[run, i, 0] = 255 - np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    return torch.from_numpy(out)

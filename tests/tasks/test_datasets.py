"""Named data sets: found, checked, explained; the real ones where the data is at hand."""

import hashlib
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.core import ChecksumError, ConfigError, DataError
from quickstudy.storage.places import cache_home
from quickstudy.tasks import datasets
from quickstudy.tasks.datasets import (
    DATASETS,
    check_dataset,
    dataset_status,
    get_dataset,
    load_lake_runs,
    load_pool,
)
from quickstudy.tasks.splits import SPLITS, Split

REAL = os.environ.get("QUICKSTUDY_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="needs the real data: set QUICKSTUDY_DATA")


@pytest.fixture(autouse=True)
def empty_cache(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if "data" not in request.keywords:
        monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (6, 6), value).save(stream, "PNG")
    return stream.getvalue()


def test_catalogue_is_complete() -> None:
    for name, info in DATASETS.items():
        assert info.name == name
        assert info.licence
        assert info.source
        assert bool(info.path) == bool(info.sha256)
        assert set(info.split_files.values()) <= set(SPLITS)
        assert info.splits[-2:] == ("test", "all")


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'omniglot'"):
        load_pool("omniglott")
    with pytest.raises(ConfigError, match="'train'"):
        load_pool("omniglot", split="trian")
    with pytest.raises(ConfigError, match="'vinyals'"):
        load_pool("omniglot", split_file="vinyal")
    with pytest.raises(ConfigError, match="no split 'train'"):
        load_pool("mnist", split="train")
    with pytest.raises(ConfigError, match="It has none"):
        load_pool("mnist", split_file="x")


def test_missing_data_says_where_and_how() -> None:
    with pytest.raises(DataError, match=r"images/quickdraw\.parquet.*QUICKSTUDY_DATA"):
        load_pool("quickdraw")
    with pytest.raises(DataError, match=r"filename,label.*miniimagenet"):
        load_pool("miniimagenet")
    with pytest.raises(DataError, match="non-commercial"):
        get_dataset("miniimagenet")
    with pytest.raises(DataError, match="one-shot runs"):
        load_lake_runs()


def test_without_a_network_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> Path:
        raise DataError("no network. Fetch the file elsewhere.")

    monkeypatch.setattr("quickstudy.storage.downloads.download", offline)
    both = r"Fetch the file elsewhere\. Or set QUICKSTUDY_DATA to .* images/omniglot\.parquet"
    with pytest.raises(DataError, match=both):
        load_pool("omniglot")
    with pytest.raises(DataError, match=both):
        get_dataset("omniglot")


def test_status_without_data() -> None:
    states = {name: dataset_status(name).state for name in DATASETS}
    assert states.pop("digits") == states.pop("glyphs") == "built-in"
    online = {name for name, state in states.items() if state == "downloadable"}
    assert online == {"omniglot", "cifar-fs", "fc100"}
    assert {states[name] for name in states.keys() - online} == {"missing"}
    assert check_dataset("digits").state == "built-in"


def test_wrong_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mnist.parquet").write_bytes(b"hello")
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    got = hashlib.sha256(b"hello").hexdigest()
    message = f"expected {DATASETS['mnist'].sha256}, got {got}"
    with pytest.raises(ChecksumError, match=message):
        load_pool("mnist")
    with pytest.raises(ChecksumError, match=message):
        check_dataset("mnist")


def test_digits_are_bright_on_black() -> None:
    pool = load_pool("digits")
    assert pool.class_names == tuple("0123456789")
    assert pool.x.shape == (1797, 1, 28, 28)
    zero = pool.x[pool.y == 0].float().mean(0)[0]
    assert float(zero[13, 13]) < 40 < float(zero.max())  # a hole in the middle
    assert float(pool.x[..., :, 0].float().mean()) < 5
    assert load_pool("digits", size=32, split="all").split == "all"


def test_miniimagenet_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "miniimagenet"
    (folder / "images").mkdir(parents=True)
    ids = datasets.load_split("miniimagenet-ravi").parts["val"]
    rows = ["filename,label"]
    for i, wnid in enumerate(ids):
        (folder / "images" / f"{wnid}1.jpg").write_bytes(png(i))
        rows.append(f"{wnid}1.jpg,{wnid}")
    (folder / "val.csv").write_text("\n".join(rows))
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    pool = load_pool("miniimagenet", split="val", size=6)
    assert pool.n_classes == 16
    assert "goose" in pool.class_names
    assert dataset_status("miniimagenet").state == "found"
    assert check_dataset("miniimagenet").path == folder
    (folder / "val.csv").write_text("\n".join(rows[:-1]))
    with pytest.raises(DataError, match="1 of the 16 classes"):
        load_pool("miniimagenet", split="val", size=6)


def test_omniglot_from_the_published_zips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "omniglot").mkdir()
    remote = []
    for file in DATASETS["omniglot"].remote:
        path = tmp_path / file.path
        with zipfile.ZipFile(path, "w") as archive:
            for drawer in range(1, 4):
                archive.writestr(f"x/{path.stem}/character01/1_{drawer:02d}.png", png(255))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        remote.append(replace(file, digest=digest))
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path))
    with pytest.raises(ChecksumError, match="md5"):
        load_pool("omniglot", split="all")
    info = replace(DATASETS["omniglot"], remote=tuple(remote))
    monkeypatch.setitem(DATASETS, "omniglot", info)
    pool = load_pool("omniglot", split="all")
    assert pool.counts.tolist() == [3, 3]
    assert int(pool.x.max()) == 0  # blank paper
    assert check_dataset("omniglot").state == "found"
    small = Split("s", {"train": ("images_background/character01",), "test": ()})
    monkeypatch.setattr(datasets, "load_split", lambda _: small)
    turned = load_pool("omniglot", split="train", rotations=True)
    assert turned.n_classes == 4
    assert len(list((cache_home() / "pools").iterdir())) == 1


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "split", "classes", "per_class"),
    [
        ("quickdraw", "test", 345, 50),
        ("gtsrb", "test", 43, 60),
        ("dtd", "test", 10, 100),
        ("fashion-mnist", "test", 10, 150),
        ("mnist", "all", 10, 300),
        ("miniimagenet", "val", 16, 100),
    ],
)
def test_real_data(name: str, split: str, classes: int, per_class: int) -> None:
    pool = load_pool(name, split=split)
    info = DATASETS[name]
    assert pool.counts.tolist() == [per_class] * classes
    assert pool.x.shape[1:] == (info.channels, info.size, info.size)
    assert (pool.name, pool.split) == (name, split)
    if info.channels == 1:
        edge = torch.cat([pool.x[..., 0, :], pool.x[..., -1, :]]).float().mean()
        assert float(edge) < float(pool.x.float().mean())
    again = load_pool(name, split=split)
    assert again.sha256() == pool.sha256()
    assert check_dataset(name).state == "found"


@pytest.mark.data
@needs_data
def test_real_omniglot_and_lake_runs() -> None:
    background = load_pool("omniglot", split="background", split_file="background-evaluation")
    assert background.n_classes == 964
    everything = load_pool("omniglot", split="all")
    assert everything.counts.tolist() == [20] * 1623
    parts = [load_pool("omniglot", split=s) for s in ("train", "val", "test")]
    assert [p.n_classes for p in parts] == [1028, 172, 423]
    groups = everything.groups
    assert groups is not None
    assert bool((groups.view(1623, 20).sort(1).values == torch.arange(20)).all())

    runs = load_lake_runs()
    assert runs.train.shape == runs.test.shape == (20, 20, 1, 28, 28)
    assert bool((runs.answer.sort(1).values == torch.arange(20)).all())
    # each drawing of the runs is, byte for byte, one of the pool
    rows = {image.tobytes() for image in everything.x.numpy()}
    assert all(image.tobytes() in rows for image in runs.train.flatten(0, 1).numpy())
    assert all(image.tobytes() in rows for image in runs.test.flatten(0, 1).numpy())
    # pixel nearest neighbours beat chance (5 %), so the answers point at the right images
    train, test = (x.flatten(2).double() for x in (runs.train, runs.test))
    right = torch.cdist(test, train).argmin(2) == runs.answer
    assert 0.15 < float(right.double().mean()) < 0.6


@pytest.mark.data
@needs_data
def test_real_cifar_has_two_splits_of_one_cache() -> None:
    pools = [load_pool(name, split="test") for name in ("cifar-fs", "fc100")]
    assert [pool.n_classes for pool in pools] == [20, 20]
    assert pools[0].class_names != pools[1].class_names
    assert len(list((cache_home() / "pools").iterdir())) == 1


@pytest.mark.data
@needs_data
def test_pixel_neighbours_reach_the_known_floor() -> None:
    pool = load_pool("mnist")
    x = pool.x.flatten(1).double().view(10, 300, -1)
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(300):
        classes, rows = rng.permutation(10)[:5], rng.permutation(300)[:16]
        task = x[classes][:, rows]
        near = torch.cdist(task[:, 1:].flatten(0, 1), task[:, 0]).argmin(1)
        scores.append(float((near == torch.arange(5).repeat_interleave(15)).double().mean()))
    assert 0.49 < np.mean(scores) < 0.57  # 52.8 % +- 1

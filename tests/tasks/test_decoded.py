"""The cache of decoded pools."""

from pathlib import Path

import pytest
import torch

from quickstudy.tasks.decoded import cached_pool, pool_cache_path
from quickstudy.tasks.pool import Pool


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    return tmp_path / "xdg" / "quickstudy"


def pool() -> Pool:
    x = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    return Pool.build(x, ["a", "b", "c"] * 2, name="toy", split="val", groups=[1, 1, 2, 2, 3, 3])


def never() -> Pool:
    pytest.fail("built although it was cached")


def test_cached_pool_comes_back_equal(cache: Path) -> None:
    key = {"name": "toy", "size": 2}
    built = cached_pool(key, pool)
    loaded = cached_pool(key, never)
    assert loaded.sha256() == built.sha256() == pool().sha256()
    assert (loaded.name, loaded.split) == ("toy", "val")
    assert pool_cache_path({"name": "toy", "size": 3}) != pool_cache_path(key)
    assert [p.suffix for p in (cache / "pools").iterdir()] == [".safetensors"]


def test_damaged_entries_are_built_again() -> None:
    key = {"name": "toy"}
    path = pool_cache_path(key)
    cached_pool(key, pool)
    whole = path.read_bytes()
    for damaged in (b"", b"rubbish", whole[:100], whole[:-5]):
        path.write_bytes(damaged)
        assert cached_pool(key, pool).sha256() == pool().sha256()
        assert path.read_bytes() == whole


def test_unusable_cache_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made there
    assert cached_pool({"name": "toy"}, pool).n_classes == 3

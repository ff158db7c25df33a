"""Data folder, checksums, downloads from a local server."""

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from quickstudy.core import ChecksumError, ConfigError, DataError
from quickstudy.storage import downloads
from quickstudy.storage.downloads import download, sha256_of, verify
from quickstudy.storage.places import data_home, find_file

SHA = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    return tmp_path / "xdg" / "quickstudy"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a.bin").write_bytes(b"hello")
    handler = partial(Quiet, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_data_folder_comes_first(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data_home() == cache
    assert find_file("a/b.txt") is None
    for folder in (cache, tmp_path / "data"):
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "b.txt").touch()
    (cache / "only").touch()
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "data"))
    assert find_file("a/b.txt") == tmp_path / "data" / "a" / "b.txt"
    assert find_file("only") == cache / "only"
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match="QUICKSTUDY_DATA"):
        find_file("a/b.txt")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ""])
def test_names_stay_in_the_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="data folder"):
        find_file(name)


def test_sha256_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    assert sha256_of(path) == SHA
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_digest", lambda *_: pytest.fail("read twice"))
        assert sha256_of(path) == SHA
    path.write_bytes(b"world")
    os.utime(path, ns=(1, 1))
    assert sha256_of(path) == hashlib.sha256(b"world").hexdigest()
    with pytest.raises(DataError, match="cannot be read"):
        sha256_of(tmp_path / "gone")


def test_a_disk_that_rots_without_a_new_date_is_found_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    verify(path, SHA)
    before = path.stat()
    path.write_bytes(b"jello")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    verify(path, SHA)  # what is remembered is good enough for loading
    with pytest.raises(ChecksumError):
        verify(path, SHA, reread=True)


def test_verify_names_both_checksums(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    verify(path, SHA)
    verify(path, "md5:" + hashlib.md5(b"hello", usedforsecurity=False).hexdigest())
    with pytest.raises(ChecksumError, match=f"expected {'0' * 64}, got {SHA}"):
        verify(path, "0" * 64)
    with pytest.raises(ConfigError, match="not a checksum"):
        verify(path, "abc")


def test_download(server: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    assert download(f"{server}/a.bin", SHA, target) == target
    assert target.read_bytes() == b"hello"
    assert list(target.parent.iterdir()) == [target]
    # a good file is not fetched again
    assert download("http://127.0.0.1:9/a.bin", SHA, target) == target


def test_download_errors(server: str, tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with pytest.raises(ChecksumError, match=f"expected {'0' * 64}, got {SHA}"):
        download(f"{server}/a.bin", "0" * 64, target)
    assert not target.exists()
    assert (tmp_path / "a.bin.bad").read_bytes() == b"hello"
    for url in (f"{server}/gone.bin", "http://127.0.0.1:9/a.bin"):
        with pytest.raises(DataError, match=r"cannot be downloaded.*put it at .*a\.bin"):
            download(url, SHA, target)
    with pytest.raises(ConfigError, match="http"):
        download("file:///etc/passwd", SHA, target)
    assert not list(tmp_path.glob("*.part"))


def test_an_unusable_cache_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made there
    (tmp_path / "f").write_bytes(b"hello")
    assert sha256_of(tmp_path / "f") == SHA

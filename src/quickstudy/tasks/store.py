"""Where data lies: the data folder, the cache folder, downloads with a checksum, and decoded pools.

Data files are looked for in ``QUICKSTUDY_DATA`` first, which is never written to, then in the cache
folder (``$XDG_CACHE_HOME/quickstudy`` or ``~/.cache/quickstudy``). The cache is a convenience: if
it cannot be written, everything works without it, only slower.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from quickstudy.core import ChecksumError, ConfigError, DataError
from quickstudy.tasks.pool import Pool

__all__ = [
    "cache_home",
    "cached_pool",
    "data_home",
    "download",
    "find_file",
    "pool_cache_path",
    "sha256_of",
    "verify",
]

_FORMAT = 2  # raise when decoding or the layout of a cached pool changes
_BLOCK = 1 << 20
_TIMEOUT_S = 30.0


def cache_home() -> Path:
    """Return the cache folder, ``$XDG_CACHE_HOME/quickstudy`` or ``~/.cache/quickstudy``.

    It may not exist yet.

    Raises:
        DataError: if the user has no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():  # the XDG rule: relative paths are to be ignored
        return Path(base) / "quickstudy"
    try:
        return Path.home() / ".cache" / "quickstudy"
    except RuntimeError as error:
        raise DataError(
            "this user has no home folder to keep data in. Set QUICKSTUDY_DATA or XDG_CACHE_HOME."
        ) from error


def data_home() -> Path:
    """Return the data folder: ``QUICKSTUDY_DATA`` if it is set, else the cache folder.

    Raises:
        DataError: if ``QUICKSTUDY_DATA`` is set to something that is not a folder.
    """
    given = os.environ.get("QUICKSTUDY_DATA", "")
    if not given:
        return cache_home()
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"QUICKSTUDY_DATA is {given!r}, which is not a folder. Correct or unset it."
        )
    return folder


def find_file(name: str) -> Path | None:
    """Return where ``name`` lies, in the data folder or else the cache folder, or ``None``.

    Args:
        name: relative path with forward slashes, for example ``"images/omniglot.parquet"``.

    Raises:
        ConfigError: if ``name`` is not a path below the data folder.
        DataError: as :func:`data_home`.
    """
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts:
        raise ConfigError(f"{name!r} is not a path below the data folder. Give a relative path.")
    for folder in (data_home(), cache_home()):
        if (folder / name).exists():
            return folder / name
    return None


def sha256_of(path: str | Path, *, reread: bool = False) -> str:
    """Return a file's sha256 in hexadecimal.

    It is remembered in the cache folder by path, size and time of the last change, so that a large
    file is read once and not on every run.

    Args:
        path: the file.
        reread: do not trust what is remembered.

    Raises:
        DataError: if the file cannot be read.
    """
    source = Path(path)
    try:
        status = source.stat()
        key = f"{source.resolve()}"
        stamp = [status.st_size, status.st_mtime_ns]
        known = _read_json(_checksum_file())
        entry = known.get(key)
        if not reread and isinstance(entry, list) and entry[:2] == stamp and len(entry) == 3:
            return str(entry[2])
        digest = _digest(source, "sha256")
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}). Check the path.") from error
    _write_checksum(key, [*stamp, digest])
    return digest


def verify(path: str | Path, digest: str, *, reread: bool = False) -> None:
    """Check a file against its published checksum.

    Args:
        path: the file.
        digest: sha256 in hexadecimal, or ``"md5:"`` and an MD5, for old archives whose authors
            published no better one.
        reread: as for :func:`sha256_of`.

    Raises:
        ChecksumError: if the file is another one.
        DataError: if it cannot be read.
    """
    source = Path(path)
    kind, expected = _parse_digest(digest)
    try:
        got = sha256_of(source, reread=reread) if kind == "sha256" else _digest(source, kind)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}). Check the path.") from error
    if got != expected:
        raise ChecksumError(
            f"{source}: {kind} is not the expected one: expected {expected}, got {got}. "
            "The file is damaged or another version: replace it, or load it by its path instead."
        )


def download(url: str, sha256: str, target: str | Path) -> Path:
    """Fetch a file, check it, and only then put it in place.

    Args:
        url: an http or https address.
        sha256: the expected checksum, as for :func:`verify`.
        target: where the file goes; its folder is made. An existing file that passes the check is
            kept.

    Returns:
        ``target``.

    Raises:
        ChecksumError: if the file is another one; it is kept next to ``target`` with the ending
            ``.bad``.
        DataError: if it cannot be fetched or written.
        ConfigError: if the address or the checksum cannot be used.
    """
    place = Path(target)
    kind, expected = _parse_digest(sha256)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"{url!r} is not an http or https address. Give one, or copy the file.")
    if place.is_file() and _digest(place, kind) == expected:
        return place
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        digest = _fetch(url, part, kind)
        if digest != expected:
            bad = place.with_name(place.name + ".bad")
            part.replace(bad)
            raise ChecksumError(
                f"{url}: {kind} is not the expected one: expected {expected}, got {digest}. The "
                f"file is kept as {bad}; try again, or get it from another source."
            )
        part.replace(place)
    # http.client errors: the server hangs up or talks nonsense in the middle
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{url}: cannot be downloaded ({reason}). Check the connection, or fetch the file "
            f"elsewhere and put it at {place}."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return place


def _fetch(url: str, part: Path, kind: str) -> str:
    """Write the file at ``url`` to ``part`` and return its digest."""
    hasher = hashlib.new(kind, usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "quickstudy"})
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer,
        part.open("wb") as stream,
        tqdm(
            total=int(answer.headers.get("Content-Length") or 0) or None,
            desc=part.name.split(".")[0],
            unit="B",
            unit_scale=True,
            delay=2,
            disable=None,
        ) as bar,
    ):
        while block := answer.read(_BLOCK):
            stream.write(block)
            hasher.update(block)
            bar.update(len(block))
    return hasher.hexdigest()


def _parse_digest(digest: str) -> tuple[str, str]:
    kind, _, value = digest.rpartition(":")
    kind = kind or "sha256"
    length = {"sha256": 64, "md5": 32}.get(kind, -1)
    if not re.fullmatch(rf"[0-9a-f]{{{max(length, 0)}}}", value.lower()) or length < 0:
        raise ConfigError(
            f"{digest!r} is not a checksum. Give a sha256 in hexadecimal, or 'md5:' and an MD5."
        )
    return kind, value.lower()


def _digest(path: Path, kind: str) -> str:
    hasher = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


# ---------------------------------------------------------------- decoded pools


def pool_cache_path(key: Mapping[str, object]) -> Path:
    """Return where the decoded pool of these options lies, or will lie.

    Args:
        key: all that the pool depends on: the source's sha256 and every option of decoding.
    """
    text = json.dumps({"format": _FORMAT, **key}, sort_keys=True, default=str)
    stem = re.sub(r"[^a-z0-9]+", "-", str(key.get("name", "pool")).lower())
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return cache_home() / "pools" / f"{stem}-{digest}.safetensors"


def cached_pool(key: Mapping[str, object], build: Callable[[], Pool]) -> Pool:
    """Return the pool of these options from the cache, or build it and keep it there.

    A cache entry that cannot be read is built again; a cache that cannot be written is done
    without.

    Args:
        key: as for :func:`pool_cache_path`.
        build: makes the pool.
    """
    try:
        path = pool_cache_path(key)
    except DataError:
        return build()
    pool = _load_pool(path)
    if pool is None:
        pool = build()
        with contextlib.suppress(OSError, SafetensorError):
            _save_pool(pool, path)
    return pool


def _save_pool(pool: Pool, path: Path) -> None:
    tensors = {"x": pool.x.contiguous(), "y": pool.y.contiguous()}
    if pool.groups is not None:
        tensors["groups"] = pool.groups.contiguous()
    about = {"class_names": pool.class_names, "name": pool.name, "split": pool.split}
    with _atomic(path) as part:
        save_file(tensors, part, metadata={"pool": json.dumps(about)})


def _load_pool(path: Path) -> Pool | None:
    """Return the pool, or ``None`` if there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["pool"])
            names = list(file.keys())
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in names}
        return Pool(
            tensors["x"],
            tensors["y"],
            tuple(about["class_names"]),
            about["name"],
            about["split"],
            tensors.get("groups"),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return None


# ---------------------------------------------------------------- small files, written whole or not
# at all


@contextlib.contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """Give a temporary file in the same folder that replaces ``path`` if all goes well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _checksum_file() -> Path | None:
    try:
        return cache_home() / "checksums.json"
    except DataError:
        return None


def _read_json(path: Path | None) -> dict[str, Any]:
    """Return the dictionary in a JSON file; anything else counts as empty."""
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_checksum(key: str, entry: list[object]) -> None:
    path = _checksum_file()
    if path is None:
        return
    with contextlib.suppress(OSError):
        known = {**_read_json(path), key: entry}
        with _atomic(path) as part:
            part.write_text(json.dumps(known, indent=0, sort_keys=True), encoding="utf-8")

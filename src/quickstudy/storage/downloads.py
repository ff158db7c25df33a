"""Downloads with a checksum; checksums of large files are remembered, so they are read once."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from quickstudy.core import ChecksumError, ConfigError, DataError
from quickstudy.storage.files import replacing
from quickstudy.storage.places import cache_home

__all__ = ["download", "sha256_of", "verify"]

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30.0


def sha256_of(path: str | Path, *, reread: bool = False) -> str:
    """Return a file's sha256 in hexadecimal.

    It is remembered in the cache folder by path, size and time of the last change, so that a large
    file is read once and not on every run.

    Args:
        path: the file.
        reread: read the file even if its checksum is remembered.

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
        ChecksumError: if the file has another checksum.
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
    """Download a file, check it, and only then move it to its place.

    Args:
        url: an http or https address.
        sha256: the expected checksum, as for :func:`verify`.
        target: where the file goes; its folder is made. An existing file that passes the check is
            kept.

    Returns:
        ``target``.

    Raises:
        ChecksumError: if the file has another checksum; it is kept next to ``target`` with the
            ending ``.bad``.
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
    # http.client errors: the server breaks off, or its answer is not HTTP
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
        while block := answer.read(_BLOCK_BYTES):
            stream.write(block)
            hasher.update(block)
            bar.update(len(block))
    return hasher.hexdigest()


def _parse_digest(digest: str) -> tuple[str, str]:
    """Return the kind of a checksum, ``"sha256"`` or ``"md5"``, and its hexadecimal digits."""
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
        while block := stream.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


def _checksum_file() -> Path | None:
    """Return where checksums are remembered, or ``None`` if there is no place for them."""
    try:
        return cache_home() / "checksums.json"
    except DataError:
        return None


def _read_json(path: Path | None) -> dict[str, Any]:
    """Return the dictionary in a JSON file; any other file counts as empty."""
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_checksum(key: str, entry: list[object]) -> None:
    """Remember a checksum if the cache can be written; without it everything works, only slower."""
    path = _checksum_file()
    if path is None:
        return
    with contextlib.suppress(OSError):
        known = {**_read_json(path), key: entry}
        with replacing(path) as part:
            part.write_text(json.dumps(known, indent=0, sort_keys=True), encoding="utf-8")

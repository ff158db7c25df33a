"""Where data lies: the data folder and the cache folder.

Data files are looked for in the folder ``QUICKSTUDY_DATA`` first, which is never written to, then
in the cache folder (``$XDG_CACHE_HOME/quickstudy`` or ``~/.cache/quickstudy``). The cache is a
convenience: if it cannot be written, everything works without it, only slower.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from quickstudy.core import ConfigError, DataError

__all__ = ["cache_home", "data_home", "find_file"]


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
    """Return the path of ``name`` in the data folder or else the cache folder, or ``None``.

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

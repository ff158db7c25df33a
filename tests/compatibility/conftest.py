"""A folder where commands may write, with copies of all that was recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from recorded import copy_fixtures


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Add numbers up in the order in which they were added when it was recorded."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def work(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which holds copies of all fixtures; no data and no cache."""
    copy_fixtures(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "data" not in request.keywords:
        monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_to_check", raising=False)
    return tmp_path

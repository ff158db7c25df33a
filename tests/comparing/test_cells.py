"""Scores of regression on disk: likelihood is kept, and cells of earlier versions have none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from quickstudy.comparing.cells import CellStore
from quickstudy.comparing.contestants import Contestant
from quickstudy.comparing.tasklists import TaskList
from quickstudy.core import EpisodeSpec
from quickstudy.evaluation import evaluate
from quickstudy.learners import NearestNeighbour
from quickstudy.tasks import SinusoidSource


@pytest.fixture
def cell(tmp_path, monkeypatch):
    spec = EpisodeSpec(1, 5, 4)
    tasks = TaskList("waves", "sinusoid", "test", (), False, False, spec, 6, 0)
    monkeypatch.setattr(CellStore, "key", lambda *_: "0" * 32)
    report = evaluate(NearestNeighbour(), SinusoidSource("test"), spec, episodes=6)
    store = CellStore(tmp_path)
    one = object.__new__(Contestant)
    store.put(one, tasks, report)
    return store, one, tasks, report


def test_likelihood_is_kept(cell):
    store, one, tasks, report = cell
    found = store.get(one, tasks).likelihood
    np.testing.assert_array_equal(found.nll, report.likelihood.nll)
    np.testing.assert_array_equal(found.coverage, report.likelihood.coverage)
    assert found.estimated is report.likelihood.estimated is True


def test_a_cell_of_an_earlier_version_has_none(cell):
    store, one, tasks, report = cell
    (path,) = store.folder.glob("*.json")
    about = json.loads(path.read_text())
    del about["likelihood"]
    path.write_text(json.dumps(about))
    found = store.get(one, tasks)
    assert found.likelihood is None
    np.testing.assert_array_equal(found.scores, report.scores)

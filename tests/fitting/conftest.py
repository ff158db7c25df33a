"""A prior and tasks of new classes that several modules share."""

from __future__ import annotations

import pytest
from gaussian_classes import world

from quickstudy.fitting.draws import AuxiliaryClasses, AuxiliaryEpisodes
from quickstudy.fitting.learn import learn_prior
from quickstudy.fitting.prior import TaskPrior


@pytest.fixture(scope="session")
def prior() -> TaskPrior:
    """Return what was learned from forty classes of one source."""
    z, y = world(40, 40, seed=0)
    return learn_prior(
        z.numpy(),
        y.numpy(),
        heads=("prototype", "ridge", "logistic"),
        ways=(3, 5, 10),
        shots=(1, 2, 5),
        tasks=40,
    )


@pytest.fixture(scope="session")
def tasks() -> AuxiliaryEpisodes:
    """Return 200 tasks of new classes: 5 ways, 5 shots, 20 queries of each class, 50 strangers."""
    z, y = world(60, 60, seed=1)
    drawn = AuxiliaryClasses(z, y).episodes(5, 5, tasks=200, seed=3, n_query=20, n_strangers=50)
    assert drawn is not None
    return drawn

"""Public test suites: inherit one in a test module, and pytest tests the contract of your class.

::

    from quickstudy.testing import LearnerConformance

    class TestMyLearner(LearnerConformance):
        def make_learner(self):
            return MyLearner()
"""

from quickstudy.testing.fakes import ConstantLearner, OracleLearner, PositionLearner, gaussian_pool
from quickstudy.testing.gradients import check_meta_gradient, directional_derivatives
from quickstudy.testing.learners import LearnerConformance, snapshot
from quickstudy.testing.sources import SourceConformance, episode_digests

__all__ = [
    "ConstantLearner",
    "LearnerConformance",
    "OracleLearner",
    "PositionLearner",
    "SourceConformance",
    "check_meta_gradient",
    "directional_derivatives",
    "episode_digests",
    "gaussian_pool",
    "snapshot",
]

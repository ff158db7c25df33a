"""Tasks: pools of examples, samplers that choose rows of them, and sources that make episodes."""

from quickstudy.tasks.augment import AffineJitter
from quickstudy.tasks.gaussian_process import GaussianProcessSource
from quickstudy.tasks.pool import Pool
from quickstudy.tasks.sampling import EpisodeIndex, sample_index
from quickstudy.tasks.sinusoid import SinusoidSource
from quickstudy.tasks.source import AugmentedSource, MixtureSource, PoolSource, TaskSource
from quickstudy.tasks.synthetic import SyntheticTables

__all__ = [
    "AffineJitter",
    "AugmentedSource",
    "EpisodeIndex",
    "GaussianProcessSource",
    "MixtureSource",
    "Pool",
    "PoolSource",
    "SinusoidSource",
    "SyntheticTables",
    "TaskSource",
    "sample_index",
]

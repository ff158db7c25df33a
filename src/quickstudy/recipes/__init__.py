"""Recipes: typed configurations of runs by name, and functions that build objects from them."""

from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.build import build_learner, domains, encoder_of, sources
from quickstudy.recipes.data import (
    AlsoConfig,
    GaussianProcessData,
    ImageData,
    JitterConfig,
    PartConfig,
    SinusoidData,
    Sources,
    domain_split,
)
from quickstudy.recipes.encoders import EncoderConfig, build_encoder
from quickstudy.recipes.gradient import (
    ANILConfig,
    FOMAMLConfig,
    GradientConfig,
    IMAMLConfig,
    MAMLConfig,
    MetaSGDConfig,
    ProtoMAMLConfig,
    ReptileConfig,
)
from quickstudy.recipes.incontext import InContextConfig
from quickstudy.recipes.kinds import LEARNERS, known_learners, learner_config
from quickstudy.recipes.memory import LSTMConfig, MANNConfig, MemoryConfig, SNAILConfig
from quickstudy.recipes.metric import MatchingConfig, MetricConfig, ProtoNetConfig
from quickstudy.recipes.processes import ANPConfig, CNPConfig, ProcessConfig
from quickstudy.recipes.registry import RECIPES, get_recipe, known_recipes
from quickstudy.recipes.schema import Recipe, override, parse_recipe

__all__ = [
    "LEARNERS",
    "RECIPES",
    "ANILConfig",
    "ANPConfig",
    "AlsoConfig",
    "CNPConfig",
    "EncoderConfig",
    "FOMAMLConfig",
    "GaussianProcessData",
    "GradientConfig",
    "IMAMLConfig",
    "ImageData",
    "InContextConfig",
    "JitterConfig",
    "LSTMConfig",
    "LearnerConfig",
    "MAMLConfig",
    "MANNConfig",
    "MatchingConfig",
    "MemoryConfig",
    "MetaSGDConfig",
    "MetricConfig",
    "PartConfig",
    "ProcessConfig",
    "ProtoMAMLConfig",
    "ProtoNetConfig",
    "Recipe",
    "ReptileConfig",
    "SNAILConfig",
    "SinusoidData",
    "Sources",
    "build_encoder",
    "build_learner",
    "domain_split",
    "domains",
    "encoder_of",
    "get_recipe",
    "known_learners",
    "known_recipes",
    "learner_config",
    "override",
    "parse_recipe",
    "sources",
]

"""Recipes: typed configurations of runs by name, and functions that build objects from them."""

from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.build import build_learner, domains, encoder_of, sources
from quickstudy.recipes.data import (
    AlsoConfig,
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
from quickstudy.recipes.metric import MatchingConfig, MetricConfig, ProtoNetConfig
from quickstudy.recipes.registry import RECIPES, get_recipe, known_recipes
from quickstudy.recipes.schema import Recipe, override, parse_recipe

__all__ = [
    "LEARNERS",
    "RECIPES",
    "ANILConfig",
    "AlsoConfig",
    "EncoderConfig",
    "FOMAMLConfig",
    "GradientConfig",
    "IMAMLConfig",
    "ImageData",
    "InContextConfig",
    "JitterConfig",
    "LearnerConfig",
    "MAMLConfig",
    "MatchingConfig",
    "MetaSGDConfig",
    "MetricConfig",
    "PartConfig",
    "ProtoMAMLConfig",
    "ProtoNetConfig",
    "Recipe",
    "ReptileConfig",
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

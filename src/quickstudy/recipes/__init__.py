"""Recipes: typed configurations by name, and what builds objects from them."""

from quickstudy.recipes.build import (
    build_encoder,
    build_learner,
    domain_split,
    domains,
    encoder_of,
    sources,
)
from quickstudy.recipes.registry import RECIPES, get_recipe, known_recipes
from quickstudy.recipes.schema import (
    AlsoConfig,
    DataConfig,
    EncoderConfig,
    GradientConfig,
    JitterConfig,
    MetricConfig,
    PartConfig,
    Recipe,
    override,
)

__all__ = [
    "RECIPES",
    "AlsoConfig",
    "DataConfig",
    "EncoderConfig",
    "GradientConfig",
    "JitterConfig",
    "MetricConfig",
    "PartConfig",
    "Recipe",
    "build_encoder",
    "build_learner",
    "domain_split",
    "domains",
    "encoder_of",
    "get_recipe",
    "known_recipes",
    "override",
    "sources",
]

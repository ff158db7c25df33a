"""Recipes: typed configurations by name, and what builds objects from them."""

from quickstudy.recipes.build import (
    Run,
    build_encoder,
    build_learner,
    check_start,
    encoder_of,
    load_run,
    load_start,
    manifest,
    read_facts,
    read_recipe,
    save_recipe,
    sources,
)
from quickstudy.recipes.registry import RECIPES, get_recipe, known_recipes
from quickstudy.recipes.schema import (
    DataConfig,
    EncoderConfig,
    GradientConfig,
    JitterConfig,
    MetricConfig,
    Recipe,
    override,
)

__all__ = [
    "RECIPES",
    "DataConfig",
    "EncoderConfig",
    "GradientConfig",
    "JitterConfig",
    "MetricConfig",
    "Recipe",
    "Run",
    "build_encoder",
    "build_learner",
    "check_start",
    "encoder_of",
    "get_recipe",
    "known_recipes",
    "load_run",
    "load_start",
    "manifest",
    "override",
    "read_facts",
    "read_recipe",
    "save_recipe",
    "sources",
]

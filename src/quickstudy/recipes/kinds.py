"""The kinds of learner that a recipe can name: a literal dict.

Installed packages add theirs through the entry point group ``quickstudy.learners``: its names are
kinds, its objects subclasses of :class:`~quickstudy.recipes.base.LearnerConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from quickstudy.core import ConfigError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.gradient import (
    ANILConfig,
    FOMAMLConfig,
    IMAMLConfig,
    MAMLConfig,
    MetaSGDConfig,
    ProtoMAMLConfig,
    ReptileConfig,
)
from quickstudy.recipes.incontext import InContextConfig
from quickstudy.recipes.memory import LSTMConfig, MANNConfig, SNAILConfig
from quickstudy.recipes.metric import MatchingConfig, ProtoNetConfig
from quickstudy.recipes.processes import ANPConfig, CNPConfig

__all__ = ["LEARNERS", "check_setting", "known_learners", "learner_config"]

LEARNERS: dict[str, type[LearnerConfig]] = {
    "protonet": ProtoNetConfig,
    "matching": MatchingConfig,
    "maml": MAMLConfig,
    "fomaml": FOMAMLConfig,
    "metasgd": MetaSGDConfig,
    "anil": ANILConfig,
    "protomaml": ProtoMAMLConfig,
    "reptile": ReptileConfig,
    "imaml": IMAMLConfig,
    "cnp": CNPConfig,
    "anp": ANPConfig,
    "mann": MANNConfig,
    "lstm": LSTMConfig,
    "snail": SNAILConfig,
    "incontext": InContextConfig,
}


def known_learners() -> dict[str, type[LearnerConfig]]:
    """Return all kinds of learner: ours, and those of installed packages with other names."""
    others = {point.name: point.load() for point in entry_points(group="quickstudy.learners")}
    return others | LEARNERS


@checked
def learner_config(
    document: Mapping[str, Any], *, also: Sequence[type[LearnerConfig]] = ()
) -> LearnerConfig:
    """Return the configuration that a document describes.

    Args:
        document: settings by name; ``kind`` names the learner.
        also: kinds that no installed package declares.

    Raises:
        ConfigError: if there is no such kind, or a kind of ``also`` has the name of another.
        ValidationError: of pydantic, if a setting is unknown or its value not allowed.
    """
    # installed packages are looked through only where a kind is none of ours: that takes
    # milliseconds, and imports their code
    kind = document.get("kind", "protonet")
    ours = isinstance(kind, str) and kind in LEARNERS and all(o in LEARNERS.values() for o in also)
    kinds = dict(LEARNERS) if ours else known_learners()
    for own in also:
        name = own.kind_name()
        if kinds.setdefault(name, own) is not own:
            raise ConfigError(
                f"{own.__name__} calls its kind {name!r}, and there is a learner of that name "
                "already. Choose another."
            )
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"there is no learner {kind!r}. {nearest_names(str(kind), kinds)}")
    config = kinds[kind]
    # the document holds the settings of the whole family: leave out those of other members
    foreign = config.family_settings.keys() - config.model_fields.keys()
    return config.model_validate({k: v for k, v in document.items() if k not in foreign})


def check_setting(config: LearnerConfig, name: str) -> None:
    """Refuse a setting that other learners of the family have and this one does not.

    Raises:
        ConfigError: naming the learners that have the setting.
    """
    if name in type(config).model_fields or name not in config.family_settings:
        return
    owners = [
        kind
        for kind, other in known_learners().items()
        if other.family == config.family and name in other.model_fields
    ]
    raise ConfigError(
        f"setting learner: {name} is for {', '.join(owners)}, not for {config.kind}. Leave it out."
    )

"""How to meta-train: a frozen, validated configuration that is written into the run."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from quickstudy.core import EpisodeSpec
from quickstudy.core.settings import Settings
from quickstudy.training.overfitting import NOVEL, TRAINING

__all__ = ["TrainConfig", "ValidationConfig"]

Range = tuple[int, int]


class _Episodic(Settings):
    """Way, shot and queries, checked before any data is loaded."""

    n_way: int | Range = 5
    k_shot: int | Range = 1
    n_query: int = 15

    @model_validator(mode="after")
    def _check_spec(self) -> Self:
        _ = self.spec
        return self

    @property
    def spec(self) -> EpisodeSpec:
        """The size of an episode."""
        return EpisodeSpec(self.n_way, self.k_shot, self.n_query)


class ValidationConfig(_Episodic):
    """How the model is judged during training, on validation classes.

    Args:
        n_way: classes per task.
        k_shot: support examples per class.
        n_query: queries per class.
        episodes: number of episodes of the validation classes.
        every: steps between validations.
        patience: stop after this many validations without a better one; ``None`` = never.
        domains: other data sets that are scored beside the validation classes, on tasks of the
            same size (smaller where a domain has fewer classes). One text with commas is a list
            too.
        choose_by: the tasks whose score decides which weights are kept: ``"novel classes"`` (the
            validation classes), or one of ``domains``. That domain is no longer new to the run.
        watch_episodes: number of episodes of the training classes, without augmentation, and of
            each domain; the domain of ``choose_by`` gets ``episodes``. 0 = only the validation
            classes are scored.

    Raises:
        ConfigError: if a setting is unknown, of another type or out of range.

    Example::

        validation = ValidationConfig(n_way=5, k_shot=1, every=500, patience=4)
        print(validation.spec)  # 5-way 1-shot
        config = TrainConfig(steps=2000, validation=validation)
    """

    episodes: int = Field(400, ge=2)
    every: int = Field(500, ge=1)
    patience: int | None = Field(None, ge=1)
    domains: tuple[str, ...] = ()
    choose_by: str = NOVEL
    watch_episodes: int = Field(100, ge=0)

    @field_validator("domains", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Accept ``"mnist,quickdraw"`` too: on a command line a list is one text."""
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @model_validator(mode="after")
    def _check_domains(self) -> Self:
        names = (TRAINING, NOVEL, *self.domains)
        if len(set(names)) < len(names) or "" in names:
            raise ValueError(f"domains must be different names; got {list(self.domains)}")
        if self.choose_by not in names[1:]:
            raise ValueError(
                f"choose_by must be {' or '.join(map(repr, names[1:]))}; got {self.choose_by!r}. "
                "A domain that chooses must be one of domains"
            )
        if self.watch_episodes == 1:
            raise ValueError("watch_episodes must be 0 or at least 2: one has no interval")
        if self.domains and not self.watch_episodes:
            raise ValueError("domains are followed on watch_episodes episodes, and that is 0")
        return self


class TrainConfig(_Episodic):
    """How to meta-train.

    Args:
        steps: outer steps.
        tasks_per_step: episodes whose losses are averaged in one step.
        tasks_at_once: how many of them are in memory together; their gradients are added up, so the
            result is the same. ``None`` = the learner's own schedule.
        n_way: classes per training episode, or a range.
        k_shot: support examples per class, or a range.
        n_query: queries per class.
        roles: ``"fixed"``: support and query as drawn, as in the papers; ``"every"``: each example
            of the episode is support once and query in the other turns, see
            :func:`quickstudy.training.roles.every_role`.
        optimiser: ``"adam"`` (AdamW) or ``"sgd"`` (Nesterov momentum 0.9).
        outer_lr: peak learning rate.
        schedule: ``"cosine"`` to zero, ``"halving"`` (halved every ``halve_every`` steps, as in
            Snell et al.) or ``"constant"``.
        halve_every: see ``schedule``.
        warmup: steps of linear warm-up.
        weight_decay: decoupled weight decay.
        clip_norm: largest norm of the meta-gradient, or ``None``.
        ema_decay: decay of the running average of the weights that is validated and kept; 0 keeps
            the weights.
        precision: ``"float32"`` or ``"bfloat16"`` for the encoder (losses and distances stay in
            float32). On a processor that does not compute bfloat16 itself it is float32.
        seed: of initialisation and of the training episodes.
        checkpoint_every: steps between checkpoints.
        log_every: steps between log lines.
        validation: how the model is judged during training.

    Raises:
        ConfigError: if a setting is unknown, of another type or out of range.

    Example::

        config = TrainConfig(steps=2000, n_way=20, k_shot=1, n_query=5, outer_lr=2e-3)
        print(config.spec)  # 20-way 1-shot
        shorter = config.model_copy(update={"steps": 500})
        config.model_dump(mode="json")
    """

    steps: int = Field(2000, ge=1)
    tasks_per_step: int = Field(1, ge=1)
    tasks_at_once: int | None = Field(None, ge=1)
    n_way: int | Range = 20
    k_shot: int | Range = 1
    n_query: int = 5
    roles: Literal["fixed", "every"] = "fixed"
    optimiser: Literal["adam", "sgd"] = "adam"
    outer_lr: float = Field(2e-3, gt=0)
    schedule: Literal["cosine", "halving", "constant"] = "cosine"
    halve_every: int = Field(2000, ge=1)
    warmup: int = Field(50, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    ema_decay: float = Field(0.99, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(0, ge=0)
    checkpoint_every: int = Field(500, ge=1)
    log_every: int = Field(20, ge=1)
    validation: ValidationConfig = ValidationConfig()

"""Configurations refuse what is no setting, in our words, on construction."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from quickstudy.core import ConfigError
from quickstudy.core.limits import check_at_least, check_positive, check_size
from quickstudy.core.settings import Settings
from quickstudy.recipes import EncoderConfig, Recipe
from quickstudy.recipes.metric import MatchingConfig, ProtoNetConfig
from quickstudy.training import TrainConfig, ValidationConfig

CONFIGS = (TrainConfig, ValidationConfig, EncoderConfig, MatchingConfig, ProtoNetConfig)
FIELDS = [(config, name) for config in CONFIGS for name in config.model_fields]
HOSTILE = [
    -1,
    -2.5,
    math.inf,
    -math.inf,
    math.nan,
    2**80,
    True,
    "x",
    None,
    [],
    {},
    (3, 1),
    object(),
]
HOSTILE += [b"x", np.float64("nan"), np.ones(2), int]


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_a_hostile_value_is_taken_or_refused_by_name(config, name):
    said = []
    for value in HOSTILE:
        try:
            made = config(**{name: value})
        except ConfigError as error:
            said.append(str(error))
        else:
            kept = getattr(made, name)
            assert not isinstance(kept, float) or math.isfinite(kept)
            made.model_dump_json()
    assert all(name in one and "\n" not in one and "Input" not in one for one in said)
    assert len(said) >= 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": -1}, "TrainConfig.steps must be at least 1; got -1."),
        ({"outer_lr": math.inf}, "TrainConfig.outer_lr must be finite; got inf."),
        ({"outer_lr": 0}, "TrainConfig.outer_lr must be above 0.0; got 0."),
        ({"ema_decay": 1}, "TrainConfig.ema_decay must be below 1.0; got 1."),
        ({"steps": "many"}, "TrainConfig.steps must be a whole number; got 'many'."),
        ({"schedule": "step"}, "TrainConfig.schedule must be 'cosine', 'halving' or 'constant'"),
        ({"step": 5}, "TrainConfig.step: there is no such setting. Did you mean 'steps'"),
        ({"validation": {"every": 0}}, "TrainConfig.validation.every must be at least 1; got 0."),
        ({"seed": -1}, "TrainConfig.seed must be at least 0"),
        ({"seed": 2**63}, "2^63"),
        ({"steps": True}, "TrainConfig.steps: a number is wanted"),
    ],
)
def test_the_sentence_names_setting_limit_and_value(given, message):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**given)
    assert str(caught.value).startswith(message) or message in str(caught.value)


def test_a_missing_setting_is_said_to_be_missing():
    with pytest.raises(ConfigError, match=r"Recipe\.data is missing"):
        Recipe(name="mine")


def test_numbers_of_numpy_become_pythons():
    made = TrainConfig(
        steps=np.int64(5),
        n_way=(np.int32(2), np.int64(3)),
        outer_lr=np.float32(0.5),
        seed=np.uint8(7),
    )
    assert (made.steps, made.n_way, made.outer_lr, made.seed) == (5, (2, 3), 0.5, 7)
    assert all(type(v) is int for v in (made.steps, *made.n_way, made.seed))
    assert TrainConfig.model_validate_json(made.model_dump_json()) == made


def test_a_document_keeps_the_path_to_the_fault():
    """What reads recipes from documents explains faults by their path."""
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate({"validation": {"every": -3}})
    assert caught.value.errors()[0]["loc"] == ("validation", "every")


def test_a_truth_value_stays_one_where_it_is_wanted():
    class Both(Settings):
        either: bool | int = False
        number: int = 0

    assert Both(either=True).either is True
    with pytest.raises(ConfigError, match="number"):
        Both(number=False)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_limits_refuse_by_name(bad):
    with pytest.raises(ConfigError, match="rate must be positive"):
        check_positive(rate=bad)
    with pytest.raises(ConfigError, match="least 1"):
        check_at_least(1, steps=bad)
    with pytest.raises(ConfigError, match="width"):
        check_size(width=bad)
    check_positive(rate=1e-9)
    check_at_least(0, steps=0)
    check_size(width=10_000_000)
    with pytest.raises(ConfigError, match="at most 10,000,000"):
        check_size(width=10_000_001)


def test_a_setting_may_have_a_type_that_is_known_only_where_it_is_made():
    def types() -> tuple[type[Settings], type[Settings]]:
        class Outer(Settings):
            inner: "Inner"

        class Inner(Settings):
            value: int

        Outer(inner=Inner(value=1))
        return Outer, Inner

    outer, inner = types()
    assert outer(inner=inner(value=2)).model_dump() == {"inner": {"value": 2}}
    with pytest.raises(ConfigError, match=r"Outer\.inner\.value"):
        outer(inner={"value": "x"})

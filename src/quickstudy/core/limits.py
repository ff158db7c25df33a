"""Limits of numbers that a user sets, refused in the same words everywhere."""

from __future__ import annotations

import math

from quickstudy.core.errors import ConfigError

__all__ = ["check_at_least", "check_positive", "check_seed", "check_size"]

# far above every use, and far below what fills the memory before an error is seen
_LARGEST_SIZE = 10_000_000
_LARGEST_SEED = 2**63


def check_positive(**given: float) -> None:
    """Refuse numbers that are not above zero and finite; NaN is not.

    Args:
        **given: the numbers by name.

    Raises:
        ConfigError: naming the first that is not.
    """
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} must be positive and finite; got {value}.")


def check_at_least(least: float, **given: float) -> None:
    """Refuse numbers below a limit; NaN and infinity too.

    Args:
        least: the smallest number allowed.
        **given: the numbers by name.

    Raises:
        ConfigError: naming the first that is refused.
    """
    for name, value in given.items():
        if not least <= value < math.inf:
            raise ConfigError(f"{name} must be at least {least} and finite; got {value}.")


def check_size(**given: int) -> None:
    """Refuse widths and numbers of classes below 1 or beyond ten million.

    Args:
        **given: the sizes by name.

    Raises:
        ConfigError: naming the first that is refused.
    """
    for name, value in given.items():
        if not 1 <= value <= _LARGEST_SIZE:
            raise ConfigError(
                f"{name} must be at least 1 and at most {_LARGEST_SIZE:,}; got {value}."
            )


def check_seed(seed: int) -> None:
    """Refuse seeds that do not fit into 64 bits: another one would give the same numbers.

    Raises:
        ConfigError: if it does not fit.
    """
    if not -_LARGEST_SEED <= seed < _LARGEST_SEED:
        raise ConfigError(f"seed= must lie between -2^63 and 2^63 - 1; got {seed}.")

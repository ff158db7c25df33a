"""Randomness as an argument: counter-based random numbers and seeded generators.

An episode is named by ``(seed, task_id)`` for ever, so its randomness is a pure function of these
numbers: a hash, not a stream. The hash is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators", figure 17), applied to each counter in turn. It is evaluated on
whole arrays, gives the same bits on every machine and with every version of NumPy or PyTorch, and
needs no state: worker 3 can make episode 10,000 without making the 9,999 before it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["generator", "keys", "normals", "uniforms"]

# differs from _GOLDEN: otherwise leading zeros would cancel, and keys(0, 0, i) equal keys(0, i)
_START = np.uint64(0xD1B54A32D192ED03)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, odd
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

UInts = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def _mix(z: UInts) -> UInts:
    """Return the finaliser of SplitMix64: every input bit affects every output bit."""
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def keys(seed: int, *counters: npt.ArrayLike) -> UInts:
    """Return random 64-bit keys, one for each broadcast combination of the counters.

    Args:
        seed: any integer, negative ones too.
        *counters: integer arrays that broadcast against each other, for example task ids ``[T, 1]``
            and class indices ``[1, C]``.

    Returns:
        Keys with the broadcast shape of ``counters`` (``[]`` if there is none).
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant to overflow
        shaped: UInts = _mix(np.asarray(int(seed) % 2**64, dtype=np.uint64) + _START)
        for counter in counters:
            words = np.asarray(counter).astype(np.int64).view(np.uint64)
            shaped = _mix((shaped ^ _mix(words * _GOLDEN + _GOLDEN)) + _GOLDEN)
    return np.asarray(shaped)


def uniforms(seed: int, *counters: npt.ArrayLike) -> Floats:
    """Return uniform random numbers in [0, 1), shaped like :func:`keys`."""
    # the upper 53 bits: as many as a float64 represents exactly
    return (keys(seed, *counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(seed: int, *counters: npt.ArrayLike) -> Floats:
    """Return standard normal random numbers (Box and Muller 1958), shaped like :func:`keys`."""
    # log(1 - u), not log(u): u may be 0, and never is 1
    radius = np.sqrt(-2.0 * np.log1p(-uniforms(seed, *counters, 0)))
    return np.asarray(radius * np.cos(2.0 * np.pi * uniforms(seed, *counters, 1)))


def generator(seed: int, *counters: int) -> torch.Generator:
    """Return a CPU ``torch.Generator`` seeded by a hash of the arguments, for example ``(seed,
    step)``."""
    key = int(keys(seed, *counters)) % 2**63  # manual_seed takes a signed integer
    return torch.Generator().manual_seed(key)

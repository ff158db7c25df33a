"""Can a label be guessed without looking at the example: by its place, or by its class?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quickstudy.core import Episode

__all__ = ["label_evenness", "position_gain"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def position_gain(batches: Sequence[Episode], side: str) -> tuple[float, float]:
    """Return how much better than chance labels can be guessed by their place in an episode.

    A table of the most frequent label at each place is made of the first half of the batches, and
    scored on the other half. Chance is the best constant answer of each episode: more than 1/N if
    its classes are imbalanced.

    Args:
        batches: two batches of episodes or more.
        side: ``"support"`` or ``"query"``.

    Returns:
        The mean gain over chance, a fraction, and its standard error over episodes.
    """
    sides = [(getattr(e, side), e.n_way) for e in batches]
    width = max(examples.y.shape[1] for examples, _ in sides)
    seen = np.zeros((width, max(way for _, way in sides)))
    half = max(1, len(sides) // 2)
    for examples, _ in sides[:half]:
        place = np.arange(examples.y.shape[1])
        for y, mask in zip(examples.y.numpy(), examples.mask.numpy(), strict=True):
            np.add.at(seen, (place[mask], y[mask]), 1)
    answer = seen.argmax(1)  # the most frequent label of each place
    gains = []
    for examples, _ in sides[half:]:
        guess = answer[: examples.y.shape[1]]
        for y, mask in zip(examples.y.numpy(), examples.mask.numpy(), strict=True):
            best = np.bincount(y[mask]).max() / mask.sum()
            gains.append((guess[mask] == y[mask]).mean() - best)
    return float(np.mean(gains)), float(np.std(gains) / np.sqrt(len(gains)))


def label_evenness(batches: Sequence[Episode]) -> tuple[float, int]:
    """Test whether every class gets every label equally often.

    Args:
        batches: episodes whose ``info["classes"]`` holds the class of each label ``[T, C]``.

    Returns:
        Pearson's chi-squared ``sum((got - expected)^2 / expected)`` over classes and labels, and
        its degrees of freedom.
    """
    classes = _numbered(batches)  # [E, C]
    got = np.zeros((classes.max() + 1, classes.shape[1]))
    expected = np.zeros_like(got)
    for row in classes:
        here = np.flatnonzero(row >= 0)  # the labels in use; -1 is padding
        got[row[here], here] += 1
        expected[np.ix_(row[here], here)] += 1 / len(here)
    used = expected > 0
    # the counts of a class are fixed in their sum: one degree of freedom less for each
    chi2 = float(((got - expected)[used] ** 2 / expected[used]).sum())
    return chi2, int(used.sum() - used.any(1).sum())


def _numbered(batches: Sequence[Episode]) -> Ints:
    """Return the classes of all episodes ``[E, C]``, numbered across the sources of a mixture."""
    width = max(e.info["classes"].shape[1] for e in batches)
    found = []
    pools = max(int(e.info["pool"].max()) if "pool" in e.info else 0 for e in batches) + 1
    for e in batches:
        classes = e.info["classes"].numpy()
        wide = np.pad(classes, ((0, 0), (0, width - classes.shape[1])), constant_values=-1)
        pool = e.info["pool"].numpy()[:, None] if "pool" in e.info else 0
        found.append(np.where(wide >= 0, wide * pools + pool, -1))
    return np.concatenate(found)

"""Near-duplicates found among neighbours are those that a comparison of all pairs finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quickstudy.checks import alike
from quickstudy.checks.alike import COARSE, FINE, near_pairs, standardised


def pictures(n: int, seed: int, *, side: int, channels: int = 1) -> Tensor:
    """Smooth pictures, of which some are copies: identical, brighter, noisy or shifted a little."""
    draw = np.random.default_rng(seed)
    coarse = torch.from_numpy(draw.random((n, channels, 5, 5))).float()
    x = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    for row in range(n // 3):
        other = int(draw.integers(n // 3, n))
        change = row % 5
        copied = x[other].clone()
        if change == 1:
            copied = 0.7 * copied + 0.2
        elif change == 2:
            copied = copied + 0.03 * torch.from_numpy(draw.normal(size=copied.shape)).float()
        elif change == 3:
            # near the threshold: some pass and some do not
            copied = copied + float(draw.uniform(0.02, 0.12)) * x[int(draw.integers(n))]
        elif change == 4:
            copied = torch.roll(copied, 1, dims=2)
        x[row] = copied
    return (255 * x.clamp(0, 1)).round().to(torch.uint8)


def by_all_pairs(first: Tensor, y: Tensor, other: Tensor | None, other_y: Tensor | None):
    """Compare every picture with every other, as the module's docstring defines it."""
    right, right_y = (first, y) if other is None or other_y is None else (other, other_y)
    alike_at = [
        (standardised(first, side) @ standardised(right, side).T).double() for side in (8, 32)
    ]
    pairs = {}
    for a in range(len(first)):
        for b in range(len(right)):
            if y[a] == right_y[b] or (other is None and b <= a):
                continue
            if alike_at[0][a, b] >= COARSE and alike_at[1][a, b] >= FINE:
                pairs[a, b] = float(alike_at[1][a, b])
    return pairs


@pytest.mark.parametrize("block", [7, 64, 1024])
@pytest.mark.parametrize("two", [False, True], ids=["one set", "two sets"])
@pytest.mark.parametrize(("side", "channels"), [(28, 1), (40, 3)])
def test_neighbours_give_the_pairs_of_all_pairs(
    side: int, channels: int, two: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alike, "_BLOCK", block)
    everything = pictures(180, 3 * side, side=side, channels=channels)
    y = torch.from_numpy(np.random.default_rng(1).integers(0, 6, 180))
    if two:
        # shuffled, so that copies stand on both sides
        order = torch.from_numpy(np.random.default_rng(2).permutation(180))
        everything, y = everything[order], y[order]
        given = (everything[:100], y[:100], everything[100:], y[100:])
    else:
        given = (everything, y, None, None)
    expected = by_all_pairs(*given)
    assert len(expected) >= 10  # or the test says nothing
    rows, cosines = near_pairs(*given)
    assert {(int(a), int(b)) for a, b in rows} == set(expected)
    assert len(rows) == len(expected)
    assert torch.equal(cosines, cosines.sort(descending=True).values)
    for (a, b), cosine in zip(rows.tolist(), cosines.tolist(), strict=True):
        assert cosine == pytest.approx(expected[a, b], abs=1e-5)

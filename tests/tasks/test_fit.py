"""Images fitted to an encoder: what is taken for a drawing on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.tasks.fit import fit_images, looks_dark_on_light
from quickstudy.tasks.pool import Pool

DRAW = np.random.default_rng(0)


def pool(*images: np.ndarray) -> Pool:
    x = torch.from_numpy(np.stack(images).astype(np.uint8))
    return Pool.build(x, [f"{i % 2}" for i in range(len(x))], name="pictures", split="all")


def drawing(paper: int, ink: int, width: int = 2) -> np.ndarray:
    image = np.full((1, 28, 28), paper)
    at = DRAW.integers(6, 20)
    image[:, 4:24, at : at + width] = ink
    return np.clip(image + DRAW.normal(0, 4, image.shape), 0, 255)


def landscape() -> np.ndarray:
    """A light sky that grows darker, over ground of many tones: no plain paper."""
    rows = np.linspace(250, 80, 28)[None, :, None]
    image = np.broadcast_to(rows, (1, 28, 28)) + DRAW.normal(0, 25, (1, 28, 28))
    return np.clip(image, 0, 255)


@pytest.mark.parametrize("paper", [255, 200, 150])
@pytest.mark.parametrize("width", [1, 2, 6])
def test_ink_on_paper_is_dark_on_light(paper: int, width: int):
    assert looks_dark_on_light(pool(*[drawing(paper, 20, width) for _ in range(6)]))


@pytest.mark.parametrize("paper", [0, 60])
def test_chalk_is_not(paper: int):
    assert not looks_dark_on_light(pool(*[drawing(paper, 240) for _ in range(6)]))


def test_photographs_are_no_ink():
    photos = pool(*[landscape() for _ in range(6)])
    assert not looks_dark_on_light(photos)
    same = fit_images(photos, channels=1, size=28, invert="auto")
    assert torch.equal(same.x, photos.x)
    mixed = pool(*[landscape() for _ in range(2)], *[drawing(255, 0) for _ in range(6)])
    assert looks_dark_on_light(mixed)

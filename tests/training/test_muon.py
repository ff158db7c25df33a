"""Muon: singular values near 1, and a step as its formula says."""

import pytest
import torch

from quickstudy.core import ConfigError, generator
from quickstudy.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 12, 5), (2, 5, 12)])
def test_singular_vectors_stay_and_values_come_near_one(shape):
    given = torch.randn(*shape, generator=generator(0), dtype=torch.float64)
    made = orthogonalised(given)
    before, values = torch.linalg.svdvals(given), torch.linalg.svdvals(made)
    # five iterations do not bring up what is hardly there
    there = before / before.norm(dim=1, keepdim=True) > 0.1
    assert 0.5 < float(values[there].min()) <= float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    inner = u.transpose(1, 2) @ made @ v.transpose(1, 2)  # diagonal
    torch.testing.assert_close(
        inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)), atol=1e-6, rtol=0
    )


def test_a_step_is_the_orthogonalised_momentum():
    weight = torch.nn.Parameter(torch.randn(4, 6, generator=generator(1)))
    before, first = weight.detach().clone(), torch.randn(4, 6, generator=generator(2))
    optimiser = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    weight.grad = first
    optimiser.step()
    momentum = 0.1 * first
    move = 0.1 * first + 0.9 * momentum
    wanted = before * (1 - 0.1 * 0.5) - 0.1 * 0.2 * 6**0.5 * orthogonalised(move[None])[0]
    torch.testing.assert_close(weight.detach(), wanted)


def test_refusals():
    with pytest.raises(ValueError, match="for matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
    with pytest.raises(ConfigError, match="lr"):
        Muon([torch.nn.Parameter(torch.zeros(3, 3))], lr=0.0)

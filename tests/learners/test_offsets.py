"""Distances do not depend on where zero lies: an offset costs only the rounding of the inputs."""

import pytest
import torch

from quickstudy.core import Examples, generator
from quickstudy.learners import NearestNeighbour
from quickstudy.learners.classes import moved_to_centre, squared_distance
from quickstudy.learners.heads import LogisticHead, NeighbourHead, PrototypeHead, RidgeHead
from quickstudy.learners.heads.kernels import gaussian_kernel, gaussian_kernel_less_one

INVARIANT = {
    "prototypes": PrototypeHead,
    "shrunk": lambda: PrototypeHead(shrinkage=1.0),
    "neighbours": NeighbourHead,
    "one neighbour": lambda: NeighbourHead(neighbours=1),
    "ridge": RidgeHead,
    "ridge, kernel": lambda: RidgeHead(kernel_width=30.0),
    "logistic, kernel": lambda: LogisticHead(kernel_width=30.0, tolerance=1e-6),
    "floor": NearestNeighbour,
}


def task(dtype=torch.float32, features=16):
    """Two tasks of three classes, the last absent in the second, and padding; on a grid of 1/64, so
    that offsets of a power of two are exact."""
    g = generator(0)
    y = torch.arange(3).repeat(6).expand(2, -1).clone()
    y[1] = y[1] % 2
    mask = torch.ones(2, 18, dtype=torch.bool)
    mask[:, 15:] = False
    means = 2 * torch.randn(3, features, generator=g)
    x = means[y] + torch.randn(2, 18, features, generator=g)
    q = means[torch.arange(12) % 3] + torch.randn(2, 12, features, generator=g)
    x, q = ((64 * v).round() / 64 for v in (x, q))
    return Examples(x.to(dtype), y, mask), q.to(dtype)


def logits(head, support, q):
    return head.predict(head.adapt(support, n_way=3), q)


@pytest.mark.parametrize("offset", [2.0**10, 2.0**13, -(2.0**14)])
@pytest.mark.parametrize("name", INVARIANT)
def test_an_exact_offset_changes_nothing(name, offset):
    head, (support, q) = INVARIANT[name](), task()
    plain = logits(head, support, q)
    assert not plain.isnan().any()
    moved = logits(head, Examples(support.x + offset, support.y, support.mask), q + offset)
    # sums of a few numbers near the offset round by its last bit
    last_bit = abs(offset) * torch.finfo(torch.float32).eps
    finite = plain.isfinite()
    assert torch.equal(finite, moved.isfinite())
    spread = float(plain[finite].std())
    gap = (moved - plain)[finite].abs().max()
    assert gap < 40 * last_bit * max(1.0, spread), (gap, last_bit)


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1e6, 1e15])
def test_the_unit_of_the_inputs_changes_the_unit_of_the_distances_alone(scale):
    support, q = task(torch.float64)
    exact = (q[:, :, None] - support.x[:, None]).square().sum(3)
    found = squared_distance(q.float() * scale, support.x.float() * scale)
    torch.testing.assert_close(found.double() / scale**2, exact, rtol=1e-4, atol=1e-4)


def test_distances_and_their_gradients_are_those_of_the_definition():
    support, q = task(torch.float64)
    a, b = (v.clone().add_(5.0).requires_grad_() for v in (q, support.x))
    weights = torch.randn(2, 12, 18, generator=generator(3), dtype=torch.float64)
    direct = (a[:, :, None] - b[:, None]).square().sum(3)
    ours = squared_distance(a, b)
    torch.testing.assert_close(ours, direct)
    for got, wanted in zip(
        torch.autograd.grad((weights * ours).sum(), (a, b)),
        torch.autograd.grad((weights * direct).sum(), (a, b)),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)
    assert torch.autograd.gradgradcheck(squared_distance, (a[:1, :2, :2], b[:1, :3, :2]))


def test_gradients_keep_their_digits_far_from_zero():
    support, q = task()
    offset = 2.0**13
    found = []
    for by in (0.0, offset):
        x = (support.x + by).requires_grad_()
        out = logits(PrototypeHead(temperature=50.0), Examples(x, support.y, support.mask), q + by)
        loss = torch.nn.functional.cross_entropy(out[0], torch.arange(12) % 3)
        found.append(torch.autograd.grad(loss, x)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-5)
    assert (found[0][0].abs().sum(1) > 0)[:15].all()


def test_rows_that_do_not_count_do_not_move_the_centre():
    support, q = task(torch.float64)
    valid = support.mask & (support.y != 1)
    away = support.x.masked_fill(~valid[..., None], 1e12)
    a, b = moved_to_centre(q, away, valid)
    centre = torch.stack([support.x[t][valid[t]].mean(0) for t in range(2)])[:, None]
    torch.testing.assert_close(a, q - centre)
    torch.testing.assert_close(b[valid], (support.x - centre)[valid])
    assert (b[~valid] == 0).all()
    found = squared_distance(q, away, valid)
    exact = (q[:, :, None] - support.x[:, None]).square().sum(3)
    keep = valid[:, None].expand_as(found)
    torch.testing.assert_close(found[keep], exact[keep])


def test_kernels_of_close_points_keep_their_digits():
    support, q = task()
    a, b = 1e-3 * q, 1e-3 * support.x
    exact = torch.expm1(-(a.double()[:, :, None] - b.double()[:, None]).square().sum(3) / (2 * 0.7))
    less_one = gaussian_kernel_less_one(a, b, 0.7)
    torch.testing.assert_close(less_one.double(), exact, rtol=2e-4, atol=0)
    torch.testing.assert_close(gaussian_kernel(a, b, 0.7), less_one + 1)


@pytest.mark.parametrize("kernel_width", [None, 0.7])
def test_ridge_on_nearly_equal_examples_is_that_of_float64(kernel_width):
    """As behind a centred head, where all examples of a task may point the same way."""
    support, q = task()
    away = torch.nn.functional.normalize(torch.ones(16), dim=0)
    x, q = (torch.nn.functional.normalize(0.02 * v + away, dim=2) for v in (support.x, q))
    head = RidgeHead(penalty=0.3, kernel_width=kernel_width)
    support = Examples(x, support.y, support.mask)
    ours = logits(head, support, q)
    wide = Examples(support.x.double(), support.y, support.mask)
    true = logits(head.double(), wide, q.double())
    torch.testing.assert_close(ours.double(), true, rtol=0, atol=2e-3)

"""The inner loop: exact derivatives, by the closed form, by unrolling and by differences."""

from __future__ import annotations

import weakref
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from quickstudy.core import ConfigError, generator
from quickstudy.learners.gradient import descend

T, S, Q, D = 3, 7, 5, 4


def normal(*shape: int, stream: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(0, stream), dtype=torch.float64)


def linear(params, context, step):
    x, y = context
    return ((x @ params["w"][..., None])[..., 0] - y).square().mean(1)


@pytest.mark.parametrize(("memory", "steps"), list(product(["flat", "unrolled"], [1, 3, 8])))
def test_linear_regression_has_the_closed_form(memory, steps):
    # J = (I - a (2/n) X'X)^k, meta-gradient = J' g_query
    x, y = normal(T, S, D, stream=1), normal(T, S, stream=2)
    g = normal(T, D, stream=3)
    w = normal(D, stream=4).requires_grad_()
    rate = torch.full((1, 1), 0.05, dtype=torch.float64)
    (after,) = descend(
        linear, {"w": w.expand(T, D)}, {"w": rate}, steps=steps, context=(x, y), memory=memory
    )
    (got,) = torch.autograd.grad((after["w"] * g).sum(), w)
    step = torch.eye(D, dtype=torch.float64) - 0.05 * 2 / S * x.transpose(1, 2) @ x
    jacobian = torch.linalg.matrix_power(step, steps)
    expected = (jacobian.transpose(1, 2) @ g[..., None])[..., 0].sum(0)
    assert torch.allclose(got, expected, rtol=0, atol=1e-10)


def network(params, context, step):
    """A small tanh network, with another loss at every step."""
    x, y = context
    hidden = torch.tanh(torch.baddbmm(params["b1"][:, None], x, params["w1"]))
    logits = torch.baddbmm(params["b2"][:, None], hidden, params["w2"])  # [T, S, 3]
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return loss.view_as(y).mean(1) * (1 + 0.1 * step)


def setting(steps, per_step):
    shapes = {"w1": (D, 6), "b1": (6,), "w2": (6, 3), "b2": (3,), "unused": (2,)}
    params = {n: 0.5 * normal(*s, stream=10 + i) for i, (n, s) in enumerate(shapes.items())}
    k = steps if per_step else 1
    rates = {n: 0.3 + 0.1 * normal(k, *s, stream=20 + i) for i, (n, s) in enumerate(shapes.items())}
    rates["b2"] = torch.full((k, 1), 0.2, dtype=torch.float64)  # one for the whole tensor
    x = normal(T, S, D, stream=30)
    y = torch.randint(3, (T, S), generator=generator(0, 31))
    for tensor in (*params.values(), *rates.values(), x):
        tensor.requires_grad_()
    return params, rates, x, y


def adapted(params, rates, x, y, **options):
    start = {n: v.expand(T, *v.shape) for n, v in params.items()}
    return descend(network, start, rates, context=(x, y), **options)


def meta_gradient(memory, steps, *, order="second", per_step=True, every_step=False):
    params, rates, x, y = setting(steps, per_step)
    trajectory = adapted(
        params, rates, x, y, steps=steps, order=order, memory=memory, every_step=every_step
    )
    query = normal(T, Q, D, stream=40), torch.randint(3, (T, Q), generator=generator(0, 41))
    loss = sum(network(p, query, 0).sum() for p in trajectory)
    wanted = [*params.values(), *rates.values(), x]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return loss.detach(), [
        torch.zeros_like(v) if g is None else g for v, g in zip(wanted, found, strict=True)
    ]


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("every_step", [True, False])
def test_flat_is_unrolled(order, per_step, every_step):
    options = {"order": order, "per_step": per_step, "every_step": every_step}
    loss, flat = meta_gradient("flat", 5, **options)
    same, unrolled = meta_gradient("unrolled", 5, **options)
    assert torch.equal(loss, same)
    for a, b in zip(flat, unrolled, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)
    # parameters, rates and support: everything that can be learned has a gradient
    if order == "second":
        used = [g for i, g in enumerate(flat) if i not in (4, 9)]  # "unused" and its rate
        assert all(float(g.abs().max()) > 1e-6 for g in used)


def test_the_gradient_is_the_central_difference():
    params, rates, x, y = setting(4, True)
    leaves = [*params.values(), *rates.values(), x]

    def loss():
        (after,) = adapted(params, rates, x, y, steps=4)
        return network(after, (normal(T, Q, D, stream=40), y[:, :Q]), 0).sum()

    for i, (leaf, gradient) in enumerate(
        zip(leaves, torch.autograd.grad(loss(), leaves, allow_unused=True), strict=True)
    ):
        direction = normal(*leaf.shape, stream=50 + i)
        exact = 0.0 if gradient is None else float((gradient * direction).sum())
        for step in (1e-4, 2e-5):
            with torch.no_grad():
                before = leaf.clone()
                leaf.copy_(before + step * direction)
                high = loss()
                leaf.copy_(before - step * direction)
                low = loss()
                leaf.copy_(before)
            assert float(high - low) / (2 * step) == pytest.approx(exact, rel=1e-5, abs=1e-7)


def test_first_order_is_another_gradient_where_the_loss_bends():
    _, second = meta_gradient("flat", 5)
    _, first = meta_gradient("flat", 5, order="first")
    gap = (second[0] - first[0]).norm() / second[0].norm()
    assert float(gap) > 0.05


def test_tasks_do_not_see_each_other():
    params, rates, x, y = setting(3, True)
    start = {n: v.expand(T, *v.shape) for n, v in params.items()}
    (together,) = descend(network, start, rates, steps=3, context=(x, y))
    for t in range(T):
        one = {n: v[t : t + 1] for n, v in start.items()}
        (alone,) = descend(network, one, rates, steps=3, context=(x[t : t + 1], y[t : t + 1]))
        for name, value in alone.items():
            assert torch.allclose(value, together[name][t : t + 1], rtol=0, atol=1e-12)


def saved_bytes(memory, steps):
    """Return how many bytes the graph keeps for the backward pass."""
    kept = []

    def pack(tensor):
        held = tensor.detach()
        kept.append(weakref.ref(held))
        return held

    params, rates, x, y = setting(1, False)
    x = x.detach().repeat(1, 200, 1)
    y = y.repeat(1, 200)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = adapted(params, rates, x, y, steps=steps, memory=memory)
    alive = [tensor for ref in kept if (tensor := ref()) is not None]
    assert result[0]["w1"].requires_grad
    storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in alive}
    return sum(storages.values())


def test_memory_is_flat_in_the_number_of_steps():
    assert saved_bytes("flat", 20) < 1.2 * saved_bytes("flat", 1)
    assert saved_bytes("unrolled", 20) > 5 * saved_bytes("unrolled", 1)


@pytest.mark.parametrize("memory", ["flat", "unrolled"])
def test_without_a_graph_nothing_is_kept(memory):
    params, rates, x, y = setting(2, True)
    (expected,) = adapted(params, rates, x, y, steps=2, memory=memory)
    with torch.no_grad():
        (after,) = adapted(params, rates, x, y, steps=2, memory=memory)
    assert all(torch.equal(v, expected[n]) for n, v in after.items())
    assert all(v.grad_fn is None and not v.requires_grad for v in after.values())


@pytest.mark.parametrize("memory", ["flat", "unrolled"])
def test_what_the_caller_gave_is_left_alone(memory):
    start = {"w": normal(T, D, stream=60)}
    context = (normal(T, S, D, stream=1), normal(T, S, stream=2))
    descend(linear, start, {"w": torch.ones(1, 1)}, steps=2, context=context, memory=memory)
    assert not any(v.requires_grad for v in (start["w"], *context))


def test_wrong_arguments_are_named():
    start = {"w": torch.zeros(T, D)}
    with pytest.raises(ConfigError, match="steps must be at least 0"):
        descend(linear, start, {"w": torch.ones(1)}, steps=-1)
    with pytest.raises(ConfigError, match=r"\['b', 'w'\] have no counterpart"):
        descend(linear, start, {"b": torch.ones(1)}, steps=1)
    with pytest.raises(ConfigError, match="must be 1 or the number of steps, 3"):
        descend(linear, start, {"w": torch.ones(2)}, steps=3)
    assert descend(linear, start, {"w": torch.ones(1)}, steps=0) == [start]

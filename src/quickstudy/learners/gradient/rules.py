"""Replacements of PyTorch functions while a module runs for many tasks.

Convolution, pooling and batch norm are replaced by those of
:mod:`~quickstudy.learners.gradient.operations`, lookups by those of
:mod:`~quickstudy.learners.gradient.tokens`, attention by its plain formula. Functions that draw
random numbers are refused, and so is what changes a parameter or an input in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import _add_batch_dim, _unwrap_batched
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch.overrides import TorchFunctionMode

from quickstudy.core import ConfigError
from quickstudy.learners.gradient.operations import (
    Geometry,
    task_batch_norm,
    task_conv2d,
    task_max_pool2d,
)
from quickstudy.learners.gradient.tokens import embedding, embedding_bag
from quickstudy.nets.norm import under_vmap

__all__ = ["DRAWS", "Rules"]

DRAWS = "draws random numbers, and an inner loop must be able to repeat a step exactly."


def _every_task(call: Callable[..., Any], *tensors: Tensor | None, **options: Any) -> Any:
    """Call an operation on many tasks from code that runs for one task.

    Args:
        call: takes tensors with the task axis in front.
        *tensors: tensors of one task; under ``vmap`` they stand for those of all tasks.
        **options: handed to the call.

    Returns:
        The result for one task; under ``vmap`` it stands for those of all tasks.
    """
    if not any(isinstance(t, Tensor) and under_vmap(t) for t in tensors):
        found = call(*(None if t is None else t[None] for t in tensors), **options)
        return tuple(v[0] for v in found) if isinstance(found, tuple) else found[0]
    # what torch.autograd.Function does with a vmap rule, without its bookkeeping, which took a
    # third of the time of a small network: unwrap the tensors of all tasks, call, wrap the results
    interpreter = retrieve_current_functorch_interpreter()
    level = interpreter.level()
    size: int = interpreter.batch_size()  # type: ignore[attr-defined]

    def unwrap(value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        plain, dim = _unwrap_batched(value, level)
        return plain.expand(size, *plain.shape) if dim is None else plain.movedim(dim, 0)

    plain = [unwrap(t) for t in tensors]
    with interpreter.lower():
        found = call(*plain, **options)
    if isinstance(found, tuple):
        return tuple(_add_batch_dim(v, 0, level) for v in found)
    return _add_batch_dim(found, 0, level)


class Rules(TorchFunctionMode):
    """Replaces functions while a module runs for one task.

    Args:
        mask: bool ``[N]``, ``False`` = padding; ``None`` = no padding.
        given: mean and scale to normalise with, for each batch norm in the order of the calls;
            ``None`` = each batch norm uses the statistics of its input.
        keep: collect the statistics that were used in ``found``.
        protected: tensors that nothing may change in place.

    Raises:
        ConfigError: when a function is called that cannot be right in an inner loop.
    """

    def __init__(
        self,
        mask: Tensor | None,
        given: list[Tensor] | None,
        keep: bool,
        protected: Iterable[Tensor] = (),
    ) -> None:
        super().__init__()
        self.mask, self.keep = mask, keep
        self.given = None if given is None else iter(given)
        self.found: list[Tensor] = []
        self.normalises = False
        """Whether batch norm was called."""
        self._protected = protected
        self._storages: set[int] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        rule = _REPLACEMENTS.get(func)
        if rule is not None:
            return rule(self, func, *args, **(kwargs or {}))
        if _changes_in_place(func) or (kwargs and ("out" in kwargs or kwargs.get("inplace"))):
            self._refuse_protected(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _refuse_protected(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Refuse to change a parameter or an input of the module, which belong to all calls."""
        changed = kwargs.get("out", args[0] if args else None)
        if not isinstance(changed, Tensor):
            return
        if self._storages is None:
            self._storages = {_storage(t) for t in self._protected} - {0}
        if _storage(changed) in self._storages:
            raise ConfigError(
                f"the network changes one of its parameters or its input in place ({func.__name__})"
                ", so learning a task would change the learner or the data. Use the operation that "
                "returns a new tensor."
            )


@cache
def _changes_in_place(func: Callable[..., Any]) -> bool:
    """Return whether a function changes its first argument, by PyTorch's rule for names."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in _NOT_IN_PLACE)
    return name.endswith("_")


_NOT_IN_PLACE = ("__int__", "__index__", "__invert__")


def _storage(value: Tensor) -> int:
    """Return the address of a tensor's numbers, under all of ``vmap``'s wrappers."""
    while torch._C._functorch.is_functorch_wrapped_tensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value.untyped_storage().data_ptr()


def _conv2d(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    # filters or images that all tasks share need no grouped convolution
    if isinstance(padding, str) or not under_vmap(weight) or not under_vmap(input):
        return func(input, weight, bias, stride, padding, dilation, groups)
    geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
    out: Tensor = _every_task(task_conv2d, input, weight, bias, geometry=geometry)
    return out


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = tuple(int(v) for v in value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _max_pool2d(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if return_indices or input.ndim != 4 or not under_vmap(input):
        return func(input, kernel_size, stride, padding, dilation, ceil_mode)
    # between two convolutions of many tasks: their layout is kept, so nothing is copied
    out: Tensor = _every_task(
        task_max_pool2d,
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    return out


def _batch_norm(
    rules: Rules,
    func: Callable[..., Tensor],  # noqa: ARG001
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
    cudnn_enabled: bool = True,  # noqa: ARG001
) -> Tensor:
    rules.normalises = True
    if running_mean is not None or running_var is not None or not training:
        raise ConfigError(
            "batch norm with running statistics cannot be right in an inner loop: they belong to "
            "all tasks. Build it with track_running_stats=False."
        )
    if rules.given is not None:
        mean, scale = next(rules.given, None), next(rules.given, None)
        if mean is None or scale is None:
            raise ConfigError(
                "batch norm is called for a query and was not for the support: a query cannot be "
                "judged alone. Use nn.BatchNorm2d(track_running_stats=False) as a layer, on every "
                "path, or query_statistics='query'."
            )
        out: Tensor = _every_task(_normalise_by_given, input, weight, bias, mean, scale, eps=eps)
        return out
    if not rules.keep:
        out = _every_task(_normalise_by_own, input, weight, bias, rules.mask, eps=eps)
        return out
    out, mean, scale = _every_task(_normalise_and_keep, input, weight, bias, rules.mask, eps=eps)
    rules.found += [mean, scale]
    return out


def _normalise_by_own(
    x: Tensor, w: Tensor | None, b: Tensor | None, mask: Tensor | None, *, eps: float
) -> Tensor:
    return task_batch_norm(x, w, b, mask=mask, eps=eps)[0]


def _normalise_by_given(
    x: Tensor, w: Tensor | None, b: Tensor | None, mean: Tensor, scale: Tensor, *, eps: float
) -> Tensor:
    return task_batch_norm(x, w, b, statistics=(mean, scale), eps=eps)[0]


def _normalise_and_keep(
    x: Tensor, w: Tensor | None, b: Tensor | None, mask: Tensor | None, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    y, found = task_batch_norm(x, w, b, mask=mask, eps=eps, keep=True)
    assert found is not None
    return y, *found


def _group_norm(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,  # noqa: ARG001
) -> Tensor:
    if not under_vmap(input):
        return func(input, num_groups, weight, bias, eps)
    grouped = input.unflatten(1, (num_groups, -1)).flatten(2)  # [B, C, ...] -> [B, G, ...]
    var, mean = torch.var_mean(grouped, 2, correction=0, keepdim=True)
    out: Tensor = ((grouped - mean) * torch.rsqrt(var + eps)).view(input.shape)
    across = (-1, *(1,) * (input.ndim - 2))
    out = out if weight is None else out * weight.view(across)
    return out if bias is None else out + bias.view(across)


def _adaptive_mean(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],
    input: Tensor,
    output_size: Any,
) -> Tensor:
    # the usual last layer of a network: as a plain mean its second derivatives take half the time
    if output_size in (1, (1, 1), [1, 1]):
        return input.mean((-2, -1), keepdim=True)
    return func(input, output_size)


def _attention(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if dropout_p > 0 or enable_gqa:
        raise ConfigError(
            "attention with dropout or grouped queries is not supported in an inner loop. Set "
            "dropout=0, and give as many key heads as query heads."
        )
    # softmax(q k' / sqrt(d)) v: the fused kernels have no second derivative
    scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if is_causal:
        length, width = scores.shape[-2:]
        future = torch.ones(length, width, dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    if attn_mask is not None:
        blocked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if blocked else scores + attn_mask
    return scores.softmax(-1) @ value


def _multi_head(rules: Rules, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001
    wanted = kwargs.pop("need_weights", True)
    # PyTorch computes the plain formula if it must return the weights; otherwise it calls a fused
    # kernel, which has no second derivative
    out, weights = func(*args, need_weights=True, **kwargs)
    return out, weights if wanted else None


def _dropout(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001
) -> Tensor:
    if training and p > 0:
        raise ConfigError(f"{func.__name__} {DRAWS} Set its probability to 0.")
    return input


def _rrelu(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,  # noqa: ARG001
) -> Tensor:
    if training:
        raise ConfigError(f"{func.__name__} {DRAWS} Take F.leaky_relu.")
    return func(input, lower, upper)


def _plain_embedding(
    rules: Rules,
    func: Callable[..., Tensor],
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    padding = None if padding_idx < 0 else padding_idx
    return embedding(
        rules, func, indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse
    )


def _hardsigmoid(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],  # noqa: ARG001
    input: Tensor,
    inplace: bool = False,  # noqa: ARG001
) -> Tensor:
    # PyTorch's own has no second derivative
    return F.relu6(input + 3) / 6


def _weight_norm(
    rules: Rules,  # noqa: ARG001
    func: Callable[..., Tensor],  # noqa: ARG001
    v: Tensor,
    g: Tensor,
    dim: int = 0,
) -> Tensor:
    # PyTorch's second derivative of this function takes the norms for constants; -1 = no axis kept
    axes = [axis for axis in range(v.ndim) if axis != dim]
    norm: Tensor = torch.linalg.vector_norm(v, dim=axes, keepdim=True)
    return v * (g / norm)


def _recurrent(rules: Rules, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001
    # cuDNN's recurrent layers have no second derivative
    with torch.backends.cudnn.flags(enabled=False):
        return func(*args, **kwargs)


def _draw(rules: Rules, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001
    raise ConfigError(f"{func.__name__} {DRAWS} Draw them once, into a buffer of the network.")


# fmt: off
_DRAWING_NAMES = (
    "bernoulli", "binomial", "multinomial", "normal", "poisson", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "randperm", "bernoulli_", "cauchy_", "exponential_",
    "geometric_", "log_normal_", "normal_", "random_", "uniform_",
)
# fmt: on

_REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.conv2d: _conv2d,
    torch.max_pool2d: _max_pool2d,
    torch.batch_norm: _batch_norm,
    F.batch_norm: _batch_norm,
    F.embedding: embedding,
    torch.embedding: _plain_embedding,
    F.embedding_bag: embedding_bag,
    F.hardsigmoid: _hardsigmoid,
    torch._weight_norm: _weight_norm,
    **dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), _recurrent),
    F.group_norm: _group_norm,
    torch.group_norm: _group_norm,
    F.adaptive_avg_pool2d: _adaptive_mean,
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _multi_head,
    **dict.fromkeys(
        (
            torch.dropout,
            F.dropout,
            F.dropout1d,
            F.dropout2d,
            F.dropout3d,
            F.alpha_dropout,
            F.feature_alpha_dropout,
        ),
        _dropout,
    ),
    **dict.fromkeys((F.rrelu, torch.rrelu), _rrelu),
    **dict.fromkeys(
        (
            *(
                getattr(o, n)
                for n in _DRAWING_NAMES
                for o in (torch, torch.Tensor)
                if hasattr(o, n)
            ),
            # these draw inside PyTorch's own code, where no rule applies
            F.gumbel_softmax,
            F.fractional_max_pool2d,
            F.fractional_max_pool2d_with_indices,
            F.fractional_max_pool3d,
            F.fractional_max_pool3d_with_indices,
        ),
        _draw,
    ),
}

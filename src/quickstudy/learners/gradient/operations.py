"""Convolution and batch norm of many tasks at once, each task with weights of its own.

Tasks stand beside each other in the channels: ``[B, T*C, H, W]``. A convolution of all tasks is
then a grouped convolution, and batch norm is plain batch norm: each a single native kernel.
PyTorch's second derivatives of both are slow: those of a grouped convolution loop over the groups,
and those of batch norm make about twenty passes over the activations. Here both are written out.

Letters: ``T`` tasks, ``B`` examples of a task, ``C`` channels, ``O`` output channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

# cuDNN refuses an eps of zero; this one and 1 minus it are powers of two or sums of few, so that
# they add up to exactly 1
_EPS = 2.0**-10

__all__ = ["Geometry", "Statistics", "task_batch_norm", "task_conv2d", "task_max_pool2d"]

Statistics = tuple[Tensor, Tensor]
"""Mean and ``scale = 1 / sqrt(variance + eps)`` of each task's channels; ``[T, C]`` each."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The settings of a convolution: stride, padding, dilation, and groups within a task."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def _fold(x: Tensor) -> Tensor:
    """Put the tasks into the channels: ``[T, B, C, ...] -> [B, T*C, ...]``."""
    folded = x.movedim(0, 1).flatten(1, 2)
    # channels last is the faster layout on a CPU; cuDNN's grouped kernels need the other one
    wide = folded.ndim == 4 and folded.device.type == "cpu"
    layout = torch.channels_last if wide else torch.contiguous_format
    laid: Tensor = folded.contiguous(memory_format=layout)
    return laid


def _unfold(x: Tensor, tasks: int) -> Tensor:
    """Undo :func:`_fold`, as a view: ``[B, T*C, ...] -> [T, B, C, ...]``."""
    unfolded: Tensor = x.unflatten(1, (tasks, -1))
    return unfolded.movedim(1, 0)


# ------------------------------------------------------------------------------ convolution


def task_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Return each task's images convolved with its own filters.

    Args:
        x: images ``[T, B, C, H, W]``.
        weight: filters ``[T, O, C / groups, h, w]``.
        bias: ``[T, O]`` or ``None``.
        geometry: stride, padding, dilation, groups within a task.

    Returns:
        ``[T, B, O, H', W']``, differentiable any number of times.
    """
    tasks = len(weight)
    filters = weight.flatten(0, 1)  # [T, O, ...] -> [T*O, ...]
    if filters.device.type == "cpu":
        filters = filters.contiguous(memory_format=torch.channels_last)
    # one group or more for each task: no task's filters see another task's channels
    whole = Geometry(geometry.stride, geometry.padding, geometry.dilation, geometry.groups * tasks)
    y: Tensor = _Convolve.apply(_fold(x), filters, whole)  # type: ignore[no-untyped-call]
    if bias is not None:
        y = y + bias.flatten()[:, None, None]
    return _unfold(y, tasks)


# <g, convolve(x, w)> is linear in each of g, x and w. The three classes below are its derivatives
# by one of them, as functions of the other two; so the derivatives of each class are the other two
# classes, to any order. Only those that are needed are computed.


class _Convolve(Function):
    """The derivative by ``g``, which is the convolution itself: ``(x, w) -> y``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = g = geometry
        return F.conv2d(x, w, None, g.stride, g.padding, g.dilation, g.groups)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        by_x, by_w, _ = ctx.needs_input_grad
        return (
            _ByInput.apply(g, w, x, ctx.geometry) if by_x else None,  # type: ignore[no-untyped-call]
            _ByWeight.apply(g, x, w, ctx.geometry) if by_w else None,  # type: ignore[no-untyped-call]
            None,
        )


class _ByInput(Function):
    """The derivative by the images: ``(g, w) -> dx``; ``x`` only gives the shape."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.geometry = geometry
        return _convolution_backward(g, x, w, geometry, 0)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, w = ctx.saved_tensors
        by_g, by_w, *_ = ctx.needs_input_grad
        return (
            _Convolve.apply(v, w, ctx.geometry) if by_g else None,  # type: ignore[no-untyped-call]
            _ByWeight.apply(g, v, w, ctx.geometry) if by_w else None,  # type: ignore[no-untyped-call]
            None,
            None,
        )


class _ByWeight(Function):
    """The derivative by the filters: ``(g, x) -> dw``; ``w`` only gives the shape."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.geometry = geometry
        return _convolution_backward(g, x, w, geometry, 1)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, x = ctx.saved_tensors
        by_g, by_x, *_ = ctx.needs_input_grad
        return (
            _Convolve.apply(x, v, ctx.geometry) if by_g else None,  # type: ignore[no-untyped-call]
            _ByInput.apply(g, v, x, ctx.geometry) if by_x else None,  # type: ignore[no-untyped-call]
            None,
            None,
        )


def _convolution_backward(
    g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, which: int
) -> Tensor:
    """Return the derivative of PyTorch's own kernel, by the images (0) or by the filters (1)."""
    wanted = [which == 0, which == 1, False]
    found = torch.ops.aten.convolution_backward(
        g,
        x,
        w,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        False,
        (0, 0),
        geometry.groups,
        wanted,
    )
    return torch.as_tensor(found[which])


def task_max_pool2d(x: Tensor, **options: Any) -> Tensor:
    """Return max-pooled images ``[T, B, C, H, W]``, in the layout of :func:`task_conv2d`."""
    return _unfold(F.max_pool2d(_fold(x), **options), len(x))


# ------------------------------------------------------------------------------- batch norm


def task_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    mask: Tensor | None = None,
    statistics: Statistics | None = None,
    keep: bool = False,
) -> tuple[Tensor, Statistics | None]:
    """Normalise each task's channels, with the task's own statistics or with given ones.

    Args:
        x: ``[T, B, C, ...]``.
        weight: ``[T, C]``, or ``None`` for ones.
        bias: ``[T, C]``, or ``None`` for zeros.
        eps: added to the variance.
        mask: bool ``[T, B]``; ``False`` = padding, which does not enter the statistics.
        statistics: normalise with these instead of those of ``x``.
        keep: return the statistics too; they are differentiable.

    Returns:
        The normalised batch and, with ``keep``, the statistics.
    """
    tasks, channels = x.shape[0], x.shape[2]
    if statistics is None and mask is None:
        # the usual case: statistics and output in one native kernel
        w = x.new_ones(tasks * channels) if weight is None else weight.flatten()
        b = x.new_zeros(tasks * channels) if bias is None else bias.flatten()
        y, mean, scale = _BatchNorm.apply(_fold(x), w, b, eps)  # type: ignore[no-untyped-call]
        own = (mean.view(tasks, channels), scale.view(tasks, channels))
        return _unfold(y, tasks), own if keep else None
    mean, scale = statistics or _masked_statistics(x, mask, eps)
    factor = scale if weight is None else scale * weight
    shift = -mean * factor if bias is None else bias - mean * factor
    # x * factor + shift, written as batch norm with mean 0 and variance 1: the native kernel sums
    # the derivatives by factor and shift in the same pass as that by x
    zero, rest = x.new_zeros(tasks * channels), x.new_full((tasks * channels,), 1 - _EPS)
    y = F.batch_norm(_fold(x), zero, rest, factor.flatten(), shift.flatten(), False, 0.0, _EPS)
    return _unfold(y, tasks), (mean, scale) if keep else None


def _masked_statistics(x: Tensor, mask: Tensor | None, eps: float) -> Statistics:
    """Return the statistics of the examples that are not padding, ``[T, B, C, ...] -> [T, C]``."""
    assert mask is not None
    rest = tuple(range(3, x.ndim))
    weight = mask.to(x.dtype).view(*mask.shape, *(1,) * (x.ndim - 2))  # [T, B, 1, ...]
    size = mask.sum(1).clamp(min=1)[:, None] * x[0, 0, 0].numel()  # [T, 1]
    # padding may hold infinity, which times 0 is NaN: it is replaced, not multiplied away
    kept = x.masked_fill(weight == 0, 0.0)
    mean = kept.sum((1, *rest)) / size
    centred = (kept - mean.view(len(x), 1, -1, *(1,) * len(rest))) * weight
    return mean, torch.rsqrt(centred.square().sum((1, *rest)) / size + eps)


class _BatchNorm(Function):
    """Batch norm over ``[B, C, ...]``: ``(x, w, b) -> (y, mean, scale)``, with
    ``scale = 1 / sqrt(var + eps)``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, scale = torch.native_batch_norm(x, w, b, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, w, mean, scale)
        ctx.eps = eps
        ctx.set_materialize_grads(False)  # mean and scale are rarely used: no zeros for them
        return y, mean, scale

    @staticmethod
    def backward(
        ctx: Any, g: Tensor | None, by_mean: Tensor | None, by_scale: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, w, mean, scale = ctx.saved_tensors
        dx: Tensor | None = None
        dw: Tensor | None = None
        db: Tensor | None = None
        if g is not None:
            dx, dw, db = _BatchNormBackward.apply(g, x, w, mean, scale, ctx.eps)  # type: ignore[no-untyped-call]
        if by_mean is not None or by_scale is not None:
            # dmean/dx = 1/n and dscale/dx = -scale^3 (x - mean) / n: together a linear function of
            # x in each channel, slope * x + level
            n = x.numel() // x.shape[1]
            slope = torch.zeros_like(mean) if by_scale is None else -by_scale * scale**3 / n
            level = -slope * mean if by_mean is None else by_mean / n - slope * mean
            more = torch.addcmul(_across(level, x), x, _across(slope, x))
            dx = more if dx is None else dx + more
        return dx, dw, db, None


class _BatchNormBackward(Function):
    """The derivative of batch norm, ``(g, x, w) -> (dx, dw, db)``, and its own derivative.

    With ``s = 1 / sqrt(var + eps)``, ``z = (x - mean) s`` and the symmetric linear map ``P(v) = v -
    mean(v) - z mean(v z)``: ``dx = w s P(g)``, ``dw = <g, z>``, ``db = sum(g)``, and the derivative
    of ``z`` in the direction ``v`` is ``s P(v)``. The gradients that arrive for ``dx``, ``dw`` and
    ``db`` are ``v``, ``vw`` and ``vb``. Then, for ``V = <v, dx> + <vw, dw> + <vb, db>``::

        dV/dg = w s P(v) + vw z + vb
        dV/dx = -(s/n) (<v, dx> z + <g, z> w s P(v) + <v, z> dx) + (vw / w) dx
        dV/dw = <v, dx> / w
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, mean: Tensor, scale: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # computed with weight 1: the formulas below divide by w, which may be 0
        unit, dw, db = _batch_norm_backward(g, x, mean, scale, eps)  # unit = s P(g)
        ctx.save_for_backward(x, w, mean, scale, unit, dw)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return unit * _across(w, x), dw, db

    @staticmethod
    def backward(
        ctx: Any, v: Tensor | None, vw: Tensor | None, vb: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, w, mean, s, unit, a = ctx.saved_tensors  # a = <g, z>
        n = x.numel() // x.shape[1]
        by_g: Tensor | None = None
        by_x: Tensor | None = None
        by_w: Tensor | None = None
        # dV/dx is collected as of_z z + of_unit unit + the rest, with one number for each channel,
        # so that the first two are added in a single pass at the end
        of_z, of_unit = torch.zeros_like(s), torch.zeros_like(s)
        if v is not None:
            s_pv, b, _ = _batch_norm_backward(v, x, mean, s, ctx.eps)  # s P(v), <v, z>
            zero, one = torch.zeros_like(mean), torch.ones_like(s)
            # <v, dx> / w = <v, unit>: the kernel's own reduction, one pass and nothing written
            by_w = _batch_norm_backward(v, unit, zero, one, ctx.eps, dx=False)[1]
            of_z = -s / n * by_w * w  # -(s/n) <v, dx> z
            of_unit = -s / n * b * w  # -(s/n) <v, z> dx, as dx = w unit
            by_x = s_pv * _across(-s / n * a * w, x)  # -(s/n) <g, z> w s P(v)
            by_g = s_pv.mul_(_across(w, x))  # w s P(v)
        if vw is not None:
            of_unit = of_unit + vw  # (vw / w) dx
            term = (x - _across(mean, x)) * _across(s * vw, x)  # vw z
            by_g = term if by_g is None else by_g.add_(term)
        if vb is not None:
            by_g = _across(vb, x).expand_as(x) if by_g is None else by_g.add_(_across(vb, x))
        # of_z z = of_z s x - of_z s mean, so that z is never written
        slope = of_z * s
        total = torch.addcmul(_across(-slope * mean, x), x, _across(slope, x))
        total = total.addcmul_(unit, _across(of_unit, x))
        by_x = total if by_x is None else total.add_(by_x)
        return by_g, by_x, by_w, None, None, None


def _batch_norm_backward(
    g: Tensor, x: Tensor, mean: Tensor, scale: Tensor, eps: float, *, dx: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of PyTorch's own kernel by input (unless ``dx`` is off), weight and
    bias, at weight 1."""
    # g in the layout of x: with two layouts the kernel takes a slow path
    g = g.contiguous(
        memory_format=torch.channels_last
        if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        else torch.contiguous_format
    )
    wanted = [dx, True, True]
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        # the kernels for a GPU need the weight, also where it is 1
        g,
        x,
        torch.ones_like(scale),
        None,
        None,
        mean,
        scale,
        True,
        eps,
        wanted,
    )
    return found


def _across(v: Tensor, x: Tensor) -> Tensor:
    """View numbers of the channels ``[C]`` so that they broadcast over ``x`` ``[B, C, ...]``."""
    return v.view(1, -1, *(1,) * (x.ndim - 2))

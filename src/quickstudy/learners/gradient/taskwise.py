"""Run any module for many tasks, each task with parameters of its own.

Two engines compute the same: ``"batched"`` runs all tasks as one programme (``torch.func.vmap``),
``"loop"`` runs them one after the other with native kernels. While either runs, a few PyTorch
functions are replaced, see :mod:`~quickstudy.learners.gradient.rules`. The replacements are fast,
handle padding and statistics, and have right second derivatives (under ``vmap`` those of PyTorch's
batch norm are wrong without a warning, as of torch 2.13).
"""

from __future__ import annotations

import copy
import threading
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from quickstudy.core import ConfigError, TaskState
from quickstudy.learners.gradient.rules import DRAWS, Rules
from quickstudy.nets.norm import BatchNorm

__all__ = ["Engine", "TaskModule", "check_module", "without_running_statistics"]

Engine = Literal["auto", "batched", "loop"]
Params = dict[str, Tensor]


class TaskModule:
    """A module that takes the parameters of ``T`` tasks and their inputs.

    The module itself is never changed: each call works on copies of its buffers.

    Args:
        module: maps a batch ``[N, ...]`` to ``[N, ...]``. It must not look at running statistics,
            draw random numbers or keep anything between calls.
        engine: ``"batched"``, ``"loop"``, or ``"auto"``: batched for two tasks or more, unless
            ``vmap`` refuses the module.

    Raises:
        ConfigError: if the module cannot be right in an inner loop; see :func:`check_module`.

    Example::

        run = TaskModule(nn.Linear(3, 2))
        params = {"weight": torch.rand(4, 2, 3)}  # of 4 tasks; they share the module's bias
        out, _ = run(params, torch.rand(4, 10, 3))  # [4, 10, 2]
    """

    def __init__(self, module: nn.Module, engine: Engine = "auto") -> None:
        if engine not in ("auto", "batched", "loop"):
            raise ConfigError(f"engine must be 'auto', 'batched' or 'loop'; got {engine!r}.")
        check_module(module)
        self.module = module
        self._parts = list(module.named_modules())
        # parameters are swapped in while the module runs: one call at a time
        self._lock = threading.RLock()
        self.engine: Engine = engine
        self.why_loop = ""
        """Why ``vmap`` refused the module, so that ``"auto"`` runs the loop; empty otherwise."""

    def __call__(
        self,
        params: Params,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        statistics: TaskState | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, TaskState]:
        """Return the outputs and, with ``keep``, the statistics that normalised them.

        Args:
            params: parameters of the tasks ``{name: [T, ...]}``; where a name is missing, all tasks
                use the module's own.
            x: inputs ``[T, N, ...]``.
            mask: bool ``[T, N]``; ``False`` = padding; ``None`` = no padding.
            statistics: normalise with these, which an earlier call returned; ``None`` = with those
                of ``x``.
            keep: return the statistics.

        Raises:
            ConfigError: if the module keeps state, draws random numbers, or cannot be batched
                although ``engine="batched"`` was asked for.
        """
        with self._lock:
            return self._run(params, x, mask, statistics, keep)

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskModule:
        other = TaskModule(copy.deepcopy(self.module, memo), self.engine)
        other.why_loop = self.why_loop
        return other

    def _run(
        self,
        params: Params,
        x: Tensor,
        mask: Tensor | None,
        statistics: TaskState | None,
        keep: bool,
    ) -> tuple[Tensor, TaskState]:
        call = _Call(self.module, self._parts, statistics is not None, keep)
        # in the order of the calls: a state that was read from a file has any order
        given = [(statistics or {})[_statistic(i)] for i in range(len(statistics or {}))]
        engine = "batched" if self.engine == "auto" and len(x) > 1 else self.engine
        if engine == "batched" and not self.why_loop:
            try:
                out, found = call.batched(params, x, mask, given)
            except (RuntimeError, ValueError) as error:
                # only vmap's own refusal is handled here: other errors are those of the module
                if not _is_refusal(error):
                    raise
                reason = str(error).splitlines()[0]
                if "random" in reason:
                    raise ConfigError(f"{type(self.module).__name__} {DRAWS}") from error
                if self.engine == "batched":
                    raise ConfigError(
                        f"{type(self.module).__name__} cannot run batched over tasks ({reason}). "
                        "Set engine='loop'."
                    ) from error
                self.why_loop = reason
            else:
                return out, _named(found)
        out, found = call.loop(params, x, mask, given)
        return out, _named(found)


def _named(found: list[Tensor]) -> TaskState:
    """Name the statistics in the order in which the layers were called."""
    return {_statistic(i): value for i, value in enumerate(found)}


def _statistic(i: int) -> str:
    """Return the name of the i-th statistic in the order of the calls."""
    return f"norm{i // 2}.{('mean', 'scale')[i % 2]}"


def _is_refusal(error: Exception) -> bool:
    """Return whether ``vmap`` refused the module; only the text of its error says so."""
    text = str(error).lower()
    return "vmap" in text or "batching rule" in text


class _Call:
    """One call of a module for ``T`` tasks, by either engine."""

    def __init__(
        self, module: nn.Module, parts: list[tuple[str, nn.Module]], given: bool, keep: bool
    ) -> None:
        self._module, self._parts, self._given, self._keep = module, parts, given, keep

    def batched(
        self, params: Params, x: Tensor, mask: Tensor | None, given: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        dims = (0, 0, None if mask is None else 0, 0)
        if not params:
            return torch.vmap(partial(self.single, {}), dims[1:])(x, mask, given)
        return torch.vmap(self.single, dims)(params, x, mask, given)

    def loop(
        self, params: Params, x: Tensor, mask: Tensor | None, given: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        found = [
            self.single(
                {n: v[t] for n, v in params.items()},
                x[t],
                None if mask is None else mask[t],
                [g[t] for g in given],
            )
            for t in range(len(x))
        ]
        outs, kept = zip(*found, strict=True)
        return torch.stack(outs), [torch.stack(v) for v in zip(*kept, strict=True)]

    def single(
        self, params: Params, x: Tensor, mask: Tensor | None, given: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Run one task; under ``vmap`` it stands for all of them.

        Raises:
            ConfigError: if the module returns no tensor, or changes a buffer or an attribute.
        """
        buffers = {n: b.clone() for n, b in self._module.named_buffers()}
        # PyTorch counts in-place changes of a tensor in its version
        versions = {n: b._version for n, b in buffers.items()}
        attributes = _attributes(self._parts)
        rules = Rules(mask, given if self._given else None, self._keep)
        with rules:
            out = torch.func.functional_call(self._module, {**params, **buffers}, (x,))
        if not isinstance(out, Tensor):
            raise ConfigError(
                f"{type(self._module).__name__} returns a {type(out).__name__}, and an inner loop "
                "needs one tensor. Wrap it in a module that returns the tensor wanted."
            )
        changed = [n for n, b in buffers.items() if b._version != versions[n]]
        now = _attributes(self._parts)
        changed += sorted(n for n, v in now.items() if attributes.get(n) is not v)
        if changed:
            raise ConfigError(
                f"{type(self._module).__name__} changes {', '.join(changed)} when it is called, so "
                "one task would influence the next. Return the value instead of keeping it."
            )
        return out, rules.found


def _attributes(parts: list[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Return the tensors that are plain attributes of a module or of its submodules."""
    return {
        f"{name}.{key}" if name else key: value
        for name, part in parts
        for key, value in vars(part).items()
        if isinstance(value, Tensor)
    }


# ----------------------------------------------------------------------------------- checks


def check_module(module: nn.Module) -> None:
    """Refuse a module that cannot be right in an inner loop.

    Raises:
        ConfigError: with the layer, the reason and the remedy.
    """
    for name, part in module.named_modules():
        what = f"{name or 'the network'} ({type(part).__name__})"
        if any(is_lazy(v) for v in (*part._parameters.values(), *part._buffers.values())):
            raise ConfigError(
                f"{what} does not know its shape yet, so there is no start to learn from. Call the "
                "network once on a batch of inputs first."
            )
        if isinstance(part, BatchNorm):
            raise ConfigError(
                f"{what} has running averages, which belong to all tasks and go wrong in an inner "
                "loop. Build the network with norm='support' (each task's own statistics) or "
                "norm='group'."
            )
        if getattr(part, "running_mean", None) is not None:
            raise ConfigError(
                f"{what} has running statistics, which belong to all tasks and go wrong in an "
                "inner loop. Build it with track_running_stats=False, or pass the network through "
                "quickstudy.learners.gradient.without_running_statistics()."
            )
        # dropout hides under three names: of the layer, of a recurrent network, of attention
        rate = getattr(part, "p", 0.0) if "Dropout" in type(part).__name__ else 0.0
        rate = rate or (getattr(part, "dropout", 0.0) if isinstance(part, nn.RNNBase) else 0.0)
        if isinstance(part, nn.MultiheadAttention):
            rate = part.dropout
        if isinstance(rate, (int, float)) and rate > 0:
            raise ConfigError(
                f"{what} draws random numbers with probability {rate}, and an inner loop must be "
                "able to repeat a step exactly. Set its dropout to 0."
            )


def without_running_statistics(module: nn.Module) -> nn.Module:
    """Make every batch norm of a module use the statistics of its batch, in place.

    The weights stay; running averages are dropped. In a gradient learner the batch is one task's
    support set, whose statistics normalise the queries too.

    Args:
        module: is changed.

    Returns:
        The module.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            part.track_running_stats = False
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                part._buffers[name] = None
    return module

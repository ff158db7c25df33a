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
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from quickstudy.core import ConfigError, TaskState
from quickstudy.core.arguments import checked
from quickstudy.learners.gradient.rules import DRAWS, Rules
from quickstudy.learners.gradient.swapping import RECURRENT, Parts, own_tensors, swapped
from quickstudy.nets.norm import BatchNorm
from quickstudy.nets.plain import refuse_hidden_layers

__all__ = ["Engine", "TaskModule", "check_module", "without_running_statistics"]

Engine = Literal["auto", "batched", "loop"]
Params = dict[str, Tensor]


@checked
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
        self.normalises = False
        """Whether a call has come upon batch norm, as a layer or as a function."""
        self.alone: bool | None = None
        """Whether an answer depends on its own example alone, given the statistics; ``None`` = not
        looked at."""
        # an activation may work in place; at the beginning of a network that is on the inputs
        self._spares_inputs = any(getattr(m, "inplace", False) for m in module.modules())

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
        other.why_loop, other.normalises = self.why_loop, self.normalises
        other.alone = self.alone
        return other

    def _run(
        self,
        params: Params,
        x: Tensor,
        mask: Tensor | None,
        statistics: TaskState | None,
        keep: bool,
    ) -> tuple[Tensor, TaskState]:
        call = _Call(self.module, self._parts, statistics is not None, keep, self._spares_inputs)
        watched = [*params.values(), *self.module.parameters(), x]
        versions = [v._version for v in watched]
        # in the order of the calls: a state that was read from a file has any order
        given = [(statistics or {})[_statistic(i)] for i in range(len(statistics or {}))]
        engine = "batched" if self.engine == "auto" and len(x) > 1 else self.engine
        found: tuple[Tensor, list[Tensor]] | None = None
        if engine == "batched" and not self.why_loop:
            try:
                with _no_slow_rules():
                    found = call.batched(params, x, mask, given)
            except (RuntimeError, ValueError) as error:
                # only vmap's own refusal is handled here: other errors are those of the module
                if not _is_refusal(error):
                    raise
                self._refused(error)
        if found is None:
            found = call.loop(params, x, mask, given)
        self.normalises |= call.normalises
        if versions != [v._version for v in watched]:
            raise ConfigError(
                f"{type(self.module).__name__} changes a parameter or its input in place when it "
                "is called, so learning a task has changed the learner or the data. Use operations "
                "that return a new tensor."
            )
        return found[0], _named(found[1])

    def _refused(self, error: Exception) -> None:
        """Remember why ``vmap`` refused the module.

        Raises:
            ConfigError: if the loop would not help, or is not wanted.
        """
        reason, name = str(error).splitlines()[0], type(self.module).__name__
        reason = reason.replace(_NO_RULE, "has no rule for vmap")
        if "random" in reason:
            raise ConfigError(f"{name} {DRAWS}") from error
        if self.engine == "batched":
            raise ConfigError(
                f"{name} cannot run batched over tasks ({reason}). Set engine='loop'."
            ) from error
        self.why_loop = reason


_NO_RULE = "hit the vmap fallback which is currently disabled"
_fallbacks, _fallbacks_off = threading.Lock(), [0]
_set_fallback: Any = torch._C._functorch._set_vmap_fallback_enabled  # type: ignore[attr-defined]


@contextmanager
def _no_slow_rules() -> Iterator[None]:
    """Let ``vmap`` refuse a function that it would run task by task anyway, with a warning: the
    loop over whole networks is faster."""
    with _fallbacks:
        _fallbacks_off[0] += 1
        _set_fallback(False)
    try:
        yield
    finally:
        with _fallbacks:
            _fallbacks_off[0] -= 1
            # the setting is the process's: the last thread to leave puts it back
            if not _fallbacks_off[0]:
                _set_fallback(True)


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
        self, module: nn.Module, parts: Parts, given: bool, keep: bool, spares_inputs: bool
    ) -> None:
        self._module, self._parts, self._given, self._keep = module, parts, given, keep
        self._parameters, self._buffers = own_tensors(parts), own_tensors(parts, buffers=True)
        self._spares_inputs = spares_inputs
        self.normalises = False

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
        x = x.clone() if self._spares_inputs else x
        buffers = {n: b.clone() for n, (b, _) in self._buffers.items()}
        # PyTorch counts in-place changes of a tensor in its version
        versions = {n: b._version for n, b in buffers.items()}
        attributes = _attributes(self._parts)
        protected = [*params.values(), *(p for p, _ in self._parameters.values())]
        if not self._spares_inputs:
            protected.append(x)
        rules = Rules(mask, given if self._given else None, self._keep, protected)
        own, others = self._parameters | self._buffers, {**params, **buffers}
        with swapped(self._parts, own, others) as replaced:
            with rules:
                out = self._module(x)
            changed = replaced()
            now = _attributes(self._parts)
        self.normalises |= rules.normalises
        if not isinstance(out, Tensor):
            raise ConfigError(
                f"{type(self._module).__name__} returns a {type(out).__name__}, and an inner loop "
                "needs one tensor. Wrap it in a module that returns the tensor wanted."
            )
        changed += [n for n, b in buffers.items() if b._version != versions[n]]
        changed += sorted(n for n, v in now.items() if attributes.get(n) is not v)
        if changed:
            raise ConfigError(
                f"{type(self._module).__name__} changes {', '.join(changed)} when it is called, so "
                "one task would influence the next. Return the value instead of keeping it."
            )
        return out, rules.found


def _attributes(parts: Parts) -> dict[str, Tensor]:
    """Return the tensors that are plain attributes of a module or of its submodules."""
    return {
        f"{name}.{key}" if name else key: value
        for name, part in parts
        for key, value in vars(part).items()
        if isinstance(value, Tensor)
    }


# ----------------------------------------------------------------------------------- checks


@checked
def check_module(module: nn.Module) -> None:
    """Refuse a module that cannot be right in an inner loop.

    Raises:
        ConfigError: with the layer, the reason and the remedy.
    """
    known = {id(parameter) for parameter in module.parameters()}
    for name, part in module.named_modules():
        what = f"{name or 'the network'} ({type(part).__name__})"
        if any(is_lazy(v) for v in (*part._parameters.values(), *part._buffers.values())):
            raise ConfigError(
                f"{what} does not know its shape yet, so there is no start to learn from. Call the "
                "network once on a batch of inputs first."
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise ConfigError(
                f"{what} is compiled by TorchScript, which keeps its parameters out of reach. Give "
                "the module that it was made of."
            )
        if isinstance(part, nn.CrossMapLRN2d):
            raise ConfigError(
                f"{what} has no second derivative. Take nn.LocalResponseNorm, the same function."
            )
        _check_lists(part, what)
        refuse_hidden_layers(part, what, known)
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


def _check_lists(part: nn.Module, what: str) -> None:
    """Refuse parameters in a plain list or dictionary, where those of a task cannot be put in."""
    for name, value in vars(part).items():
        if name == "_parameters" or (isinstance(part, nn.RNNBase) and name in RECURRENT):
            continue
        items = value.values() if isinstance(value, dict) else value
        if isinstance(value, list | tuple | dict) and any(
            isinstance(v, nn.Parameter) and v.requires_grad for v in items
        ):
            raise ConfigError(
                f"{what} keeps parameters in {name}, a plain {type(value).__name__}, so they would "
                "not adapt to a task. Make it an nn.ParameterList or an nn.ParameterDict."
            )


@checked
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

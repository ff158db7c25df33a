"""Any PyTorch module as an encoder: of timm, of torchvision, or of your own."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size
from quickstudy.nets.encoder import Encoder
from quickstudy.nets.norm import NormContext, under_vmap

__all__ = ["ModuleEncoder", "as_encoder"]

# how far an embedding may move, relative to the largest number in it, when the rest of its batch
# goes away: kernels round differently at another batch size, in bfloat16 by almost 1 %
_ROUNDING = 0.02
# the same kernel on the same input; a GPU may add in another order
_REPEATED = 1e-4


@checked
class ModuleEncoder(Encoder):
    """A plain PyTorch module that serves as an encoder.

    The module maps a batch ``[B, ...]`` to ``[B, D]``, or to ``[B, D, h, w]``, which is flattened.
    Batch norm keeps the rule of our own layers: the statistics of the batch while meta-training,
    whose running averages only the meta-training step updates; the frozen averages at test. So a
    query is judged alone.

    Args:
        module: it is not copied.
        features: width ``D`` of an embedding, for learners that must know it before they see one
            (full-context embeddings, linear heads); ``None`` = the module's ``num_features`` or
            ``out_features``, if it has one.

    Raises:
        ConfigError: if the object is no module, or one that cannot judge each input alone: a batch
            norm without running averages, parameters without a shape.

    Example::

        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.BatchNorm1d(64), nn.ReLU())
        learner = PrototypicalNetwork(net)  # the same as PrototypicalNetwork(ModuleEncoder(net))
        z, _ = ModuleEncoder(net).encode(torch.rand(2, 5, 1, 28, 28))  # [2, 5, 64]
        learner = MatchingNetwork(ModuleEncoder(net, features=64), full_context=True)
    """

    episodic = False

    def __init__(self, module: nn.Module, *, features: int | None = None) -> None:
        super().__init__()
        _check_module(module)
        if features is not None:
            check_size(features=features)
        self.module = module
        self._features = features or _own_width(module)
        self._judges_alone = False  # not known yet

    @property
    def out_features(self) -> int:  # type: ignore[override]
        """The width of an embedding, ``D``.

        Raises:
            ConfigError: if neither the caller nor the module says it.
        """
        if self._features is None:
            raise ConfigError(
                f"{type(self.module).__name__} does not say how many features it has. Wrap it as "
                "ModuleEncoder(module, features=...)."
            )
        return self._features

    @property
    def told_features(self) -> int | None:
        """The width of an embedding, if the caller or the module says it."""
        return self._features

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Nothing is known of the inputs: the module itself refuses what does not fit."""
        return ()

    def check(self, x: Tensor) -> None:
        """Accept everything: only the module knows what fits it."""

    def features(self, x: Tensor, context: NormContext) -> Tensor:
        """Return embeddings ``[B, D]`` of a flat batch of inputs ``[B, ...]``.

        Raises:
            ConfigError: if the module returns something else, or in evaluation looks at the rest of
                the batch.
        """
        # in training mode layers update their buffers whenever they are called
        kept = _own_buffers(self.module) if self.training and not context.track else nullcontext()
        with kept:
            z = self._call(x)
        if not (self.training or self._judges_alone or under_vmap(x) or len(x) < 2):
            self._check_alone(x, z)
        return z

    def _call(self, x: Tensor) -> Tensor:
        name = type(self.module).__name__
        # PyTorch counts in-place changes; there is no count in inference mode
        version = None if x.is_inference() else x._version
        z = self.module(x)
        if version is not None and x._version != version:
            raise ConfigError(
                f"{name} changes its input in place, so it would change the data. Use the "
                "operation that returns a new tensor."
            )
        if not isinstance(z, Tensor):
            raise ConfigError(
                f"{name} returns a {type(z).__name__}, and an encoder returns one tensor of "
                "embeddings [B, D]. Wrap it in a module that returns the tensor wanted."
            )
        if z.ndim < 2 or len(z) != len(x) or not z.is_floating_point():
            raise ConfigError(
                f"{name} returns {z.dtype} {list(z.shape)} for a batch of {len(x)}, and an encoder "
                f"returns floating embeddings [{len(x)}, D]. Keep the batch as the first axis."
            )
        z = z.flatten(1)
        if self._features not in (None, z.shape[1]):
            raise ConfigError(
                f"{name} returns {z.shape[1]} features, and {self._features} were announced. Give "
                f"features={z.shape[1]}."
            )
        return z

    @torch.no_grad()
    def _check_alone(self, x: Tensor, z: Tensor) -> None:
        """Compare the first embedding with that of the same input alone, asked twice; once."""
        kept = _buffer_versions(self.module)
        alone, again = (self._call(x[:1].clone())[0].float() for _ in range(2))
        here = z[0].detach().float()
        finite = here.isfinite()  # others say nothing; one that is NaN only when alone does
        alone, again, here = alone[finite], again[finite], here[finite]
        largest = torch.cat([here.abs(), here.new_zeros(1)]).max()
        name = type(self.module).__name__
        if not bool(((alone - here).abs() <= _ROUNDING * largest).all()):
            raise ConfigError(
                f"{name} embeds an input differently when it is alone, so a "
                "prediction would depend on the other queries, or on random numbers. Take out what "
                "averages over the batch or draws numbers in evaluation mode."
            )
        if not bool(((again - alone).abs() <= _REPEATED * largest).all()):
            raise ConfigError(
                f"{name} embeds the same input differently when it is asked again: it counts its "
                "calls, or draws random numbers. Take that out in evaluation mode."
            )
        changed = sorted(n for n, v in _buffer_versions(self.module).items() if kept.get(n) != v)
        if changed:
            raise ConfigError(
                f"{name} changes {', '.join(changed)} in evaluation mode, so one query would "
                "influence the next. Return the value instead of keeping it."
            )
        self._judges_alone = True


@checked
def as_encoder(net: nn.Module) -> Encoder:
    """Return an encoder: the object itself if it is one, or a :class:`ModuleEncoder` around it.

    Args:
        net: an encoder or any other module.

    Raises:
        ConfigError: see :class:`ModuleEncoder`.
    """
    return net if isinstance(net, Encoder) else ModuleEncoder(net)


def _own_width(module: nn.Module) -> int | None:
    # timm's models say num_features, linear layers and torchvision's heads out_features
    for name in ("num_features", "out_features"):
        width = getattr(module, name, None)
        if isinstance(width, int) and width > 0:
            return width
    return None


def _check_module(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        what = f"the class {module.__name__}" if isinstance(module, type) else repr(module)
        raise ConfigError(f"an encoder is a module, such as Conv4() or nn.Linear; got {what}.")
    known = {id(p) for p in module.parameters()}
    for name, part in module.named_modules():
        what = f"{name or 'the network'} ({type(part).__name__})"
        if any(is_lazy(v) for v in (*part._parameters.values(), *part._buffers.values())):
            raise ConfigError(
                f"{what} does not know its shape yet. Call the network once on a batch of inputs "
                "first."
            )
        refuse_hidden_layers(part, what, known)
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise ConfigError(
                f"{what} keeps no running averages, so a query would be normalised together with "
                "the others. Build it with track_running_stats=True, or take Conv4(norm='support')."
            )


def _buffer_versions(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the identity and the count of changes of each buffer. What a module keeps elsewhere is
    often a table that it made for its inputs' shape, and changes no answer."""
    return {
        f"{name}.{key}" if name else key: (id(value), 0 if value.is_inference() else value._version)
        for name, part in module.named_modules()
        for key, value in part._buffers.items()
        if value is not None
    }


def refuse_hidden_layers(part: nn.Module, what: str, known: Set[int]) -> None:
    """Refuse layers in a plain list, tuple or dict, where PyTorch does not look for them.

    Args:
        part: to look at.
        what: its name, for errors.
        known: ``id`` of every parameter that PyTorch finds in the network; layers that have no
            other parameters may stand in a list too.

    Raises:
        ConfigError: with the name of the attribute and the remedy.
    """
    for key, kept in vars(part).items():
        if not isinstance(kept, list | tuple | dict):
            continue
        items = kept.values() if isinstance(kept, dict) else kept
        layers = [one for one in items if isinstance(one, nn.Module)]
        if any(id(p) not in known for one in layers for p in one.parameters()):
            raise ConfigError(
                f"{what} keeps layers in {key}, a plain {type(kept).__name__}, so they would "
                "be neither trained nor saved. Make it an nn.ModuleList or an nn.ModuleDict."
            )


@contextmanager
def _own_buffers(module: nn.Module) -> Iterator[None]:
    """Let a call change copies of the module's buffers; afterwards the module has its own again."""
    # by part, not by name: a layer that stands in two places is one layer
    kept = [(part, dict(part._buffers)) for part in module.modules()]
    try:
        for part, buffers in kept:
            part._buffers.update({n: None if b is None else b.clone() for n, b in buffers.items()})
        yield
    finally:
        for part, buffers in kept:
            part._buffers.clear()
            part._buffers.update(buffers)

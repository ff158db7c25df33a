"""The peers we measure ourselves against, imported as they are.

easyfsl's module tree imports torchvision, of which no CPU build goes with our torch. What we
time (task sampler, feature data set, Prototypical Network, evaluation loop) never calls it, so
its names are filled with empty ones. Its task sampler hands ``data_source`` to torch's Sampler,
which newer versions of torch do not take any more; it is taken and dropped, as before.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import types
from typing import Any

from torch.utils.data import Sampler


class _Anything:
    """Stands for any class or function of torchvision; never called by what we time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class _Empty(types.ModuleType):
    """A module that has every name but the special ones, which importers and inspectors ask for."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


def _take_and_drop(self: Any, data_source: Any = None) -> None:
    del self, data_source


def easyfsl() -> types.SimpleNamespace:
    """Return easyfsl's sampler, feature data set, Prototypical Network and evaluation loop."""
    if importlib.util.find_spec("torchvision") is None:
        for name in ("", ".models", ".models.resnet", ".datasets", ".transforms", ".utils"):
            sys.modules.setdefault(f"torchvision{name}", _Empty(f"torchvision{name}"))
    if Sampler.__init__ is object.__init__:
        Sampler.__init__ = _take_and_drop  # type: ignore[method-assign, assignment]
    return types.SimpleNamespace(
        version=importlib.metadata.version("easyfsl"),
        TaskSampler=importlib.import_module("easyfsl.samplers").TaskSampler,
        FeaturesDataset=importlib.import_module("easyfsl.datasets").FeaturesDataset,
        PrototypicalNetworks=importlib.import_module("easyfsl.methods").PrototypicalNetworks,
        evaluate=importlib.import_module("easyfsl.utils").evaluate,
    )

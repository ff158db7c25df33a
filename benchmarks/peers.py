"""The peers we measure ourselves against, imported as they are.

easyfsl's module tree imports torchvision, of which no CPU build goes with our torch. What we
time (task sampler, feature data set, Prototypical Network, evaluation loop) never calls it, so
its names are filled with empty ones. Its task sampler hands ``data_source`` to torch's Sampler,
which newer versions of torch do not take any more; it is taken and dropped, as before.

learn2learn's top module imports gym and torchvision; its algorithms, which we time, do not: they
are imported from beneath it.
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


def learn2learn() -> types.SimpleNamespace:
    """Return learn2learn's MAML, as it is built by ``benchmarks/build_learn2learn.py``."""
    if "learn2learn" not in sys.modules:  # the second call finds what the first one put there
        spec = importlib.util.find_spec("learn2learn")
        if spec is None or spec.submodule_search_locations is None:
            raise SystemExit("learn2learn is not installed; run: make bench-peers")
        root = spec.submodule_search_locations[0]
        for name, path in (("learn2learn", root), ("learn2learn.algorithms", f"{root}/algorithms")):
            module = types.ModuleType(name)
            module.__path__ = [path]
            sys.modules[name] = module
    return types.SimpleNamespace(
        version=importlib.metadata.version("learn2learn"),
        MAML=importlib.import_module("learn2learn.algorithms.maml").MAML,
    )


def higher() -> types.SimpleNamespace:
    """Return higher's inner loop."""
    library = importlib.import_module("higher")
    return types.SimpleNamespace(
        version=importlib.metadata.version("higher"), innerloop_ctx=library.innerloop_ctx
    )


def torchopt() -> Any:
    """Return torchopt."""
    return importlib.import_module("torchopt")

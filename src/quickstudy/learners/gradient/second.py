"""Functions without a second derivative, refused before an outer gradient needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from quickstudy.core import ConfigError

__all__ = ["check_second_derivative", "explained"]

# PyTorch has no type for these errors and for the nodes that will raise them
_MISSING = ("is not implemented", "support automatic differentiation", "differentiate twice")
_NODES = ("NotImplemented", "DelayedError")


def check_second_derivative(gradients: Sequence[Tensor]) -> None:
    """Refuse gradients that cannot be differentiated again.

    PyTorch says so in the outer backward pass, which its caller starts, in words of its own.

    Args:
        gradients: first derivatives, with their graph.

    Raises:
        ConfigError: naming the function of PyTorch, as far as the graph does.
    """
    todo: list[tuple[Any, str]] = [(g.grad_fn, "") for g in gradients]
    seen: set[Any] = set()
    while todo:
        node, after = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name()
        if name.endswith(_NODES):
            raise ConfigError(_refusal(f"it comes before {after}" if after else name))
        todo += [(following, name) for following, _ in node.next_functions]


@contextmanager
def explained() -> Iterator[None]:
    """Name the remedy where PyTorch says that a derivative is missing.

    Raises:
        ConfigError: instead of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).splitlines()[0] if str(error) else ""
        if not any(words in text for words in _MISSING):
            raise
        raise ConfigError(_refusal(text)) from error


def _refusal(which: str) -> str:
    return (
        f"a function of the network has no second derivative ({which}), and the meta-gradient goes "
        "through the inner gradient. Set order='first' (FOMAML), or take another layer."
    )

"""ONNX: encoder and head as one graph that takes the support set as an input.

The graph knows no task. It gets support examples and which class each belongs to, and queries; so one
file serves every task of an encoder, and a class is added by giving one more column.

========== =================================== ==================================================
input       shape                               meaning
========== =================================== ==================================================
support     ``[S, ...]`` float32                examples as the encoder takes them (see metadata)
membership  ``[S, C]`` float32                  1 where example ``s`` belongs to class ``c``
query       ``[Q, ...]`` float32                inputs to classify
logits      ``[Q, C]`` float32                  the output; softmax gives probabilities
========== =================================== ==================================================

For encoders that are no torch module (text, callables) the graph begins at the embeddings.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quickstudy import __version__
from quickstudy.core import ConfigError, MissingExtraError
from quickstudy.training.checkpoint import write_atomically

if TYPE_CHECKING:
    from quickstudy.estimators.classifier import FewShotClassifier

__all__ = ["export_onnx"]

_MOST = 1 << 20  # examples, queries and classes of one call


class _Graph(nn.Module):
    """What is exported: plain tensors in, logits out."""

    def __init__(self, encoder: nn.Module | None, prior: nn.Module, temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.prior = prior
        self.temperature = temperature

    def forward(self, support: Tensor, membership: Tensor, query: Tensor) -> Tensor:
        """Return the logits ``[Q, C]`` of nearest prototypes."""
        z, q = (self._embed(x) for x in (support, query))
        prototypes = membership.T @ z / membership.sum(0)[:, None]  # [C, S] @ [S, D]
        cross = q @ prototypes.T
        squares = q.square().sum(1)[:, None] + prototypes.square().sum(1)[None]
        return (2 * cross - squares) / self.temperature

    def _embed(self, x: Tensor) -> Tensor:
        z = x if self.encoder is None else self.encoder(x)
        out: Tensor = self.prior(z)
        return out


def export_onnx(clf: FewShotClassifier, path: Path) -> None:
    """Write the classifier's encoder, prior and prototype head as one ONNX graph.

    Args:
        clf: a fitted classifier whose head is the prototype head.
        path: file to write.

    Raises:
        ConfigError: if the head has no graph, or the exporter cannot express the encoder.
        MissingExtraError: if ``onnx`` or ``onnxscript`` is not installed.
    """
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "onnx") from error
    rule = clf.onnx_rule()
    encoder = clf.embedder_.module()
    graph = _Graph(encoder, rule.module, rule.temperature).eval()
    shape = clf.embedder_.input_shape if encoder is not None else (clf.embedder_.dim,)
    data = _export(graph, tuple(shape))
    about = {
        "quickstudy": __version__,
        "encoder": clf.embedder_.name,
        "fingerprint": clf.embedder_.fingerprint,
        "input": json.dumps(list(shape)),
        "transform": json.dumps(clf.embedder_.config()),
        "classes": json.dumps([str(label) for label in clf.classes_]),
    }
    write_atomically(path, _with_metadata(data, about))


def _export(graph: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Return the ONNX file of a graph whose number of supports, classes and queries is free."""
    s, c, q = (torch.export.Dim(name, min=1, max=_MOST) for name in ("S", "C", "Q"))
    example = (torch.rand(6, *shape), torch.eye(3).repeat(2, 1), torch.rand(4, *shape))
    buffer = io.BytesIO()
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it lists the operators of packages that are not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                example,
                buffer,
                input_names=["support", "membership", "query"],
                output_names=["logits"],
                dynamic_shapes=({0: s}, {0: s, 1: c}, {0: q}),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter meets in a user's module
        raise ConfigError(
            f"this encoder cannot be written as ONNX: {str(error).splitlines()[0]}. Its forward "
            "must be plain tensor operations without branches on values."
        ) from error
    finally:
        log.setLevel(level)
    return buffer.getvalue()


def _with_metadata(data: bytes, about: dict[str, str]) -> bytes:
    import onnx

    model: Any = onnx.load_from_string(data)
    onnx.helper.set_model_props(model, about)
    out: bytes = model.SerializeToString()
    return out

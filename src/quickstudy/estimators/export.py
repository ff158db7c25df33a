"""Exports a task as an ONNX graph: encoder, metric, head and calibration in one file."""

from __future__ import annotations

import importlib.util
import json
import logging
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy import __version__
from quickstudy.core import CheckpointError, ConfigError, Examples, MissingExtraError
from quickstudy.embedders.networks import Network
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.heads import quick_twin
from quickstudy.fitting.task import FittedTask
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import is_graph, refuse_foreign

__all__ = ["SUPPORT_AS_INPUT", "Exported", "export_onnx"]

_TRACING = threading.Lock()

SUPPORT_AS_INPUT = ("prototype", "class-mean", "ridge", "incontext")
"""Heads that learn in closed form or in one pass, so that a graph can learn from a support set as
its input."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The inputs and outputs of an exported graph, see :meth:`FewShotClassifier.export_onnx`.

    Args:
        path: the file.
        support: whether the support set is an input; if not, the graph contains the task.
        inputs: shapes by name; ``S`` examples, ``Q`` queries, ``C`` classes.
        outputs: shapes by name, with the same letters.
        classes: labels of the columns, if the graph contains the task; else ``None``.
    """

    path: str
    support: bool
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    classes: list[Any] | None


class _Graph(nn.Module):
    """What both graphs share: from inputs to the metric's space, and from logits to answers."""

    def __init__(self, network: Network, task: FittedTask) -> None:
        super().__init__()
        self.net = nn.Identity() if network.net is None else network.net
        self.unit, self.metric = network.unit, task.prior.metric
        # other runtimes round differently anyway, so the slower sums that are exact are of no use
        self.head = quick_twin(task.head)
        self.temperature = task.temperature

    def seen(self, x: Tensor) -> Tensor:
        """Return inputs ``[N, ...]`` in the space in which the head works, as one task ``[1, N,
        D]``."""
        z = self.net(x).float()
        return self.metric.map(F.normalize(z, dim=1) if self.unit else z)[None]

    def answers(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated logits and probabilities ``[Q, C]``."""
        calibrated = logits[0] / self.temperature
        return calibrated, calibrated.softmax(1)


class _SupportGraph(_Graph):
    """A graph that learns from the support set that it gets at each call."""

    def forward(self, support: Tensor, membership: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities ``[Q, C]``; a row of zeros in ``membership`` is padding.

        Args:
            support: inputs ``[S, ...]``.
            membership: 1 where an example belongs to a class ``[S, C]``.
            query: inputs ``[Q, ...]``.
        """
        y, mask = membership.argmax(1)[None], membership.amax(1)[None] > 0
        examples = Examples(self.seen(support), y, mask)
        state = self.head.adapt(examples, n_way=membership.shape[1])
        return self.answers(self.head.predict(state, self.seen(query)))


class _TaskGraph(_Graph):
    """A graph that contains one task."""

    def __init__(self, network: Network, task: FittedTask) -> None:
        super().__init__(network, task)
        self.names = list(task.state)
        for number, name in enumerate(self.names):
            self.register_buffer(f"state_{number}", task.state[name])

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities ``[Q, C]`` of inputs ``[Q, ...]``."""
        state = {name: getattr(self, f"state_{i}") for i, name in enumerate(self.names)}
        return self.answers(self.head.predict(state, self.seen(query)))


def export_onnx(
    version: TaskVersion, path: str | Path, *, support_as_input: bool | None = None
) -> Exported:
    """Write encoder, head and calibration of a task as one ONNX graph.

    For the graph's inputs and outputs see :meth:`FewShotClassifier.export_onnx`.

    Args:
        version: the task.
        path: the file.
        support_as_input: whether the graph learns from a support set at each call; ``None`` = if
            the head can.

    Raises:
        ConfigError: if the head cannot learn in a graph, the encoder cannot be traced, or another
            file that is no graph of ours is there.
        MissingExtraError: if onnx or onnxscript is not installed.
        CheckpointError: if the file cannot be written.
    """
    refuse_foreign(path, name="the graph", ours=is_graph)
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "onnx")
    learns = _learns(version.head_name, support_as_input)
    network = version.embedder.network()
    width = list(network.shape)
    inputs: dict[str, list[int | str]] = {"query": ["Q", *width]}
    if learns:
        inputs = {"support": ["S", *width], "membership": ["S", "C"], **inputs}
    columns: int | str = "C" if learns else version.task.n_way
    outputs: dict[str, list[int | str]] = {
        name: ["Q", columns] for name in ("logits", "probabilities")
    }
    model = _traced(*_graph(network, version.task, learns=learns), [*inputs], [*outputs])
    _check_sizes(model, inputs)
    classes = None if learns else [str(label) for label in version.classes]
    facts = {
        "made_by": f"quickstudy {__version__}",
        "head": version.head_name,
        "encoder": version.embedder.name,
        "fingerprint": version.embedder.fingerprint,
        "query": network.about,
    } | ({} if classes is None else {"classes": classes})
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    try:
        write_atomically(Path(path), model.SerializeToString())
    except ValueError as error:  # protobuf's limit of 2 GB
        raise CheckpointError(f"{path}: the graph is too large for one file ({error}).") from error
    return Exported(str(path), learns, inputs, outputs, classes)


def _learns(head: str, support_as_input: bool | None) -> bool:
    """Return whether the graph takes the support set as an input."""
    learns = head in SUPPORT_AS_INPUT
    if support_as_input and not learns:
        raise ConfigError(
            f"the head {head!r} learns step by step, which a graph cannot do. Leave "
            "support_as_input out, and the graph will contain this task; or fit with head="
            f"{' or '.join(map(repr, SUPPORT_AS_INPUT))}."
        )
    if head == "gradient":
        raise ConfigError(
            "the head 'gradient' cannot be traced into a graph. Fit with another head to export."
        )
    return learns if support_as_input is None else support_as_input


def _graph(
    network: Network, task: FittedTask, *, learns: bool
) -> tuple[_Graph, tuple[Tensor, ...], tuple[dict[int, Any], ...]]:
    """Return the graph, example inputs to trace it with, and those of their axes that may have any
    length."""
    count = {name: torch.export.Dim(name, min=1) for name in "SCQ"}
    query = torch.rand(4, *network.shape)
    if not learns:
        return _TaskGraph(network, task), (query,), ({0: count["Q"]},)
    # S, C and Q have different lengths here: the tracer might take equal ones for the same axis
    support, membership = torch.rand(6, *network.shape), torch.eye(3).repeat(2, 1)
    shapes = ({0: count["S"]}, {0: count["S"], 1: count["C"]}, {0: count["Q"]})
    return _SupportGraph(network, task), (support, membership, query), shapes


def _check_sizes(model: Any, inputs: dict[str, list[int | str]]) -> None:
    """Refuse a graph that takes only one number of examples, as some encoders' code demands."""
    for entry in model.graph.input:
        sides = entry.type.tensor_type.shape.dim
        for side, wanted in zip(sides, inputs[entry.name], strict=True):
            if isinstance(wanted, str) and not side.dim_param:
                raise ConfigError(
                    f"this encoder makes a graph that takes {side.dim_value} inputs at a time and "
                    "no other number (its code uses the batch size as a number, for example "
                    "len(x)). Use x.shape[0] instead, or export a task on its embeddings."
                )


def _traced(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    shapes: tuple[dict[int, Any], ...],
    inputs: list[str],
    outputs: list[str],
) -> Any:
    """Return the ONNX model of a graph.

    Raises:
        ConfigError: if the graph cannot be traced.
    """
    # one after the other: the exporter's settings, and Python's warnings, are of the whole process
    with _TRACING:
        return _traced_alone(graph, example, shapes, inputs, outputs)


def _traced_alone(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    shapes: tuple[dict[int, Any], ...],
    inputs: list[str],
    outputs: list[str],
) -> Any:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # the exporter warns about its own tools; standard output is left alone, as other threads
        # may print
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.eval().cpu(),
                example,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"this encoder cannot be traced into a graph ({type(error).__name__}: {reason}). "
            "Export a task on its embeddings: FewShotClassifier('array').fit(embeddings, labels)."
        ) from error
    finally:
        logger.setLevel(level)
    assert program is not None  # the exporter returns a program if dynamo=True
    return program.model_proto

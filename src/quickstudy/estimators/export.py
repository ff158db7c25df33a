"""A task as an ONNX graph: encoder, metric, head and calibration in one file."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from contextlib import redirect_stdout
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

__all__ = ["SUPPORT_AS_INPUT", "Exported", "export_onnx"]

SUPPORT_AS_INPUT = ("prototype", "class-mean", "ridge")
"""Heads that learn in closed form: their graph takes the support set as an input."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What a graph takes and gives.

    Args:
        path: the file.
        support: whether the support set is an input; otherwise the task is fixed in the graph.
        inputs: names and shapes; ``S`` examples, ``Q`` queries, ``C`` classes.
        outputs: the same.
        classes: labels of the columns, if the task is fixed.
    """

    path: str
    support: bool
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    classes: list[Any] | None


class _Graph(nn.Module):
    """What both graphs share: inputs to the metric's space, logits to answers."""

    def __init__(self, network: Network, task: FittedTask) -> None:
        super().__init__()
        self.net = nn.Identity() if network.net is None else network.net
        self.unit, self.metric = network.unit, task.prior.metric
        # another runtime rounds in its own way: exact sums would be for nothing
        self.head = quick_twin(task.head)
        self.temperature = task.temperature

    def seen(self, x: Tensor) -> Tensor:
        """Return what the head learns from, as one task ``[1, N, D]``."""
        z = self.net(x).float()
        return self.metric.map(F.normalize(z, dim=1) if self.unit else z)[None]

    def answers(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated logits and probabilities ``[Q, C]``."""
        calibrated = logits[0] / self.temperature
        return calibrated, calibrated.softmax(1)


class _Learner(_Graph):
    """A graph that learns its task anew at each call."""

    def forward(self, support: Tensor, membership: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return answers; a row of ``membership`` that is all zeros is padding."""
        y, mask = membership.argmax(1)[None], membership.amax(1)[None] > 0
        examples = Examples(self.seen(support), y, mask)
        state = self.head.adapt(examples, n_way=membership.shape[1])
        return self.answers(self.head.predict(state, self.seen(query)))


class _Classifier(_Graph):
    """A graph of one task."""

    def __init__(self, network: Network, task: FittedTask) -> None:
        super().__init__(network, task)
        self.names = list(task.state)
        for number, name in enumerate(self.names):
            self.register_buffer(f"state_{number}", task.state[name])

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return answers."""
        state = {name: getattr(self, f"state_{i}") for i, name in enumerate(self.names)}
        return self.answers(self.head.predict(state, self.seen(query)))


def export_onnx(
    version: TaskVersion, path: str | Path, *, support_as_input: bool | None = None
) -> Exported:
    """Write encoder, head and calibration of a task as one ONNX graph.

    Args, inputs, outputs and errors: see :meth:`FewShotClassifier.export_onnx`.
    """
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
            f"the head {head!r} learns step by step, which no graph holds. Leave support_as_input "
            f"out and the task is fixed in the graph, or fit with head="
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
    """Return the graph, inputs to trace it with, and which of their axes have any length."""
    count = {name: torch.export.Dim(name, min=1) for name in "SCQ"}
    query = torch.rand(4, *network.shape)
    if not learns:
        return _Classifier(network, task), (query,), ({0: count["Q"]},)
    # of three different lengths: equal ones might be traced as one
    support, membership = torch.rand(6, *network.shape), torch.eye(3).repeat(2, 1)
    shapes = ({0: count["S"]}, {0: count["S"], 1: count["C"]}, {0: count["Q"]})
    return _Learner(network, task), (support, membership, query), shapes


def _check_sizes(model: Any, inputs: dict[str, list[int | str]]) -> None:
    """Refuse a graph that takes one number of examples only: an encoder can force that on it."""
    for entry in model.graph.input:
        sides = entry.type.tensor_type.shape.dim
        for side, wanted in zip(sides, inputs[entry.name], strict=True):
            if isinstance(wanted, str) and not side.dim_param:
                raise ConfigError(
                    f"this encoder makes a graph that takes {side.dim_value} inputs at a time and "
                    "no other number (its code asks for the size as a number, as len(x) does). Use "
                    "x.shape[0] there, or export a task on its embeddings."
                )


def _traced(
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
        # the exporter tells its steps on stdout, and warns of its own tools
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
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
    assert program is not None  # it is, with dynamo
    return program.model_proto

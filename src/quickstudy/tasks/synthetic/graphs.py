"""Random structural graphs: columns and targets are nodes of one random network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.tasks.synthetic.draws import Draws, widths

__all__ = ["GRAPH_ACTIVATIONS", "RandomGraph"]

# numbers of the draws, 100 to 199
(
    _WIDTH,
    _ROOT,
    _ROOT_FORM,
    _PARENTS,
    _WEIGHTS,
    _FUNCTION,
    _OWN_FUNCTION,
    _SHIFT,
    _NOISE,
    _NOISE_SIZE,
    _PICK,
    _BLUR,
    _BLUR_SIZE,
    _TARGET,
    _KEPT,
    _DEPTH,
) = range(100, 116)
_PER_LAYER = 20  # numbers of a layer's draws come in blocks

_LAYERS, _NODES, _MOST_PARENTS = 4, 32, 4

# each with its mean and standard deviation at a standard normal input, by which it is standardised:
# statistics of the rows would make a row depend on the others
GRAPH_ACTIVATIONS: tuple[tuple[str, Callable[[Tensor], Tensor], float, float], ...] = (
    ("identity", lambda z: z, 0.0, 1.0),
    ("tanh", lambda z: torch.tanh(1.5 * z), 0.0, 0.7236),
    ("relu", torch.relu, 0.3989, 0.5838),
    ("absolute", torch.abs, 0.7979, 0.6028),
    ("sine", lambda z: torch.sin(2.0 * z), 0.0, 0.7071),
    ("square", lambda z: (z * z).clamp(max=9.0), 0.9985, 1.4008),
    ("step", lambda z: (z > 0).to(z.dtype), 0.5, 0.5),
    ("bump", lambda z: torch.exp(-z * z), 0.5774, 0.3374),
)


@dataclass(frozen=True, slots=True)
class RandomGraph:
    """Tables whose columns and classes are nodes of a random layered graph.

    Roots are random; a node is an activation of a weighted sum of up to four nodes of the layer
    before, plus noise. Columns are nodes of all layers, so some are causes of the class and some
    are its effects; several columns may show the same node, each with an error of its own. A prior
    of structural causal models, as in Hollmann et al. (2023), "TabPFN", section 4.

    *Difference from the paper*: four layers of at most 32 nodes for every table, so that a batch of
    tables is one tensor; sums run over four parents one by one, so that a table does not depend on
    the batch to the last bit.

    Args:
        label_noise: the largest standard deviation of the noise of the target's node.

    Example::

        from quickstudy.tasks.synthetic import Draws, RandomGraph
        x, scores = RandomGraph().draw(Draws(torch.tensor([1, 2])), rows=50, columns=6, classes=3)
        x.shape, scores.shape  # [2, 50, 6], [2, 50, 3]
    """

    label_noise: float = 0.5

    def draw(
        self, draws: Draws, *, rows: int, columns: int | Tensor, classes: int
    ) -> tuple[Tensor, Tensor]:
        """Return columns ``[T, N, F]`` and a score for each class ``[T, N, C]``.

        Args:
            draws: of ``T`` tables.
            rows: ``N``.
            columns: of each table ``[T]``, or one number; ``F`` is the largest.
            classes: ``C``.
        """
        columns = int(widths(draws, columns).max())
        # few nodes make columns that say the same, many make columns that have little in common
        width = (3 * torch.exp2(3.0 * draws.uniform(_WIDTH))).long().clamp(max=_NODES)  # [T]
        layers = [_roots(draws, rows)]
        for number in range(1, _LAYERS):
            layers.append(_layer(draws, layers[-1], width, number))
        nodes = torch.cat(layers, 2)  # [T, N, layers * nodes]
        layer = draws.whole(_DEPTH, columns, below=_LAYERS)
        node = draws.whole(_PICK, columns, below=width)
        x = _picked(nodes, layer * _NODES + node)
        blur = draws.uniform(_BLUR_SIZE, columns, high=0.8) - 0.4
        x = x + blur.clamp(min=0.0)[:, None] * draws.normal(_BLUR, rows, columns)
        # the target comes late in the graph: its causes lie before it, its effects beside it
        depth = 1 + draws.whole(_TARGET, below=_LAYERS - 1)
        target = draws.whole(_TARGET + 50, classes, below=width)
        scores = _picked(nodes, depth[:, None] * _NODES + target)
        size = draws.uniform(_TARGET + 51).square().clamp(min=0.01) * self.label_noise
        return x, scores + size[:, None, None] * draws.normal(_TARGET + 52, rows, classes)


def _roots(draws: Draws, rows: int) -> Tensor:
    """Return the nodes without parents ``[T, N, nodes]``: normal, uniform, in groups or skewed."""
    z = draws.normal(_ROOT, rows, _NODES)
    form = draws.whole(_ROOT_FORM, _NODES, below=4)[:, None]
    uniform = math.sqrt(3.0) * torch.erf(z * math.sqrt(0.5))
    groups = 0.45 * z + 0.9 * torch.where(draws.chance(_ROOT + 50, rows, _NODES, of=0.5), 1.0, -1.0)
    skewed = (torch.exp(0.6 * z) - 1.197) / 0.789
    return torch.where(
        form == 0, z, torch.where(form == 1, uniform, torch.where(form == 2, groups, skewed))
    )


def _layer(draws: Draws, before: Tensor, width: Tensor, number: int) -> Tensor:
    """Return the nodes of a layer ``[T, N, nodes]`` from those of the layer before."""
    name = 1000 + number * _PER_LAYER
    weights = draws.normal(name, _NODES, _MOST_PARENTS)
    kept = draws.chance(name + 1, _NODES, _MOST_PARENTS, of=0.6)
    kept[..., 0] = True
    weights = weights * kept
    squares = [weights[..., k].square() for k in range(_MOST_PARENTS)]
    norm = torch.sqrt(squares[0] + squares[1] + squares[2] + squares[3]).clamp(min=1e-6)
    parents = draws.whole(name + 2, _NODES, _MOST_PARENTS, below=width)
    total = draws.normal(name + 3, _NODES)[:, None] * 0.5  # [T, 1, nodes]
    for k in range(_MOST_PARENTS):
        total = total + _picked(before, parents[..., k]) * (weights[..., k] / norm)[:, None]
    # most nodes of a table have one kind of function, some have their own
    common = draws.whole(name + 4, 1, below=len(GRAPH_ACTIVATIONS))
    own = draws.whole(name + 5, _NODES, below=len(GRAPH_ACTIVATIONS))
    function = torch.where(draws.chance(name + 6, _NODES, of=0.4), own, common)[:, None]
    made = total
    for kind, (_, activation, mean, deviation) in enumerate(GRAPH_ACTIVATIONS):
        made = torch.where(function == kind, (activation(total) - mean) / deviation, made)
    size = draws.uniform(name + 7, 1, _NODES, high=0.6) * draws.uniform(name + 8, 1, 1).square()
    return made + size * draws.normal(name + 9, before.shape[1], _NODES)


def _picked(nodes: Tensor, index: Tensor) -> Tensor:
    """Return some nodes of each table, ``[T, N, M]`` and ``[T, F] -> [T, N, F]``."""
    return nodes.gather(2, index[:, None].expand(-1, nodes.shape[1], -1))

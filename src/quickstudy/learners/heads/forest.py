"""Forests of decision trees: scikit-learn grows them, tensors hold them and answer."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import class_weights

__all__ = ["ForestHead"]

Array = npt.NDArray[Any]

# examples of a task whose forest is remembered: some 1 MB for 100 trees
_MOST_REMEMBERED = 200
_KINDS = ("extra-trees", "random-forest")


@checked
class ForestHead(Learner):
    """Extremely randomised trees (Geurts, Ernst and Wehenkel 2006) or a random forest (Breiman
    2001), with scikit-learn's settings.

    A tree asks for one column at a time whether it is above a threshold. So the unit of a column
    does not matter, columns that say nothing do little harm, and steps and interactions are found
    that no linear head has. The answer is the mean over trees of the class shares in the leaf that
    a query reaches; :meth:`shares` returns what scikit-learn's ``predict_proba`` does.

    The same examples give the same forest, in whatever order they come. No gradient reaches the
    embeddings.

    Args:
        kind: ``"extra-trees"`` or ``"random-forest"``.
        trees: number of trees.
        seed: of the random choices.

    Raises:
        ConfigError: if there is no such kind, or no tree.

    Example::

        head = ForestHead("extra-trees", trees=20)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    # which of two equally good splits is found first depends on the numbers of the classes
    label_sensitive = True

    def __init__(self, kind: str = "extra-trees", *, trees: int = 100, seed: int = 0) -> None:
        super().__init__()
        if kind not in _KINDS:
            offered = nearest_names(kind, _KINDS)
            raise ConfigError(f"there is no forest {kind!r}. {offered}")
        check_size(trees=trees)
        self.kind, self.trees, self.seed = kind, trees, seed

    @torch.no_grad()
    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the trees of each task as lists of nodes, one tree after the other.

        ``root`` ``[T, B]`` holds the first node of each of the ``B`` trees. A query at a node goes
        on to ``child`` ``[T, M]``, or to the node after that if its ``feature`` ``[T, M]`` is above
        the ``threshold`` ``[T, M]``. A leaf is its own child, below any query; ``leaf`` ``[T, M]``
        is the row of its class shares in ``shares`` ``[T, V, C]``. ``level`` ``[T, L]`` says how
        deep the trees are, and ``present`` bool ``[T, C]`` which classes have support.
        """
        support.check_labels(n_way)
        _, present = class_weights(support.y, support.mask, n_way)
        tasks = zip(support.x, support.y, support.mask, strict=True)
        grown = [
            self._grown(x[mask].float().cpu().numpy(), y[mask].cpu().numpy(), n_way)
            for x, y, mask in tasks
        ]
        state = {name: _padded([one[name] for one in grown]) for name in grown[0]}
        return {n: v.to(support.x.device) for n, v in state.items()} | {"present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logarithms of the class shares ``[T, Q, C]``, finite for all classes with
        support: one more tree is counted, in which they are equally likely."""
        trees, present = state["root"].shape[1], state["present"][:, None]
        classes = present.sum(2, keepdim=True).clamp(min=1)
        p = (self.shares(state, x) * trees + 1 / classes) / (trees + 1)
        return p.log().to(x.dtype).masked_fill(~present, -torch.inf)

    def shares(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the mean over trees of the class shares in the leaves ``[T, Q, C]``.

        Args:
            state: what :meth:`adapt` returned.
            x: queries ``[T, Q, D]``.
        """
        x = x.float()  # thresholds are rounded so that they part float32 numbers exactly
        tasks, queries, _ = x.shape
        names = ("child", "feature", "threshold", "leaf", "root")
        # the same trees for every query: [T, M] -> [T, Q, M], a view
        child, feature, threshold, leaf, node = (
            state[name][:, None].expand(-1, queries, -1) for name in names
        )  # node: of each query in each tree [T, Q, B]
        for _ in range(state["level"].shape[1]):
            above = x.gather(2, feature.gather(2, node)) > threshold.gather(2, node)
            node = child.gather(2, node) + above.long()
        kind, shares = leaf.gather(2, node), state["shares"]
        reached = torch.zeros(tasks, queries, shares.shape[1], device=x.device)
        reached = reached.scatter_add(2, kind, torch.ones_like(kind, dtype=reached.dtype))
        return reached @ shares / node.shape[2]

    def _grown(self, x: Array, y: Array, n_way: int) -> dict[str, Array]:
        """Return the forest of one task as arrays, see :meth:`adapt`."""
        # scikit-learn's random numbers take no others
        how = (self.kind, self.trees, self.seed % 2**32, n_way)
        if len(x) > _MOST_REMEMBERED:
            return _grow(*how, x, y)
        return _remembered(*how, x.shape[1], x.tobytes(), y.tobytes())


@lru_cache(maxsize=32)
def _remembered(
    kind: str, trees: int, seed: int, n_way: int, width: int, x: bytes, y: bytes
) -> dict[str, Array]:
    """Return :func:`_grow` of few examples: the same ones are learned again when a file is read or
    an edit is undone."""
    rows = np.frombuffer(x, dtype=np.float32).reshape(-1, width)
    return _grow(kind, trees, seed, n_way, rows, np.frombuffer(y, dtype=np.int64))


def _grow(kind: str, trees: int, seed: int, n_way: int, x: Array, y: Array) -> dict[str, Array]:
    """Return a forest as arrays, see :meth:`ForestHead.adapt`."""
    # scikit-learn's ensembles take a second to import, which few tasks need
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    make = ExtraTreesClassifier if kind == "extra-trees" else RandomForestClassifier
    order = np.lexsort((y, *x.T[::-1]))  # the same forest in whatever order the examples come
    forest = make(trees, random_state=seed)
    with warnings.catch_warnings():
        # so many classes of few examples are no mistake here
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        forest.fit(x[order], y[order])
    grown = [tree.tree_ for tree in forest.estimators_]
    root = np.cumsum([0, *(tree.node_count for tree in grown)])[:-1]
    parts = [_nodes(tree, first) for tree, first in zip(grown, root, strict=True)]
    nodes = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # nearly all leaves hold one class: each kind of leaf is kept once
    found, classes = nodes.pop("shares"), forest.classes_.astype(np.int64)
    pure = found.max(1) == 1
    mixed, which = np.unique(found[~pure], axis=0, return_inverse=True)
    leaf = found.argmax(1)
    leaf[~pure] = len(classes) + which.reshape(-1)
    shares = np.zeros((len(classes) + len(mixed), n_way), dtype=np.float32)
    shares[:, classes] = np.concatenate([np.eye(len(classes)), mixed])
    return nodes | {
        "root": root,
        "level": np.ones(max(tree.max_depth for tree in grown), dtype=bool),
        "leaf": leaf,
        "shares": shares,
    }


def _nodes(tree: Any, first: int) -> dict[str, Array]:
    """Return the nodes of one of scikit-learn's trees, numbered from ``first``; the two children of
    a node stand side by side.

    Args:
        tree: scikit-learn's ``tree_``.
        first: number of the root.
    """
    left, inner = tree.children_left, np.flatnonzero(tree.children_left >= 0)
    place = np.zeros(tree.node_count, dtype=np.int64)  # where each node goes; the root comes first
    place[left[inner]] = 1 + 2 * np.arange(len(inner))
    place[tree.children_right[inner]] = 2 + 2 * np.arange(len(inner))
    child = np.arange(tree.node_count)
    child[place[inner]] = place[left[inner]]
    feature = np.zeros(tree.node_count, dtype=np.int64)
    feature[place[inner]] = tree.feature[inner]
    threshold = np.full(tree.node_count, np.inf, dtype=np.float32)  # nothing goes on from a leaf
    # rounded down: a float32 number is above the rounded threshold if it is above the exact one
    exact = tree.threshold[inner]
    rounded = exact.astype(np.float32)
    threshold[place[inner]] = np.where(
        rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded
    )
    shares = np.empty((tree.node_count, tree.value.shape[2]))
    shares[place] = tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True)
    return {
        "child": first + child,
        "feature": feature,
        "threshold": threshold,
        "shares": shares,
    }


def _padded(parts: list[Array]) -> Tensor:
    """Return arrays of several lengths as one tensor, zeros at the ends of the shorter ones."""
    made = [torch.from_numpy(part) for part in parts]
    return torch.nn.utils.rnn.pad_sequence(made, batch_first=True)

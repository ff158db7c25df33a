"""An in-context classifier of tables: a transformer that was trained on made-up tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quickstudy.core import Examples, TaskError, TaskState, check_state
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import class_weights
from quickstudy.nets.table_transformer import Context, TableTransformer

__all__ = ["TableInContext"]

_LEAST = 1e-7  # probability of a class with support


@checked
class TableInContext(Learner):
    """Learns the classes of a table by reading its rows, without a gradient.

    Müller et al. (2022), "Transformers can do Bayesian inference", section 3: a network that is
    trained on many tasks of a distribution approximates the posterior prediction under it. Inputs
    are rows ``[T, N, F]``; NaN is a missing value, and a column without any value in the support is
    no column, so tables of different widths lie in one batch. The state holds the keys and values
    of the support: queries read them, each on its own.

    The order of the rows does not matter. Neither do the names of the classes: the network numbers
    the classes by the mean place of their rows. The order of columns matters a little, since
    columns are read in groups.

    Args:
        network: a :class:`~quickstudy.nets.TableTransformer`; a new one with the usual numbers if
            not given.

    Example::

        from quickstudy.learners.incontext import TableInContext
        from quickstudy.nets.table_transformer import TableTransformer
        learner = TableInContext(TableTransformer(width=32, depth=2, heads=4, hidden=32))
        support = Examples.full(torch.randn(1, 6, 4), torch.tensor([[0, 1, 0, 1, 0, 1]]))
        state = learner.adapt(support, n_way=2)
        logits = learner.predict(state, torch.randn(1, 9, 4))  # [1, 9, 2]
    """

    family: Family = "in-context"

    def __init__(self, network: TableTransformer | None = None) -> None:
        super().__init__()
        self.network = TableTransformer() if network is None else network

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the keys and values of the support, and how to read a column.

        Raises:
            TaskError: if rows are not ``[T, S, F]``, or there are more classes than the network has
                numbers for.
        """
        support.check_labels(n_way)
        if support.x.ndim != 3:
            raise TaskError(f"a table is [T, N, F]; got {list(support.x.shape)}.")
        if n_way > self.network.slots:
            raise TaskError(
                f"this network tells at most {self.network.slots} classes apart; got {n_way}. Use "
                "TabularInContextClassifier(many_classes='hierarchy')."
            )
        mask, x = support.mask, _precise(support.x)
        x = x.masked_fill(~mask[..., None], torch.nan)
        # in order, what is missing at the end
        values = x.nan_to_num(torch.inf, torch.inf, -torch.inf).transpose(1, 2)
        finite = torch.isfinite(values)
        ordered = values.masked_fill(~finite, torch.inf).sort(dim=2).values  # [T, F, S]
        known = finite.sum(2)  # [T, F]
        cells = self.network.cell_features(x, ordered, known)
        y = support.y.masked_fill(~mask, 0)
        members, present = class_weights(y, mask, n_way)  # [T, S, C], [T, C]
        slots = self._numbered(cells, members, present).gather(1, y)
        context = self.network.read(cells, known > 0, slots, mask)
        return {
            "keys": context.keys,
            "values": context.values,
            "anchors": context.anchors,
            "members": members.to(torch.bool),
            "present": present,
            "ordered": ordered,
            "known": known,
        }

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return logarithms of probabilities ``[T, Q, C]``."""
        shapes: dict[str, Any] = {"ordered": (x.shape[-1], None), "present": (None,)}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        known, members = state["known"], state["members"]
        cells = self.network.cell_features(_precise(x), state["ordered"], known)
        context = Context(state["keys"], state["values"], state["anchors"])
        mask = members.any(2)
        near = self.network.answer(context, cells, known > 0, mask)  # [T, Q, S]
        share = near.masked_fill(~mask[:, None], -torch.inf).softmax(2)
        with torch.autocast(x.device.type, enabled=False):
            p = share @ members.to(share.dtype)  # [T, Q, C]
        logits = torch.log(p * (1.0 - members.shape[2] * _LEAST) + _LEAST)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)

    def _numbered(self, cells: Tensor, members: Tensor, present: Tensor) -> Tensor:
        """Return a number for each class ``[T, C]``, whatever the classes are called.

        Classes are numbered by the mean of their rows' places. In training by the last digits of
        it, which are as good as random: so each number is trained as often, and no number comes to
        mean a low class.
        """
        place = cells[..., 1].sum(2)  # [T, S]
        weights = members.to(place.dtype)
        total = (place[..., None] * weights).sum(1)
        key = total / weights.sum(1).clamp(min=1)
        if self.training:
            key = (key * 1e3).frac().abs()
        order = key.masked_fill(~present, torch.inf).argsort(dim=1, stable=True)
        return order.argsort(dim=1, stable=True)


def _precise(x: Tensor) -> Tensor:
    """Return numbers in float32 or better: means and places need the precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

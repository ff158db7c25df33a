"""The floor: nearest neighbour on raw inputs. A learner that does not beat it has learned
nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import Examples, TaskState, check_state
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import moved_to_centre, without_padding

__all__ = ["NearestNeighbour"]


class NearestNeighbour(Learner):
    """A query takes the label (or, in regression, the value) of the nearest support example.

    Distances are Euclidean on the flattened inputs. It has no parameters and needs no training.

    Example::

        floor = NearestNeighbour()
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = floor.adapt(episode.support, n_way=5)
        logits = floor.predict(state, episode.query.x)  # [1, 75, 5]
    """

    family: Family = "baseline"

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the support itself, flattened: ``support`` ``[T, S, D]``, ``y``, ``mask``."""
        support.check_labels(n_way)
        tasks = support.x.shape[0]
        support = without_padding(Examples(support.x.flatten(2), support.y, support.mask))
        return {
            "support": support.x,
            "y": support.y,
            "mask": support.mask,
            "n_way": torch.full((tasks,), n_way, device=support.y.device),
        }

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return minus the squared distance to the nearest example of each class ``[T, Q, C]``; in
        regression the value of the nearest example ``[T, Q, 1]``."""
        x = x.flatten(2)
        shapes = {"support": (None, x.shape[2]), "y": (None,), "mask": (None,), "n_way": ()}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        support, y, mask = state["support"], state["y"], state["mask"]
        distance = torch.cdist(*moved_to_centre(x, support, mask)).square()  # [T, Q, S]
        distance = distance.masked_fill(~mask[:, None], torch.inf)
        if y.is_floating_point():
            return y.gather(1, distance.argmin(2))[..., None]
        n_way = int(state["n_way"][0])
        members = (y[..., None] == torch.arange(n_way, device=y.device)) & mask[
            ..., None
        ]  # [T, S, C]
        per_class = [
            distance.masked_fill(~members[:, None, :, c], torch.inf).amin(2) for c in range(n_way)
        ]
        return -torch.stack(per_class, 2)  # [T, Q, C]; -inf where a class is absent

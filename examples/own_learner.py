"""Write a learner of your own, prove that it keeps the contract, train it like ours.

python examples/own_learner.py                    (a few seconds, needs no data)
pytest examples/own_learner.py                    (every conformance test)
quickstudy train examples/own_learner.py:RECIPE   (a run like any other: evaluate, compare, check)
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from quickstudy.core import EpisodeSpec, Examples, TaskState
from quickstudy.evaluation import evaluate
from quickstudy.learners import EmbeddingLearner, Learner
from quickstudy.learners.base import Family
from quickstudy.nets import MLP, Encoder
from quickstudy.recipes import EncoderConfig, ImageData, LearnerConfig, Recipe
from quickstudy.tasks import Pool, PoolSource
from quickstudy.testing import LearnerConformance
from quickstudy.training import TrainConfig, ValidationConfig, train


class RidgeHead(Learner):
    """Ridge regression on embeddings, in closed form (Bertinetto et al. 2019, "R2D2")."""

    family: Family = "metric"

    def __init__(self) -> None:
        super().__init__()
        self.log_ridge = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        support.check_labels(n_way)
        mask = support.mask[..., None]
        z = support.x.masked_fill(~mask, 0)  # [T, S, D]
        members = (support.y[..., None] == torch.arange(n_way, device=z.device)) & mask
        eye = torch.eye(z.shape[2], dtype=z.dtype, device=z.device)
        gram = z.transpose(1, 2) @ z + self.log_ridge.exp() * eye  # [T, D, D]
        weights = torch.linalg.solve(gram, z.transpose(1, 2) @ members.to(z.dtype))
        return {"weights": weights.contiguous(), "present": members.any(1)}  # [T, D, C], [T, C]

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        logits = x @ state["weights"] * self.log_scale.exp()  # [T, Q, D] -> [T, Q, C]
        return logits.masked_fill(~state["present"][:, None], -torch.inf)


class RidgeNetwork(EmbeddingLearner):
    """The head on any encoder of ours."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder, RidgeHead())


class TestRidge(LearnerConformance):
    """``pytest examples/own_learner.py`` runs every conformance test on the learner."""

    n_features = 8
    input_shape = (8,)

    def make_learner(self) -> Learner:
        return RidgeNetwork(MLP((8,), (64, 32), activation=nn.Tanh))


class RidgeConfig(LearnerConfig):
    """The learner in recipes. A package would name this class in its entry point group
    ``quickstudy.learners``; a file like this one is found by its path."""

    family: ClassVar[Family] = "metric"
    kind: Literal["ridge"] = "ridge"

    def build(self, net: Encoder, *, n_way: int) -> Learner:
        del n_way  # any number of classes fits
        return RidgeNetwork(net)


RECIPE = Recipe(
    name="own-ridge",
    summary="Ridge regression on a small Conv-4, on characters drawn from fonts; needs no data",
    data=ImageData(name="glyphs", rotations=True),
    encoder=EncoderConfig(channels=32),
    learner=RidgeConfig(),
    train=TrainConfig(
        steps=300, n_way=20, validation=ValidationConfig(n_way=5, episodes=200, every=100)
    ),
)


def clusters(seed: int, split: str) -> PoolSource:
    """Return 60 classes of points around random centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(60, 1, 8, generator=generator)
    x = centres + 0.5 * torch.randn(60, 30, 8, generator=generator)
    y = torch.arange(60).repeat_interleave(30)
    return PoolSource(Pool(x.flatten(0, 1), y, tuple(map(str, range(60))), "clusters", split))


def main() -> None:
    learner = RidgeNetwork(MLP((8,), (64, 32), activation=nn.Tanh))
    config = TrainConfig(steps=200, tasks_per_step=8, n_way=5, k_shot=1, n_query=5)
    train(learner, clusters(0, "train"), config, validation=clusters(1, "val"))
    print(evaluate(learner, clusters(2, "test"), EpisodeSpec(5, 1)))


if __name__ == "__main__":
    main()

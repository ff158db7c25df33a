"""Write a learner of your own, train it, and prove that it keeps the contract.

python examples/own_learner.py        (a few seconds, needs no data)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core import EpisodeSpec, Examples, TaskState
from quickstudy.evaluation import evaluate
from quickstudy.learners import Learner
from quickstudy.tasks import Pool, PoolSource
from quickstudy.testing import LearnerConformance
from quickstudy.training import TrainConfig, train


class RidgeLearner(Learner):
    """Ridge regression on learned features, in closed form (Bertinetto et al. 2019, "R2D2")."""

    def __init__(self, inputs: int, features: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, features), nn.Tanh()
        )
        self.log_ridge = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        support.check_labels(n_way)
        mask = support.mask[..., None]
        z = self.encoder(support.x.flatten(2)) * mask  # [T, S, D]
        members = (support.y[..., None] == torch.arange(n_way, device=z.device)) & mask
        eye = torch.eye(z.shape[2], dtype=z.dtype, device=z.device)
        gram = z.transpose(1, 2) @ z + self.log_ridge.exp() * eye  # [T, D, D]
        weights = torch.linalg.solve(gram, z.transpose(1, 2) @ members.to(z.dtype))
        return {"weights": weights.contiguous(), "present": members.any(1)}  # [T, D, C], [T, C]

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        logits = self.encoder(x.flatten(2)) @ state["weights"] * self.log_scale.exp()
        return logits.masked_fill(~state["present"][:, None], -torch.inf)


class TestRidge(LearnerConformance):
    """``pytest examples/own_learner.py`` runs every conformance test on the learner."""

    n_features = 8
    input_shape = (8,)

    def make_learner(self) -> Learner:
        return RidgeLearner(8)


def clusters(seed: int, split: str) -> PoolSource:
    """Return 60 classes of points around random centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(60, 1, 8, generator=generator)
    x = centres + 0.5 * torch.randn(60, 30, 8, generator=generator)
    y = torch.arange(60).repeat_interleave(30)
    return PoolSource(Pool(x.flatten(0, 1), y, tuple(map(str, range(60))), "clusters", split))


def main() -> None:
    learner = RidgeLearner(8)
    config = TrainConfig(steps=200, tasks_per_step=8, n_way=5, k_shot=1, n_query=5)
    train(learner, clusters(0, "train"), config, validation=clusters(1, "val"))
    print(evaluate(learner, clusters(2, "test"), EpisodeSpec(5, 1)))


if __name__ == "__main__":
    main()

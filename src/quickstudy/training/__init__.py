"""Meta-training: one loop for every learner."""

from quickstudy.training.config import TrainConfig, ValidationConfig
from quickstudy.training.loop import TrainResult, choose_device, train
from quickstudy.training.roles import every_role

__all__ = [
    "TrainConfig",
    "TrainResult",
    "ValidationConfig",
    "choose_device",
    "every_role",
    "train",
]

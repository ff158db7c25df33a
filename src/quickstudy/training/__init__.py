"""Meta-training: one loop for every learner."""

from quickstudy.training.config import TrainConfig, ValidationConfig
from quickstudy.training.loop import (
    CHECKPOINT,
    TrainingInterrupted,
    TrainResult,
    check_folder,
    train,
)
from quickstudy.training.roles import every_role

__all__ = [
    "CHECKPOINT",
    "TrainConfig",
    "TrainResult",
    "TrainingInterrupted",
    "ValidationConfig",
    "check_folder",
    "every_role",
    "train",
]

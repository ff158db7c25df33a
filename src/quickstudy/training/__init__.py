"""Meta-training: one loop for every learner."""

from quickstudy.training.config import TrainConfig, ValidationConfig
from quickstudy.training.loop import (
    CHECKPOINT,
    MODEL,
    TrainingInterrupted,
    TrainResult,
    check_folder,
    train,
)
from quickstudy.training.overfitting import Curve, Overfitting, find_overfitting
from quickstudy.training.roles import every_role
from quickstudy.training.watcher import ProgressBar, Watcher

__all__ = [
    "CHECKPOINT",
    "MODEL",
    "Curve",
    "Overfitting",
    "ProgressBar",
    "TrainConfig",
    "TrainResult",
    "TrainingInterrupted",
    "ValidationConfig",
    "Watcher",
    "check_folder",
    "every_role",
    "find_overfitting",
    "train",
]

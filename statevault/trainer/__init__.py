"""Training procedures, run in turn by the training thread."""

from statevault.trainer.container import TrainersDict
from statevault.trainer.trainer import DataSource, SyncedModel, Trainer

__all__ = ["DataSource", "SyncedModel", "Trainer", "TrainersDict"]

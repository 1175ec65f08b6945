"""Batch experiments: several algorithms by several trials, checkpointed, interrupted, resumed and extended."""

from statevault.experiments.manager import CheckpointManager
from statevault.experiments.results import ExperimentResult, TrialResult

__all__ = ["CheckpointManager", "ExperimentResult", "TrialResult"]

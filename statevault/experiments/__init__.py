"""Batch experiments: several algorithms by several trials, checkpointed, interrupted, resumed and extended."""

from statevault.experiments.algorithm import Algorithm, InitializedAlgorithm
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.metrics import Metric, MetricsResult, compute_metrics
from statevault.experiments.results import ExperimentResult, TrialResult
from statevault.experiments.runner import resume_experiment, run_experiment

__all__ = [
    "Algorithm",
    "CheckpointManager",
    "ExperimentResult",
    "InitializedAlgorithm",
    "Metric",
    "MetricsResult",
    "TrialResult",
    "compute_metrics",
    "resume_experiment",
    "run_experiment",
]

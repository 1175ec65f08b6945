"""Experiments that are over, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from statevault.experiments.metrics import MetricsResult
from statevault.experiments.results import ExperimentResult, TrialResult

__all__ = ["experiment", "measured"]


def experiment(**trials_by_algorithm: Sequence[Any]) -> ExperimentResult:
    """An experiment whose trials' networks are the given values."""
    return ExperimentResult(
        "a problem",
        {
            name: [TrialResult(index, name, trial, 9, None, value) for trial, value in enumerate(values)]
            for index, (name, values) in enumerate(trials_by_algorithm.items())
        },
    )


def measured(metrics: Mapping[str, Mapping[str, Sequence[float | Sequence[float]]]]) -> MetricsResult:
    """Metrics of given values: ``metrics[metric][algorithm][trial]``."""
    values = {
        metric: {
            name: {
                trial: float(value) if isinstance(value, (float, int)) else np.array(value, dtype=np.float64)
                for trial, value in enumerate(of_trials)
            }
            for name, of_trials in algorithms.items()
        }
        for metric, algorithms in metrics.items()
    }
    first = next(iter(values.values()))
    return MetricsResult(values, {name: tuple(trials) for name, trials in first.items()})

"""What a finished trial, and a finished experiment, is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ExperimentResult", "TrialResult"]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One algorithm at the end of one trial.

    Attributes:
        alg_idx: The number of the algorithm in the experiment, from 0.
        alg_name: Its name.
        trial: The number of the trial, from 0.
        iteration: The last iteration that was completed, from 0.
        algorithm: The algorithm as it was then.
        network: The network that it worked on, as it was then.
    """

    alg_idx: int
    alg_name: str
    trial: int
    iteration: int
    algorithm: Any
    network: Any


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """All algorithms of which all trials are complete.

    Attributes:
        problem: What they were to solve.
        trials: By the algorithm's name, in the order of the experiment: its trials, in order.
    """

    problem: Any
    trials: dict[str, list[TrialResult]]

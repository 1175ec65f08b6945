"""Metrics: what is measured of each trial of an experiment, as a number or as a curve.

Invariants of a :class:`MetricsResult`: each metric has a value for each trial of each algorithm; a metric consists of
numbers only, or of curves only; the curves of one algorithm have one length, so that their mean is one over the same
trials everywhere. Not a number (nan) and infinite are values like others: a trial that diverged is a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from typing_extensions import TypeIs, override

from statevault.experiments.results import ExperimentResult, TrialResult

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Curve", "Metric", "MetricsResult", "compute_metrics"]

Curve: TypeAlias = "npt.NDArray[np.float64]"
"""One number for each iteration, shape ``(iterations,)``."""

Metric: TypeAlias = Callable[[TrialResult], "float | Sequence[float] | npt.NDArray[Any]"]
"""Measures a trial: a number, or one for each iteration."""


@dataclass(frozen=True, slots=True, eq=False)
class MetricsResult:
    """What was measured of each trial. Can be pickled; two are equal if their values are, nan to nan.

    Attributes:
        values: ``values[metric][algorithm][trial]``, all three in the order in which they were given: a float, or a
            curve, an array of shape ``(iterations,)`` and dtype float64. A trial is its number, from 0.
        trials: The numbers of the trials that were measured, by the algorithm's name. Metrics are out of date when an
            experiment has other trials than these.

    Raises:
        ValueError: There is no metric or no trial; a name is no text; a metric lacks a trial, or has one that is not in
            `trials`; numbers and curves are mixed, a curve is empty, or curves of one algorithm have different lengths.
    """

    values: dict[str, dict[str, dict[int, float | Curve]]]
    trials: dict[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        for text in (*self.values, *self.trials):
            if not isinstance(text, str):
                raise ValueError(f"metrics and algorithms have names of text, not {text!r}")
        if not self.values:
            raise ValueError("there is no metric: give at least one, as in {'loss': lambda trial: …}")
        if not self.trials:
            raise ValueError("there is no algorithm all of whose trials are complete, and so nothing to measure")
        for name, trials in self.trials.items():
            if not trials:
                raise ValueError(f"algorithm {name!r} has no trials")
        for metric, algorithms in self.values.items():
            if {name: tuple(trials) for name, trials in algorithms.items()} != self.trials:
                raise ValueError(
                    f"metric {metric!r} must have a value for each of these trials, and for no other: {self.trials}"
                )
            _check_shapes(metric, algorithms)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, in order."""
        return tuple(self.values)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The names of the algorithms, in order."""
        return tuple(self.trials)

    def is_curve(self, metric: str) -> bool:
        """Whether a metric consists of curves.

        Raises:
            KeyError: There is no metric of that name.
        """
        return not _is_number(next(iter(self.values[metric][self.algorithms[0]].values())))

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MetricsResult):
            return NotImplemented
        if self.trials != other.trials or self.values.keys() != other.values.keys():
            return False
        import numpy as np  # noqa: PLC0415 - heavy; whoever computes metrics has it already

        return all(
            np.array_equal(value, other.values[metric][name][trial], equal_nan=True)
            for metric, algorithms in self.values.items()
            for name, trials in algorithms.items()
            for trial, value in trials.items()
        )

    __hash__ = None  # type: ignore[assignment]  # it holds dictionaries and arrays


def compute_metrics(result: ExperimentResult, metrics: Mapping[str, Metric]) -> MetricsResult:
    """Measure each trial of an experiment.

    Args:
        result: The experiment; each algorithm has as many trials as were completed.
        metrics: By its name, a function of a trial (:class:`~statevault.experiments.results.TrialResult`). It returns a
            number, or one number for each iteration. Booleans count as 0 and 1, so that their mean is a rate.

    Returns:
        The values, as floats and arrays of float64.

    Raises:
        TypeError: A function returned something else than numbers; the message names the metric and the trial.
        ValueError: There is nothing to measure, or what was measured does not go together; see :class:`MetricsResult`.
        Exception: What a function raised, with a note that names the metric and the trial.
    """
    values = {
        name: {
            algorithm: {trial.trial: _measured(name, metric, trial) for trial in trials}
            for algorithm, trials in result.trials.items()
        }
        for name, metric in metrics.items()
    }
    trials = {name: tuple(trial.trial for trial in trials) for name, trials in result.trials.items()}
    return MetricsResult(values, trials)


def _measured(name: str, metric: Metric, trial: TrialResult) -> float | Curve:
    where = f"metric {name!r} of algorithm {trial.alg_name!r}, trial {trial.trial}"
    try:
        value = metric(trial)
        if isinstance(value, (float, int)):
            return float(value)
    except Exception as error:
        error.add_note(f"while computing {where}")
        raise
    import numpy as np  # noqa: PLC0415 - heavy, and not needed for plain numbers

    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        # What torch says of tensors on a GPU, or that need gradients, is the best remedy there is.
        raise TypeError(f"{where} is not a number or a sequence of numbers: {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        shown = f"an array of shape {array.shape}" if array.ndim > 1 else _shortened(repr(value))
        raise TypeError(f"{where} must be a number, or a sequence with a number for each iteration, but is {shown}")
    # A copy: an algorithm that goes on writing to its history does not change what was measured.
    return float(array) if array.ndim == 0 else np.array(array, dtype=np.float64)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _is_number(value: float | Curve) -> TypeIs[float]:
    return isinstance(value, (float, int))


def _check_shapes(metric: str, algorithms: Mapping[str, Mapping[int, float | Curve]]) -> None:
    """Refuse values of one metric that do not go together."""
    is_number: dict[bool, str] = {}
    for name, trials in algorithms.items():
        lengths: dict[int, int] = {}
        for trial, value in trials.items():
            is_number.setdefault(_is_number(value), f"algorithm {name!r}, trial {trial}")
            if not _is_number(value):
                lengths.setdefault(len(value), trial)
        if 0 in lengths:
            raise ValueError(f"metric {metric!r} of algorithm {name!r}, trial {lengths[0]} is an empty curve")
        if len(lengths) > 1:
            (one, first), (other, second), *_ = lengths.items()
            raise ValueError(
                f"metric {metric!r} of algorithm {name!r} has {one} numbers in trial {first}, but {other} in trial "
                f"{second}: let the shorter curve repeat its last number, or end in nan, so that a mean is one over "
                "all trials"
            )
    if len(is_number) > 1:
        raise ValueError(
            f"metric {metric!r} is a number in {is_number[True]}, but a curve in {is_number[False]}: "
            "give numbers and curves names of their own"
        )

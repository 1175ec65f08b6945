"""What a report says of each metric: a mean for each algorithm, and which is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report.intervals import MeanInterval, mean_interval

__all__ = ["Better", "MetricSummary", "summarize"]

Better: TypeAlias = Mapping[str, Literal["min", "max"]]
"""Whether low or high values of a metric are good, by the metric's name. The best are marked of those that it names."""


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """A metric, over the trials of each algorithm.

    Attributes:
        metric: Its name.
        of_curve: Whether it consists of curves. What is summarized is then the last value of each.
        better: Whether low or high values are good; None if that was not said.
        intervals: By the algorithm's name, in order: the mean over its trials.
        best: The algorithms with the best mean, several if they are equal; none where `better` is None or there is only
            one algorithm. A mean that is nan, or infinitely bad, is never the best.
    """

    metric: str
    of_curve: bool
    better: Literal["min", "max"] | None
    intervals: dict[str, MeanInterval]
    best: frozenset[str]


def summarize(result: MetricsResult, *, better: Better | None = None) -> list[MetricSummary]:
    """Summarize all metrics, in order.

    Args:
        result: What was measured.
        better: Which direction is good, for the metrics for which that is known.

    Raises:
        ValueError: `better` names a metric that is not there, or says something else than ``"min"`` or ``"max"``.
    """
    better = better or {}
    for metric, direction in better.items():
        if metric not in result.values:
            raise ValueError(
                f"better= names metric {metric!r}, but there is only {', '.join(map(repr, result.metrics))}"
            )
        if direction not in {"min", "max"}:
            raise ValueError(f"better= must say 'min' or 'max' of metric {metric!r}, not {direction!r}")
    return [_summary(result, metric, better.get(metric)) for metric in result.metrics]


def _summary(result: MetricsResult, metric: str, better: Literal["min", "max"] | None) -> MetricSummary:
    of_curve = result.is_curve(metric)
    intervals = {
        name: mean_interval([_last(value) for value in trials.values()])
        for name, trials in result.values[metric].items()
    }
    worst = math.inf if better == "min" else -math.inf
    means = [
        interval.mean for interval in intervals.values() if not math.isnan(interval.mean) and interval.mean != worst
    ]
    if better is None or len(intervals) < 2 or not means:
        return MetricSummary(metric, of_curve, better, intervals, frozenset())
    top = min(means) if better == "min" else max(means)
    best = frozenset(name for name, interval in intervals.items() if interval.mean == top)
    return MetricSummary(metric, of_curve, better, intervals, best)


def _last(value: object) -> float:
    return float(value) if isinstance(value, (float, int)) else float(value[-1])  # type: ignore[index]

"""Statistics of how long steps take, in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["TickStatistics"]


@dataclass(slots=True)
class TickStatistics:
    """Mean, spread and extremes of durations, by Welford's method (Technometrics 4(3), 1962).

    Attributes:
        count: How many durations were added.
        mean_s: Their mean, in seconds; 0 without any.
        min_s: The shortest; infinite without any.
        max_s: The longest; 0 without any.
    """

    count: int = 0
    mean_s: float = 0.0
    min_s: float = math.inf
    max_s: float = 0.0
    _squares: float = 0.0

    def add(self, duration_s: float) -> None:
        """Take a duration into account."""
        self.count += 1
        delta = duration_s - self.mean_s
        self.mean_s += delta / self.count
        self._squares += delta * (duration_s - self.mean_s)
        self.min_s = min(self.min_s, duration_s)
        self.max_s = max(self.max_s, duration_s)

    @property
    def stdev_s(self) -> float:
        """The sample standard deviation in seconds; 0 for fewer than two durations, which have none."""
        return math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else 0.0

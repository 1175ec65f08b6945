"""Means over few trials, with their confidence intervals.

Of so few values that Student's t distribution matters. Its quantiles come from the finite sums that its distribution
function has for whole degrees of freedom: M. Abramowitz, I. A. Stegun, *Handbook of Mathematical Functions* (1964),
formulas 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["MeanInterval", "mean_interval", "t_quantile"]

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """The mean of independent trials.

    Attributes:
        mean: The arithmetic mean; nan or infinite where a trial is.
        half_width: Half the width of the 95 % confidence interval of the mean, which is symmetric; nan where it is not
            known: for a single trial, or where the mean is not finite.
        n: How many trials.
    """

    mean: float
    half_width: float
    n: int


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """The mean of some values and its 95 % confidence interval, as for a normal distribution of unknown variance.

    Args:
        values: At least one; nan and infinite are values like others.

    Raises:
        ValueError: There are none.
    """
    n = len(values)
    if not n:
        raise ValueError("a mean takes at least one value")
    if not all(map(math.isfinite, values)):
        return MeanInterval(sum(values), math.nan, n)  # nan, or infinite, as the mean is
    # In units of a power of two, so that no square overflows; and above the lowest one, so that equal values have a
    # width of exactly zero. The sums are exact: the order of the trials makes no difference.
    unit = math.ldexp(1.0, math.frexp(max(map(abs, values)))[1] - 1)
    lowest = min(values) / unit
    above = [value / unit - lowest for value in values]
    mean_above = math.fsum(above) / n
    mean = (lowest + mean_above) * unit
    if n == 1:
        return MeanInterval(mean, math.nan, n)
    variance = math.fsum((value - mean_above) ** 2 for value in above) / (n - 1)
    return MeanInterval(mean, t_quantile(n - 1) * math.sqrt(variance / n) * unit, n)


@lru_cache
def t_quantile(degrees: int) -> float:
    """What a value of Student's t distribution stays below, in absolute terms, with a probability of 95 %.

    Args:
        degrees: Degrees of freedom, at least 1.

    Raises:
        ValueError: `degrees` is less than 1.
    """
    if degrees < 1:
        raise ValueError(f"degrees of freedom must be at least 1, not {degrees}")
    # With t = sqrt(degrees) * tan(angle), the probability rises with the angle from 0 to 1.
    low, high = 0.0, math.pi / 2
    while True:
        angle = (low + high) / 2
        if angle in {low, high}:
            return math.sqrt(degrees) * math.tan(angle)
        if _probability(angle, degrees) < _CONFIDENCE:
            low = angle
        else:
            high = angle


def _probability(angle: float, degrees: int) -> float:
    """The probability of a value below ``sqrt(degrees) * tan(angle)`` in absolute terms."""
    cosine = math.cos(angle)
    is_odd = degrees % 2
    term = cosine if is_odd else 1.0
    terms = []
    for power in range(1 + is_odd, degrees, 2):
        terms.append(term)
        term *= cosine * cosine * power / (power + 1)
    total = math.sin(angle) * math.fsum(terms)
    return 2 / math.pi * (angle + total) if is_odd else total

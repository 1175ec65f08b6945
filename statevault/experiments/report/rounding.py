"""Numbers as people write them: no more digits than the interval supports, powers of ten only where they help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from statevault.experiments.report.intervals import MeanInterval

__all__ = ["Rounded", "rounded"]

_DIGITS_OF_HALF_WIDTH = 2
_DIGITS_ALONE = 4
_MOST_DIGITS = 7
_PLAIN = range(-4, 6)  # from 0.0001 to 999999 without a power of ten


@dataclass(frozen=True, slots=True)
class Rounded:
    """A mean and its half-width, both in units of one power of ten.

    Attributes:
        mean: As text: ``"1.23"``, ``"nan"``, ``"-inf"``.
        half_width: As text; empty where it is not known.
        exponent: Of the power of ten; 0 for none.
        half_exponent: Of a further power of ten, of the half-width alone; 0 for none. It is needed where the mean would
            need more digits than anybody reads.
    """

    mean: str
    half_width: str = ""
    exponent: int = 0
    half_exponent: int = 0


def rounded(interval: MeanInterval) -> Rounded:
    """Round a half-width to two digits, and its mean to the same place.

    Nothing is rounded beyond whole numbers (``12345 ± 678``), and a mean has seven digits at most; four, where there is
    no half-width.
    """
    if not math.isfinite(interval.mean):
        return Rounded(str(interval.mean))
    mean = Decimal(repr(interval.mean))
    has_width = math.isfinite(interval.half_width)
    half = Decimal(repr(interval.half_width)) if has_width else Decimal(0)
    largest = max(abs(mean), half)
    if not largest:
        return Rounded("0", "0" if has_width else "")
    exponent = largest.adjusted()
    if exponent in _PLAIN:
        exponent = 0
    mean, half = mean.scaleb(-exponent), half.scaleb(-exponent)
    if not half:
        digits = _MOST_DIGITS if has_width else _DIGITS_ALONE
        shown = _plain(mean, Decimal(1).scaleb(min(0, mean.adjusted() - digits + 1)))
        return Rounded(shown.rstrip("0").rstrip(".") if "." in shown else shown, "0" if has_width else "", exponent)
    place = min(0, half.adjusted() - _DIGITS_OF_HALF_WIDTH + 1)
    coarsest = (mean.adjusted() if mean else place) - _MOST_DIGITS + 1
    if place >= coarsest:
        return Rounded(_plain(mean, Decimal(1).scaleb(place)), _plain(half, Decimal(1).scaleb(place)), exponent)
    own = half.adjusted()
    return Rounded(
        _plain(mean, Decimal(1).scaleb(min(0, coarsest))), _plain(half.scaleb(-own), Decimal("0.1")), exponent, own
    )


def _plain(value: Decimal, place: Decimal) -> str:
    text = f"{value.quantize(place):f}"
    return text.removeprefix("-") if not value.quantize(place) else text

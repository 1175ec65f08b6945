"""Numbers as people write them."""

from __future__ import annotations

import math
import random

import pytest

from statevault.experiments.report.intervals import MeanInterval
from statevault.experiments.report.rounding import Rounded, rounded


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (0.0123456, 0.000512, Rounded("0.01235", "0.00051")),
        (66.04, 5.87, Rounded("66.0", "5.9")),
        (12345.6, 678.9, Rounded("12346", "679")),
        (1234567.0, 1300.0, Rounded("1.2346", "0.0013", 6)),
        (1.23456e-5, 4.1e-7, Rounded("1.235", "0.041", -5)),
        (-1.5e-9, 2e-8, Rounded("-0.2", "2.0", -8)),
        (-0.0001, 0.3, Rounded("0.00", "0.30")),
        (0.0, 0.3, Rounded("0.00", "0.30")),
        (1e-320, 1e-321, Rounded("1.00", "0.10", -320)),
    ],
)
def test_a_mean_is_rounded_to_the_second_digit_of_its_half_width(
    mean: float, half_width: float, expected: Rounded
) -> None:
    assert rounded(MeanInterval(mean, half_width, 5)) == expected


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (1.23456789, 1e-12, Rounded("1.234568", "1.0", 0, -12)),
        (123456.789, 2.5e-9, Rounded("123456.8", "2.5", 0, -9)),
        (1e300, 1e280, Rounded("1.000000", "1.0", 300, -20)),
    ],
)
def test_a_mean_has_seven_digits_at_most(mean: float, half_width: float, expected: Rounded) -> None:
    assert rounded(MeanInterval(mean, half_width, 5)) == expected


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (1 / 3, math.nan, Rounded("0.3333")),
        (100.0, math.nan, Rounded("100")),
        (1e-9, math.nan, Rounded("1", "", -9)),
        (1e308, math.inf, Rounded("1", "", 308)),
        (2.0, 0.0, Rounded("2", "0")),
        (1 / 3, 0.0, Rounded("0.3333333", "0")),
        (0.0, 0.0, Rounded("0", "0")),
        (0.0, math.nan, Rounded("0")),
        (math.nan, math.nan, Rounded("nan")),
        (-math.inf, math.nan, Rounded("-inf")),
    ],
)
def test_what_has_no_width_is_shown_without(mean: float, half_width: float, expected: Rounded) -> None:
    assert rounded(MeanInterval(mean, half_width, 2)) == expected


def test_what_is_shown_is_the_number_up_to_half_of_its_last_place() -> None:
    generator = random.Random(3)
    for _ in range(2000):
        mean = generator.choice([-1, 1]) * 10 ** generator.uniform(-30, 30)
        half_width = abs(mean) * 10 ** generator.uniform(-12, 6)
        shown = rounded(MeanInterval(mean, half_width, 5))
        unit = 10.0**shown.exponent
        place = 10.0 ** -len(shown.mean.partition(".")[2])
        assert abs(float(shown.mean) * unit - mean) <= 0.5001 * place * unit
        half_place = 10.0 ** (shown.half_exponent - len(shown.half_width.partition(".")[2]))
        assert (
            abs(float(shown.half_width) * 10.0**shown.half_exponent * unit - half_width) <= 0.5001 * half_place * unit
        )
        assert len(shown.mean.removeprefix("-").replace(".", "").lstrip("0")) <= 8

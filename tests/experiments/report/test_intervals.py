"""Means and their confidence intervals, against an independent computation and published values."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from statevault.experiments.report.intervals import mean_interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    # The columns for 0.975 of the tables in every textbook.
    [
        *((1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (19, 2.093), (29, 2.045)),
        *((60, 2.000), (120, 1.980), (10_000, 1.960)),
    ],
)
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert round(t_quantile(degrees), 3) == quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 8, 30, 31, 99, 500])
def test_the_density_below_a_quantile_integrates_to_its_probability(degrees: int) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    top = t_quantile(degrees)
    at = top * (nodes + 1) / 2
    log_constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    density = np.exp(log_constant - (degrees + 1) / 2 * np.log1p(at**2 / degrees))
    assert 2 * float(weights @ density) * top / 2 == pytest.approx(0.95, abs=1e-10)


def test_quantiles_fall_towards_the_normal_distribution() -> None:
    quantiles = [t_quantile(degrees) for degrees in range(1, 300)]
    assert quantiles == sorted(quantiles, reverse=True)
    assert quantiles[-1] > statistics.NormalDist().inv_cdf(0.975)
    assert t_quantile(20_000) == pytest.approx(statistics.NormalDist().inv_cdf(0.975), abs=2e-4)


def test_there_is_no_quantile_without_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        t_quantile(0)


def test_mean_and_half_width_are_those_of_the_definition() -> None:
    values = [2.1, 2.5, 1.9, 2.2, 2.8]
    interval = mean_interval(values)
    assert interval.n == 5
    assert interval.mean == pytest.approx(2.3)
    assert interval.half_width == pytest.approx(2.776445 * statistics.stdev(values) / math.sqrt(5), rel=1e-6)


def test_the_interval_holds_the_true_mean_of_95_in_100_experiments() -> None:
    generator = np.random.default_rng(1)
    intervals = [mean_interval(generator.normal(3, 2, size=4).tolist()) for _ in range(4000)]
    held = sum(abs(interval.mean - 3) <= interval.half_width for interval in intervals)
    # Of a binomial distribution: four standard deviations.
    assert abs(held / 4000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_the_order_of_trials_makes_no_difference() -> None:
    generator = random.Random(2)
    values = [generator.gauss(0, 10.0 ** generator.randint(-8, 8)) for _ in range(40)]
    intervals = {mean_interval(generator.sample(values, len(values))) for _ in range(20)}
    assert len(intervals) == 1


@pytest.mark.parametrize("value", [0.1, -1 / 3, 0.0, 5e-324, 1.7e308, 1e16 + 2])
@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_equal_values_have_a_width_of_exactly_zero(value: float, n: int) -> None:
    interval = mean_interval([value] * n)
    assert interval.mean == value
    assert interval.half_width == 0.0


def test_the_largest_and_the_smallest_floats_have_means() -> None:
    large = mean_interval([1.7e308, 1.7e308, 1.6e308])
    assert large.mean == pytest.approx(1.6666666666666666e308, rel=1e-12)
    assert large.half_width == pytest.approx(mean_interval([1.7, 1.7, 1.6]).half_width * 1e308)
    assert mean_interval([1e-310, 3e-310]).mean == pytest.approx(2e-310)


def test_a_single_trial_has_no_interval() -> None:
    interval = mean_interval([3.5])
    assert interval.mean == 3.5
    assert math.isnan(interval.half_width)


def test_no_trial_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        *(([1.0, math.nan], math.nan), ([1.0, math.inf], math.inf), ([-math.inf, 1.0], -math.inf)),
        *(([math.inf, -math.inf], math.nan), ([math.nan, math.inf], math.nan)),
    ],
    ids=str,
)
def test_a_trial_that_diverged_shows_in_the_mean(values: list[float], mean: float) -> None:
    interval = mean_interval(values)
    assert interval.mean == mean or (math.isnan(mean) and math.isnan(interval.mean))
    assert math.isnan(interval.half_width)

"""Taking figures: several rounds, we and the peer in turn, so that a drift of the machine meets both alike."""

from __future__ import annotations

import enum
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

__all__ = ["Effort", "Spread", "in_child", "interleaved", "quantile", "seconds_of", "seconds_per_call"]

T = TypeVar("T")
R = TypeVar("R")


class Effort(enum.Enum):
    """How large and how long the measurements are."""

    FULL = "full"
    QUICK = "quick"
    SMOKE = "smoke"

    def pick(self, full: T, quick: T, smoke: T) -> T:
        """Return the one of three sizes that belongs to the effort."""
        return {Effort.FULL: full, Effort.QUICK: quick, Effort.SMOKE: smoke}[self]


@dataclass(frozen=True, slots=True)
class Spread:
    """What several rounds measured.

    Attributes:
        median: The figure that stands in the tables.
        low: The smallest one.
        high: The largest one.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the spread of the figures of all rounds, at least one."""
        figures = list(values)
        return cls(statistics.median(figures), min(figures), max(figures))

    def map(self, function: Callable[[float], float]) -> Spread:
        """Return the spread in another unit; the function may turn small into large."""
        return Spread.of([function(self.median), function(self.low), function(self.high)])


def seconds_of(action: Callable[[], Any]) -> float:
    """Return the seconds that one call takes, without the collector of garbage in its midst."""
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        action()
        return time.perf_counter() - began
    finally:
        gc.enable()


def interleaved(actions: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Spread]:
    """Run measurements in turn.

    Args:
        actions: Measurements by name, each of which returns its figure.
        rounds: How often each of them runs, after one round that does not count.

    Returns:
        The spread of the figures by name.
    """
    figures: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            figure = action()
            if number:
                figures[name].append(figure)
    return {name: Spread.of(values) for name, values in figures.items()}


def seconds_per_call(action: Callable[[int], Any], calls: int) -> Callable[[], float]:
    """Return a measurement of an action that does its thing as often as it is told.

    Args:
        action: Called with ``calls``.
        calls: How often it is to do its thing in one round.

    Returns:
        A measurement for :func:`interleaved`: the seconds of one time.
    """
    return lambda: seconds_of(lambda: action(calls)) / calls


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least a share of all values does not exceed (the nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(share * len(ordered) + 0.999999) - 1))]


def in_child(function: Callable[..., R], *args: Any) -> R:
    """Return what a function of a module returns when it is called in a new process, whose memory is its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()

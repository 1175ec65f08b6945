"""Waiting between steps, so that they begin at a fixed interval."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod

from typing_extensions import override

from statevault import time

__all__ = ["IntervalAdjustor", "SleepIntervalAdjustor"]

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_WARNINGS = 60.0


class IntervalAdjustor(ABC):
    """Keeps a loop on a grid of deadlines, which lie one interval apart.

    Each deadline derives from the one before, not from when the loop woke up, so that errors do not add up. A
    step that takes too long is an *overrun*: the next step begins at once, deadlines that have passed are
    dropped rather than made up for by a burst of steps, and the grid stays where it was.

    Attributes:
        interval: Agent seconds between two deadlines.
        offset: How many agent seconds before its deadline a wait ends.
        overruns: How many deadlines were missed because steps took too long.
    """

    def __init__(self, interval: float, offset: float = 0.0) -> None:
        """Make an adjustor; its grid begins now.

        Args:
            interval: Agent seconds between the beginnings of two steps.
            offset: How much earlier each wait ends, in agent seconds, to make up for known delays.

        Raises:
            ValueError: `interval` is not positive, or `offset` is not finite.
        """
        if not (math.isfinite(interval) and interval > 0):
            raise ValueError(f"an interval is a positive number of seconds, not {interval!r}")
        if not math.isfinite(offset):
            raise ValueError(f"an offset is a finite number of seconds, not {offset!r}")
        self.interval = interval
        self.offset = offset
        self.overruns = 0
        self._unreported = 0
        self._worst_s = 0.0
        self._warned_at = -math.inf
        self._excused = False
        self._previous = self._deadline = 0.0
        self.reset()

    @property
    def deadline(self) -> float:
        """When the current wait ends, on :func:`statevault.time.perf_counter`, in agent seconds."""
        return self._deadline - self.offset

    def reset(self) -> float:
        """Begin a new grid now.

        Returns:
            The present reading of :func:`statevault.time.perf_counter`, in agent seconds.
        """
        self._previous = time.perf_counter()
        self._deadline = self._previous + self.interval
        self._excused = False
        return self._previous

    def excuse(self) -> None:
        """Do not take the next missed deadline for an overrun: the loop was held up from outside."""
        self._excused = True

    def adjust(self) -> float:
        """Wait for the deadline.

        Returns:
            Agent seconds since the last call, or since :meth:`reset`.
        """
        if time.perf_counter() < self._previous:
            # A loaded state has set the clock back: the old deadlines may lie days ahead.
            self.reset()
        late_s = time.perf_counter() - self._deadline
        if late_s <= 0:
            self.adjust_impl()
        else:
            # The deadlines that have passed meanwhile are dropped, the next one is on the old grid.
            passed = math.floor(late_s / self.interval)
            self._deadline += passed * self.interval
            if not self._excused:
                self._report(1 + passed, late_s)
        self._excused = False
        self._deadline += self.interval
        now = time.perf_counter()
        elapsed, self._previous = now - self._previous, now
        return elapsed

    @abstractmethod
    def adjust_impl(self) -> None:
        """Wait until :attr:`deadline`, which lies ahead."""

    def _report(self, missed: int, late_s: float) -> None:
        self.overruns += missed
        self._unreported += missed
        self._worst_s = max(self._worst_s, late_s)
        now = time.fixed_time()
        # At most one line a minute: a loop that is always late would else fill the log.
        if abs(now - self._warned_at) >= _SECONDS_BETWEEN_WARNINGS:
            _logger.warning(
                "steps exceed their interval of %g s: missed %d deadlines (%d in all), by up to %.2g s",
                self.interval,
                self._unreported,
                self.overruns,
                self._worst_s,
            )
            self._warned_at, self._unreported, self._worst_s = now, 0, 0.0


class SleepIntervalAdjustor(IntervalAdjustor):
    """Waits by sleeping on the agent's clock."""

    @override
    def adjust_impl(self) -> None:
        """Sleep until the deadline."""
        time.sleep(max(0.0, self.deadline - time.perf_counter()))

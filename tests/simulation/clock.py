"""Time in a simulation: the backend's clock, and those of the processes, which are off and jump."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, tzinfo

from tests.simulation.scheduler import Process, Scheduler

__all__ = ["BEGINNING", "Clock", "SimulatedDatetime", "SimulatedTime"]

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
_NEVER_FOR_DAYS = (("put", "_vault/commits/"), ("put", "_vault/tombstones/"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """True time, which is the backend's, and what a process makes of it.

    Args:
        scheduler: Knows whose turn it is.
        source: Of how long a step takes, and of jumps.

    Attributes:
        now_s: Seconds since the simulation began.
        skews: How often a process's clock is set to something wrong, at a step.
        is_calm: Whether time just passes.
    """

    def __init__(self, scheduler: Scheduler, source: random.Random) -> None:
        self._scheduler = scheduler
        self._source = source
        self._jumps = source.choice((0.0, 0.0, 0.0, 0.0, 0.005, 0.02, 0.08))
        self.skews = source.choice((0.0, 0.0, 0.02))
        self.is_calm = True
        self.now_s = 0.0
        self._told: dict[int, int] = {}

    @property
    def now(self) -> datetime:
        """The backend's clock."""
        return BEGINNING + timedelta(seconds=self.now_s)

    def step(self) -> None:
        """Let the time of one step pass; now and then much more, or a process's clock is set anew."""
        self.now_s += self._source.random() * 0.1
        if self.is_calm:
            return
        if self._jumps and self._source.random() < self._jumps:
            jump_s = self._source.choice((60.0, 3600.0, 25 * 3600.0, 9 * 86400.0))
            if jump_s > 3600:
                # What the protocol assumes of time: a put lands within days, and a process does not stand still for
                # days between the look at its clock and the put of a marker or a tombstone.
                if self._scheduler.busy_with(*_NEVER_FOR_DAYS):
                    return
                self._scheduler.land_all()
            self.now_s += jump_s
            self._scheduler.note(f"{jump_s / 3600:.2f} hours pass", who="(clock)")
        if self.skews and self._scheduler.current is None and self._source.random() < self.skews:
            for process in self._scheduler.living():
                if self._source.random() < 0.5:
                    self.set_clock(process)

    def set_clock(self, process: Process) -> None:
        """Set a process's clock to something wrong: by seconds, by days, or as a device without a clock has it."""
        unset = (_EPOCH - self.now).total_seconds()
        process.skew_s = self._source.choice((0.0, -5.0, 5.0, -2 * 86400.0, 2 * 86400.0, 30 * 86400.0, unset))
        self._scheduler.note(f"its clock is off by {process.skew_s:.0f} s", who=process.name)

    def local(self) -> datetime:
        """The clock of the process whose turn it is. Never the same twice, nor that of another process.

        Names are made of it, and two processes that make the same name at the same microsecond are outside of what the
        protocol promises where a backend has no create-only put.
        """
        task = self._scheduler.current
        assert task is not None
        told = self._told[task.process.index] = self._told.get(task.process.index, 0) + 1
        at = self.now + timedelta(seconds=task.process.skew_s)
        return at.replace(microsecond=0) + timedelta(microseconds=task.process.index * 10_000 + told)


class SimulatedDatetime(datetime):
    """Takes the place of :class:`~datetime.datetime` in the modules under test."""

    clock: Clock

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return cls.clock.local()


class SimulatedTime:
    """Takes the place of the module :mod:`time` in the modules under test. These clocks are never set."""

    CLOCK_BOOTTIME = 0
    clock: Clock

    def clock_gettime(self, clock: int) -> float:
        return self.clock.now_s

    def monotonic(self) -> float:
        return self.clock.now_s

    def perf_counter(self) -> float:
        return self.clock.now_s

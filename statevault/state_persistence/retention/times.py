"""Retention by age and by calendar, on clocks that jump: both take the time of a state from :meth:`Holdings.dated`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from itertools import islice

from statevault.state_persistence.retention.holdings import DatedState, Holdings
from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["KeepPeriodic", "KeepWithin"]


@dataclass(frozen=True, slots=True)
class KeepWithin:
    """Keeps the states that are not too old, and those whose age is unknown since their clock was ahead of now.

    Attributes:
        max_age: How old a state may be.

    Raises:
        TypeError: `max_age` is not a :class:`~datetime.timedelta`.
        ValueError: `max_age` is not positive.
    """

    max_age: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.max_age, timedelta):
            raise TypeError(f"max_age must be a timedelta, as in timedelta(days=7), not {self.max_age!r}")
        if self.max_age <= timedelta():
            raise ValueError(f"max_age must be positive, not {self.max_age}")

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep those of at most `max_age`."""
        reason = f"not older than {self.max_age}".removesuffix(", 0:00:00")
        recent = (dated.state for dated in holdings.dated() if holdings.now - dated.time <= self.max_age)
        return _ahead(holdings) | {state.name: reason for state in recent}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPeriodic:
    """Keeps the newest state of each of the last hours, days, weeks, months and years (UTC; ISO weeks).

    Periods without a state do not count: ``daily=7`` keeps the last seven days on which something was saved, however
    long ago that is (as restic's ``--keep-daily`` does). States whose clock was ahead of now are in no period, and
    kept.

    When the clock of a period's newest state was behind, the earlier one that dates it is kept as well: without it,
    the state would fall into an older period at the next time, and push out another one there.

    Attributes:
        hourly: How many hours.
        daily: How many days.
        weekly: How many weeks.
        monthly: How many months.
        yearly: How many years.

    Raises:
        TypeError: One is not an integer.
        ValueError: One is negative, or all are 0.
    """

    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def __post_init__(self) -> None:
        for argument in ("hourly", "daily", "weekly", "monthly", "yearly"):
            object.__setattr__(self, argument, whole_number(argument, getattr(self, argument), minimum=0))
        if not self._periods():
            raise ValueError("one of hourly, daily, weekly, monthly and yearly must be at least 1")

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep the newest of each period."""
        newest_first = holdings.dated()[::-1]
        periods: dict[DatedState, list[str]] = defaultdict(list)
        for unit, layout, count in self._periods():
            newest: dict[str, DatedState] = {}
            for dated in newest_first:
                newest.setdefault(f"{dated.time:{layout}}", dated)
            for period, dated in islice(newest.items(), min(count, len(newest))):
                periods[dated].append(f"{unit} {period}")
        return (
            _ahead(holdings)
            | {by.name: f"dates {state.name}, whose clock was behind" for state, by in periods if by is not state}
            | {dated.state.name: f"newest of the {' and the '.join(names)}" for dated, names in periods.items()}
        )

    def _periods(self) -> tuple[tuple[str, str, int], ...]:
        """Of each kind of period that is wanted: its unit, the layout of its name, and how many."""
        periods = (
            ("hour", "%Y-%m-%d %H:00", self.hourly),
            ("day", "%Y-%m-%d", self.daily),
            ("week", "%G-W%V", self.weekly),
            ("month", "%Y-%m", self.monthly),
            ("year", "%Y", self.yearly),
        )
        return tuple(period for period in periods if period[2])


def _ahead(holdings: Holdings) -> dict[str, str]:
    said = {state.name: state.created_at.astimezone(UTC) for state in holdings.ahead()}
    return {
        name: f"its age is unknown: its clock said {time:%Y-%m-%d %H:%M} UTC, which is yet to come"
        for name, time in said.items()
    }

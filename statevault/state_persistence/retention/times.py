"""Retention by age and by calendar, on clocks that jump: both take the time of a state from :meth:`Holdings.dated`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from statevault.format.records import in_utc
from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.retention.holdings import DatedState, Holdings
from statevault.state_persistence.retention.policies import CannotJudge, RetentionPolicy, Verdict
from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["KeepPeriodic", "KeepWithin"]


@dataclass(frozen=True, slots=True)
class KeepWithin:
    """Keeps the states that are not too old, and those whose age is unknown (:class:`Verdict`).

    The age is unknown where the clock was ahead of now, or was not set (1970). A state of the second kind goes when a
    later one is too old.

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
        unset = {state.name: _not_set(state) for state in holdings.unset()}
        kept: dict[str, str] = {}
        unknown: dict[str, str] = {}
        for state, by in holdings.dated():
            if holdings.now - by.created_at <= self.max_age:
                kept[state.name] = reason
            elif state.name in unset:
                unknown[state.name] = unset[state.name]
            else:
                unknown.clear()  # those before this one are older
        return _verdict(self, holdings, kept, _ahead(holdings) | unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPeriodic:
    """Keeps the newest state of each of the last hours, days, weeks, months and years (UTC; ISO weeks).

    Periods without a state do not count: ``daily=7`` keeps the last seven days on which something was saved, however
    long ago that is (as restic's ``--keep-daily`` does).

    States whose clock was ahead of now are in no period, and kept (:class:`Verdict`). So are those whose clock was not
    set (1970), unless a newer one lies in the same period, or enough other periods come after them.

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
        unset = {state.name: _not_set(state) for state in holdings.unset()}
        unjudged = _ahead(holdings)
        periods: dict[DatedState, list[str]] = defaultdict(list)
        for unit, layout, count in self._periods():
            newest: dict[str, DatedState] = {}
            for dated in newest_first:
                period = f"{dated.time:{layout}}"
                if dated.state.name not in unset:
                    newest.setdefault(period, dated)
                elif len(newest) < count and period not in newest:
                    # It may be the newest of its period, and that one of the last: no later state says otherwise.
                    unjudged[dated.state.name] = unset[dated.state.name]
            for period, dated in islice(newest.items(), min(count, len(newest))):
                periods[dated].append(f"{unit} {period}")
        kept = {by.name: f"dates {state.name}, whose clock was behind" for state, by in periods if by is not state}
        kept |= {dated.state.name: f"newest of the {' and the '.join(names)}" for dated, names in periods.items()}
        return _verdict(self, holdings, kept, unjudged)

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
    return {state.name: f"{_unknown_age(state)}, which is yet to come" for state in holdings.ahead()}


def _not_set(state: StateInfo) -> str:
    return f"{_unknown_age(state)}, since it was not set"


def _unknown_age(state: StateInfo) -> str:
    return f"its age is unknown: its clock said {in_utc(state.created_at):%Y-%m-%d %H:%M} UTC"


def _verdict(
    policy: RetentionPolicy, holdings: Holdings, kept: Mapping[str, str], unjudged: Mapping[str, str]
) -> Verdict:
    """What is kept, and what has an unknown age; a problem to report where that is all of them."""
    is_lost = len(unjudged) == len(holdings.states) > 0
    why = "the age of no state is known: all of their clocks were ahead of now, or not set"
    return Verdict(kept, unjudged, [CannotJudge(policy, why)] if is_lost else ())

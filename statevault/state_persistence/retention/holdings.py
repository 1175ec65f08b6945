"""What a retention policy gets to see: the states of a store, and an instant.

The order of states is their sequence, never a clock. Where a policy has to speak of ages and days all the same, it
asks :meth:`Holdings.dated`, which makes the best of the clocks of edge devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple, Protocol

from statevault.format.records import in_utc
from statevault.state_persistence.info import StateInfo

__all__ = ["DatedState", "Holdings", "Sizes"]

_FIRST_STATE = datetime(2020, 1, 1, tzinfo=UTC)
"""No state is as old as that. Clocks that are not set begin in 1970, 1980 or 2000, or fall back by 20 years (GPS)."""


class Sizes(Protocol):
    """How many bytes of the store states need. Objects that they share count once; more states never need less."""

    def together(self, names: Iterable[str]) -> int:
        """Bytes that exactly the states of these names need together."""

    def growing(self, names: Iterable[str]) -> Iterator[int]:
        """Bytes that the first of these states needs, the first two need together, and so on."""


class DatedState(NamedTuple):
    """A state, and the one whose clock tells when it was saved.

    Attributes:
        state: The state.
        by: The state itself, or an earlier one when its own clock was behind that one's.
    """

    state: StateInfo
    by: StateInfo

    @property
    def time(self) -> datetime:
        """When it was saved at the earliest (UTC)."""
        return in_utc(self.by.created_at)


@dataclass(frozen=True, slots=True)
class Holdings:
    """The states that a retention policy decides on.

    Attributes:
        states: Oldest first.
        now: The instant at which ages are taken.
        sizes: How many bytes of the store they need.

    Raises:
        ValueError: The states are not in the order of their sequence, two have one name, or `now` has no time zone.
    """

    states: tuple[StateInfo, ...]
    now: datetime
    sizes: Sizes

    def __post_init__(self) -> None:
        if self.now.utcoffset() is None:
            raise ValueError(f"now must have a time zone, as in datetime.now(UTC); {self.now!r} has none")
        for older, newer in pairwise(self.states):
            if older.sequence > newer.sequence:
                raise ValueError(
                    f"states must come oldest first, but {older.name} (sequence {older.sequence}) "
                    f"comes before {newer.name} (sequence {newer.sequence})"
                )
        if len({state.name for state in self.states}) < len(self.states):
            raise ValueError("two of the states have one name; a store never uses a name twice")

    def dated(self) -> tuple[DatedState, ...]:
        """Say when the states were saved, by the latest clock so far; oldest first, and times never fall.

        A state can't be older than one with a lower sequence. So a state's time is the latest `created_at` of all
        states up to and including it: when a device comes up in 1970, its states are as old as the last one before.
        Stamps later than `now` are left out of that maximum, since a single one would make all later states new, and
        so are the states that bear them: see :meth:`ahead`.
        """
        dated: list[DatedState] = []
        for state in self.states:
            if state.created_at <= self.now:
                is_behind = dated and state.created_at < dated[-1].by.created_at
                dated.append(DatedState(state, dated[-1].by if is_behind else state))
        return tuple(dated)

    def ahead(self) -> tuple[StateInfo, ...]:
        """The states whose clock was ahead of `now`: nobody knows their age."""
        return tuple(state for state in self.states if state.created_at > self.now)

    def unset(self) -> tuple[StateInfo, ...]:
        """The states whose clock was not set: they may be any amount younger than :meth:`dated` says.

        None where the clock is not set now, either: a clock that began anew understates how much time has passed.
        """
        if self.now < _FIRST_STATE:
            return ()
        return tuple(state for state in self.states if state.created_at < _FIRST_STATE)

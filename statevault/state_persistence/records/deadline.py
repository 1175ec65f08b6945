"""An end to what relies on records that do not stay for ever (``docs/format.md``, section 7, "Age")."""

from __future__ import annotations

import time

from statevault.errors import StorageTimeoutError
from statevault.state_persistence.records.sessions import STALE_AFTER

__all__ = ["Deadline"]


class Deadline:
    """The time within which a save, or the removal of some states, must have come to its last step.

    The aborts, tombstones and intents of others are there for much longer: whoever keeps within it sees them. It
    counts on while the machine sleeps, where it has a clock for that, and does not go by the time of day.
    """

    def __init__(self) -> None:
        self._began_s = _clock_s()

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was made."""
        return _clock_s() - self._began_s

    def check(self, what: str) -> None:
        """Check that it has not passed.

        Args:
            what: What it is for, to begin the message with.

        Raises:
            StorageTimeoutError: It has.
        """
        if self.elapsed_s >= STALE_AFTER.total_seconds():
            raise StorageTimeoutError(
                f"{what} took longer than {STALE_AFTER}, and is given up: do less at once, or get a faster connection"
            )


def _clock_s() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)

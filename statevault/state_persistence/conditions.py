"""When a running system saves itself: any callable that returns a bool; here are the usual ones."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PeriodicSaveCondition"]


class PeriodicSaveCondition:
    """True each time an interval has passed since it was last true (or made).

    Real time, not the agent's: what a crash may cost is the same whether the agent's clock is scaled or paused.

    Args:
        interval: Seconds; infinity for never.
        clock: Seconds since any fixed instant.

    Raises:
        ValueError: The interval is not positive.
    """

    def __init__(self, interval: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not interval > 0:
            raise ValueError(f"the interval between saves must be a positive number of seconds, not {interval!r}")
        self._interval = interval
        self._clock = clock
        self._last = clock()

    def __call__(self) -> bool:
        """Whether it is time to save."""
        now = self._clock()
        if now - self._last < self._interval:
            return False
        self._last = now
        return True

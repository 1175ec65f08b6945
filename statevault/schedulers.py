"""Callbacks that are called now and then: once per interval of the agent's time, or once per so many steps.

A scheduler has no thread of its own. Whoever owns it calls :meth:`Scheduler.update` regularly, for instance in
each step of an agent, and the callbacks run inside that call.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TypeAlias

from typing_extensions import override

from statevault import time

__all__ = ["Callback", "Scheduler", "StepIntervalScheduler", "TimeIntervalScheduler"]

Callback: TypeAlias = Callable[[], None]
"""What a scheduler calls."""


class Scheduler(ABC):
    """Calls its callbacks, in the order in which they were registered, when it is time to."""

    def __init__(self, callbacks: Iterable[Callback] | None = None) -> None:
        """Initialize.

        Args:
            callbacks: What to call.
        """
        self._callbacks = list(callbacks or ())

    def register_callback(self, callback: Callback) -> None:
        """Call one more function from now on.

        Args:
            callback: The function; one that is registered twice is called twice.
        """
        self._callbacks.append(callback)

    def remove_callback(self, callback: Callback) -> None:
        """Call a function no longer (or once less).

        Args:
            callback: The function.

        Raises:
            ValueError: It is not registered.
        """
        if callback not in self._callbacks:
            raise ValueError(f"{callback!r} is not registered with this {type(self).__name__}")
        self._callbacks.remove(callback)

    @abstractmethod
    def is_available(self) -> bool:
        """Tell whether it is time to call the callbacks."""

    def update(self) -> None:
        """Call the callbacks if it is time to.

        Raises:
            Exception: Whatever a callback raises; those behind it are not called then.
        """
        if self.is_available():
            # A copy: a callback may remove itself.
            for callback in list(self._callbacks):
                callback()


class TimeIntervalScheduler(Scheduler):
    """Calls its callbacks when an interval of the agent's time has passed, and at the first update."""

    def __init__(self, interval: float, callbacks: Iterable[Callback] | None = None) -> None:
        """Initialize.

        Args:
            interval: Seconds of :mod:`statevault.time`, from one call to the next.
            callbacks: What to call.

        Raises:
            ValueError: The interval is negative or not a number.
        """
        super().__init__(callbacks)
        if not interval >= 0:
            raise ValueError(f"an interval is 0 seconds or more, not {interval!r}")
        self._interval = interval
        self._previous = -math.inf

    @override
    def is_available(self) -> bool:
        """Tell whether the interval has passed since the previous call, or the clock was set back since."""
        passed = time.monotonic() - self._previous
        # Loading a state can set the clock back, by any time: waiting for the old one would take as long.
        return passed >= self._interval or passed < 0

    @override
    def update(self) -> None:
        """Call the callbacks if the interval has passed; the next one begins when they are done."""
        if self.is_available():
            super().update()
            self._previous = time.monotonic()


class StepIntervalScheduler(Scheduler):
    """Calls its callbacks at every so-many-th update."""

    def __init__(self, interval: int, callbacks: Iterable[Callback] | None = None) -> None:
        """Initialize.

        Args:
            interval: Updates from one call to the next.
            callbacks: What to call.

        Raises:
            ValueError: The interval is not positive.
        """
        super().__init__(callbacks)
        if interval < 1:
            raise ValueError(f"an interval is 1 step or more, not {interval!r}")
        self._interval = interval
        self._steps = 0

    @override
    def is_available(self) -> bool:
        """Tell whether the interval is over."""
        return self._steps >= self._interval

    @override
    def update(self) -> None:
        """Count a step, and call the callbacks if the interval is over."""
        self._steps += 1
        if self.is_available():
            super().update()
            self._steps = 0

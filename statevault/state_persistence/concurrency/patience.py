"""Waiting for saves to end: with a limit, with signs of life, and without holding up the end of the process.

Whoever waits for a storage does not know whether it will ever answer. So each such wait says in the log, every few
seconds, what it waits for; and it ends when its time is over or a signal breaks it off. What was left behind does not
keep the process from ending, as all threads of statevault are daemons: what is lost by that is at most what was not
committed.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from statevault.errors import SaveTimeoutError

__all__ = ["Patience"]

_logger = logging.getLogger(__name__)


class Patience:
    """One limit for everything that is waited for one after the other.

    Args:
        timeout_s: Seconds from now until nothing is waited for any more; None or infinity for no limit.
        report_interval_s: Seconds between two lines in the log that say what is waited for.
    """

    def __init__(self, timeout_s: float | None, *, report_interval_s: float = 10.0) -> None:
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._ends_at = time.monotonic() + self._timeout_s
        self._report_interval_s = report_interval_s
        self._broken_off = False

    @property
    def left_s(self) -> float:
        """Seconds that are left; 0 when the time is over, or a wait was broken off."""
        return max(0.0, self._ends_at - time.monotonic())

    def end(self) -> None:
        """Wait for nothing any more."""
        self._broken_off = True
        self._ends_at = -math.inf

    def wait(self, ended: Callable[[float], bool], what: Callable[[], str]) -> None:
        """Wait for the end of something.

        Args:
            ended: Waits for at most that many seconds; whether the end was reached.
            what: Says what is being done, to go on after "still".

        Raises:
            SaveTimeoutError: The time is over.
            BaseException: Whatever a signal handler raises, or `ended`. After this nothing is waited for.
        """
        began = time.monotonic()
        try:
            while not ended(min(self.left_s, self._report_interval_s)):
                waited_s = time.monotonic() - began
                if self.left_s == 0:
                    limit = "was broken off" if self._broken_off else f"did not end within {self._timeout_s:g} s"
                    raise SaveTimeoutError(f"{what()} {limit}")
                limit = "" if math.isinf(self._timeout_s) else f", for {self.left_s:.0f} s more at most"
                # A warning, so that whoever sits at a terminal without a logging configuration sees it too.
                _logger.warning("still %s: %.0f s%s", what(), waited_s, limit)
        except BaseException:
            self.end()
            raise

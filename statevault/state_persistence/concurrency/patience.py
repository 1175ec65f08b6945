"""Waiting for saves to end: with a limit, with signs of life, and without holding up the end of the process.

Whoever waits for a storage does not know whether it will ever answer. So each such wait says in the log, every few
seconds, what it waits for; it ends when its time is over or a signal breaks it off; and from then on what was left
behind does not keep the process from ending. What is lost by that is at most what was not committed.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable

from statevault.errors import SaveTimeoutError

__all__ = ["Patience"]

_logger = logging.getLogger(__name__)

_OUR_THREADS = "statevault-"


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
        """Wait for nothing any more, and let the process end whatever its threads do."""
        self._broken_off = True
        self._ends_at = -math.inf
        _let_the_process_end()

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


@functools.cache  # once is enough
def _let_the_process_end() -> None:
    """Let the process end even if a thread of an executor of ours hangs.

    Before it ends, the interpreter joins the threads of all executors, also of those that daemon threads have made
    (:mod:`concurrent.futures.thread`). There is no public way out of that, only the hook that it uses itself; where
    a future version has none, such a process ends when the storage answers.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        with contextlib.suppress(RuntimeError):  # the process is ending already
            # The hooks are called in reverse order: this one before that of the executors.
            register(_forget_our_threads)


def _forget_our_threads() -> None:
    joined = getattr(concurrent.futures.thread, "_threads_queues", {})
    for thread in list(joined):
        if thread.daemon and thread.name.startswith(_OUR_THREADS):
            joined.pop(thread, None)

"""SIGTERM and Ctrl-C as wishes: the first one to end in order, the second one to end at once."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from typing_extensions import override

__all__ = ["StopSignals"]

_EXIT_STATUS_OF_A_SIGNAL = 128  # to which its number is added, as in shells


class StopSignals:
    """While entered, notes the first SIGTERM or SIGINT instead of dying of it; each later one breaks off.

    A later SIGINT raises :class:`KeyboardInterrupt` in the main thread, a later SIGTERM :class:`SystemExit` with the
    status 143: the way out when the orderly end takes too long. Outside the main thread, where signals are not
    received, it does nothing.

    Attributes:
        received: The name of the signal that came last, None before any.
        hurried: Whether one came after the first.
    """

    def __init__(self, *, same_within_s: float = 0.1) -> None:
        """Handle no signals yet.

        Args:
            same_within_s: A signal that follows another one within this many seconds is the same one: a terminal
                sends Ctrl-C to a wrapper and to the process that it runs, and the wrapper passes it on.
        """
        self.received: str | None = None
        self.hurried = False
        self._same_within_s = same_within_s
        self._noted_at = -math.inf
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python, and can't be from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Only a flag or an exception: the interrupted code may hold any lock.
        now = time.monotonic()
        if now - self._noted_at < self._same_within_s:
            return
        self._noted_at = now
        first, self.received = self.received is None, signal.Signals(number).name
        if first:
            return
        self.hurried = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt(f"a second {self.received}")
        raise _Terminated(_EXIT_STATUS_OF_A_SIGNAL + number)


class _Terminated(SystemExit):
    """The process is to end with the status of one that a signal has ended."""

    @override
    def __str__(self) -> str:
        return f"a second {signal.Signals(int(self.code or 0) - _EXIT_STATUS_OF_A_SIGNAL).name}"

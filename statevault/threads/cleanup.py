"""Cleaning up after saves, in a thread of its own: the agent does not wait for it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from upath import UPath

from statevault.state_persistence.concurrency.patience import Patience

__all__ = ["Cleanup"]


class Cleanup:
    """Cleans up after each committed state, and at an interval when none is: states grow old by themselves."""

    def __init__(self, clean: Callable[[UPath | None], None], *, interval_s: float) -> None:
        """Make one, whose thread starts at the first state.

        Args:
            clean: Cleans up after the state of that path was committed; with None, what has grown old since, and what
                earlier calls failed to.
            interval_s: Seconds from the end of a call until it is called with None.
        """
        self._clean = clean
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._states: deque[UPath] = deque()
        self._again_at = math.inf
        self._closed = False
        self._thread: threading.Thread | None = None
        self._failures: deque[BaseException] = deque()

    def after(self, path: UPath) -> None:
        """Clean up after a state that was committed, when those before it are done; at once where no thread can be."""
        with self._changed:
            self._states.append(path)
            self._changed.notify_all()
            has_thread = self._thread is not None or self._start_thread()
        while not has_thread and self._states:
            self._clean_up(self._states.popleft())

    def take_failures(self) -> list[BaseException]:
        """What went wrong since this was asked last, oldest first."""
        return [self._failures.popleft() for _ in range(len(self._failures))]

    def close(self, patience: Patience) -> None:
        """Wait until all states were cleaned up after; a failure is not retried any more.

        Raises:
            SaveTimeoutError: It did not end in time; its thread is left behind.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:

            def ended(seconds: float) -> bool:
                thread.join(seconds)
                return not thread.is_alive()

            patience.wait(ended, lambda: "removing the states that are not to be kept")

    def _start_thread(self) -> bool:
        # A daemon, so that a storage that hangs does not keep the process from ending.
        thread = threading.Thread(target=self._run, name="statevault-cleanup", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there is none to be had, as after the end of the main thread
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, self._seconds_until_again())
                if self._closed and not self._states:
                    return
                path = self._states.popleft() if self._states else None
                if path is None and time.monotonic() < self._again_at:
                    continue
            self._clean_up(path)

    def _clean_up(self, path: UPath | None) -> None:
        try:
            self._clean(path)
        # All of them, SystemExit too: a keeper may be anybody's.
        except BaseException as error:  # noqa: BLE001
            self._failures.append(error)
        self._again_at = time.monotonic() + self._interval_s

    def _has_work(self) -> bool:
        return bool(self._states) or self._closed or time.monotonic() >= self._again_at

    def _seconds_until_again(self) -> float:
        return min(max(0.0, self._again_at - time.monotonic()), threading.TIMEOUT_MAX)

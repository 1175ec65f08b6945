"""Publishing behind the back of a running agent.

At most one publish runs. One snapshot may wait; a newer one takes its place, since it holds a newer state of the
same components and memory is bounded. Whatever a publish, a cancelled future or a callback of one does, the next
job is run, and nobody waits for a thread that is gone, or longer than they want to.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from statevault.errors import SaveSupersededError, StateVaultError
from statevault.process_limits import has_room_for_thread
from statevault.state_persistence.concurrency.patience import Patience

__all__ = ["BackgroundPublisher"]

_logger = logging.getLogger(__name__)

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Job(Generic[R]):
    publish: Callable[[], R]
    discard: Callable[[], None]
    replaceable: bool
    future: Future[R] = field(default_factory=Future)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            self._discard()
            return
        try:
            result = self.publish()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            self._discard()
            self.future.set_exception(error)
        else:
            self._discard()
            self.future.set_result(result)

    def _discard(self) -> None:
        try:
            self.discard()
        except BaseException:
            # Whatever became of the job, somebody waits for its future.
            _logger.exception("what a save leaves behind could not be removed")

    def supersede(self) -> None:
        self._discard()
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(SaveSupersededError("a newer snapshot took the place of this one"))


class BackgroundPublisher(Generic[R]):
    """One thread that publishes what it is given, in order. It lives while there is work."""

    def __init__(self) -> None:
        self._closed = False
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._waiting: deque[_Job[R]] = deque()
        self._thread: threading.Thread | None = None
        self._began_at = 0.0  # when the job that runs did

    def submit(self, publish: Callable[[], R], *, discard: Callable[[], None], replaceable: bool) -> Future[R]:
        """Publish when it is this job's turn.

        Args:
            publish: The work.
            discard: Called, whatever becomes of the job, when it is over.
            replaceable: Whether a newer job may take its place while it waits; its future then raises
                :class:`SaveSupersededError`.

        Where no thread can be had, as after the end of the main thread, it is published before this returns.

        Raises:
            StateVaultError: The publisher is closed. `discard` was not called.
        """
        if self._pid != os.getpid():
            self._start_anew()  # a forked child: what runs and waits is its parent's, and so is the lock's state
        if not replaceable and threading.current_thread() is self._thread:
            raise StateVaultError("a callback of a save can't wait for another one: use save_state_async()")
        job = _Job(publish, discard, replaceable)
        with self._condition:
            if self._closed:
                raise StateVaultError("the store is closed: make a new StateStore to save again")
            has_no_thread = self._thread is None and not self._start_thread()
            if has_no_thread:
                self._thread = threading.current_thread()
            superseded = [waiting for waiting in self._waiting if waiting.replaceable]
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.replaceable)
            self._waiting.append(job)
        for old in superseded:
            old.supersede()
        if has_no_thread:
            self._run()
        return job.future

    def close(self, patience: Patience | None = None) -> None:
        """Take no more work and wait until all that was given is done.

        Args:
            patience: As for :meth:`wait`.

        Raises:
            SaveTimeoutError: As for :meth:`wait`; no more work is taken all the same.
        """
        self._closed = True
        self.wait(patience)

    def wait(self, patience: Patience | None = None) -> None:
        """Wait until nothing runs or waits.

        Args:
            patience: How long at most; None for as long as it takes.

        Raises:
            SaveTimeoutError: The time is over. What runs and waits does so on.
            StateVaultError: It was called by the publish itself, or a callback of its future: it would wait for ever.
        """
        if self._pid != os.getpid():
            self._start_anew()
        if threading.current_thread() is self._thread:
            raise StateVaultError("a callback of a save can't wait for the saves to end: it is part of one")
        (patience or Patience(None)).wait(self._is_idle_within, self._under_way)

    def _is_idle_within(self, seconds: float) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self._thread is None, seconds)

    def _under_way(self) -> str:
        with self._condition:
            running = f"publishing a state that was begun {time.monotonic() - self._began_at:.0f} s ago"
            return f"{running}, and {len(self._waiting)} that wait" if self._waiting else running

    def _start_thread(self) -> bool:
        # A daemon: whoever wants a save to survive the end of the process waits for it (close()).
        if not has_room_for_thread():
            return False
        thread = threading.Thread(target=self._run, name="statevault-publish", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._waiting:
                    self._thread = None
                    self._condition.notify_all()
                    return
                job = self._waiting.popleft()
                self._began_at = time.monotonic()
            try:
                job.run()
            except BaseException:
                # From a callback of the future, such as sys.exit(): it must not take the other saves with it.
                _logger.exception("a callback of a save failed")

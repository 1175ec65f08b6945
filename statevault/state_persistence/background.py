"""Publishing behind the back of a running agent.

At most one publish runs. One snapshot may wait; a newer one takes its place, since it holds a newer state of the
same components and memory is bounded.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from statevault.errors import SaveSupersededError, StateVaultError

__all__ = ["BackgroundPublisher"]

R = TypeVar("R")


@dataclass(slots=True)
class _Job(Generic[R]):
    publish: Callable[[], R]
    discard: Callable[[], None]
    replaceable: bool
    future: Future[R] = field(default_factory=Future)


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

    def submit(self, publish: Callable[[], R], *, discard: Callable[[], None], replaceable: bool) -> Future[R]:
        """Publish when it is this job's turn.

        Args:
            publish: The work.
            discard: Called, whatever becomes of the job, when it is over.
            replaceable: Whether a newer job may take its place while it waits; its future then raises
                :class:`SaveSupersededError`.

        Raises:
            StateVaultError: The publisher is closed.
        """
        if self._pid != os.getpid():
            self._start_anew()  # a forked child: what runs and waits is its parent's, and so is the lock's state
        job = _Job(publish, discard, replaceable)
        superseded: list[_Job[R]] = []
        with self._condition:
            if self._closed:
                raise StateVaultError("the store is closed: make a new StateStore to save again")
            superseded = [waiting for waiting in self._waiting if waiting.replaceable]
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.replaceable)
            self._waiting.append(job)
            if self._thread is None:
                # A daemon: whoever wants a save to survive the end of the process waits for it (close()); an
                # interpreter that hangs at exit on a dead network would be worse than a save that is not visible.
                self._thread = threading.Thread(target=self._run, name="statevault-publish", daemon=True)
                self._thread.start()
        for old in superseded:
            old.discard()
            old.future.set_exception(SaveSupersededError("a newer snapshot took the place of this one"))
        return job.future

    def close(self) -> None:
        """Take no more work and wait until all that was given is done."""
        self._closed = True
        self.wait()

    def wait(self) -> None:
        """Wait until nothing runs or waits."""
        if self._pid != os.getpid():
            self._start_anew()
        with self._condition:
            while self._thread is not None:
                self._condition.wait(1.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._waiting:
                    self._thread = None
                    self._condition.notify_all()
                    return
                job = self._waiting.popleft()
            try:
                result = job.publish()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
                job.discard()
                job.future.set_exception(error)
            else:
                job.discard()
                job.future.set_result(result)

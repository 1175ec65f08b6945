"""What the threads share: the wishes of the control thread, and where each worker stands.

Everything lies under one lock, so that "all threads are paused" is a fact and not a guess: a worker leaves
its pause only after it has seen, under the same lock, that it may.
"""

from __future__ import annotations

import threading
import time
from enum import Enum

__all__ = ["ThreadController", "ThreadPhase", "ThreadStatus"]


class ThreadPhase(Enum):
    """Where a worker thread is."""

    NOT_STARTED = "not started"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the thread runs no more."""
        return self in {ThreadPhase.STOPPED, ThreadPhase.FAILED}


class ThreadStatus:
    """Where one worker stands. Read and written under the controller's lock.

    Attributes:
        name: The thread's name.
        phase: Where it is.
        error: What it died of.
        paused_at: When its current pause began, on :func:`time.perf_counter`, in seconds.
    """

    __slots__ = ("error", "name", "paused_at", "phase")

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase = ThreadPhase.NOT_STARTED
        self.error: BaseException | None = None
        self.paused_at = 0.0


class ThreadController:
    """Pauses, resumes and stops worker threads, which ask it at each of their step boundaries.

    Workers come to a pause in the order of their :meth:`register`: one is stopped when those before it stand.
    The thread that acts is registered last, so that it does not stand still while a training step ends.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pause = False
        self._acts_on = False
        self._shutdown = False
        self._version = 0
        self._statuses: list[ThreadStatus] = []
        self._failed: list[ThreadStatus] = []

    def register(self, name: str) -> ThreadStatus:
        """Add a worker, before it starts.

        Raises:
            ValueError: A worker of that name is registered.
        """
        with self._changed:
            if any(status.name == name for status in self._statuses):
                raise ValueError(f"a thread named {name!r} is registered already")
            status = ThreadStatus(name)
            self._statuses.append(status)
            return status

    # The control thread's side.

    def pause(self) -> None:
        """Ask all workers to pause at their next boundary."""
        with self._changed:
            self._pause = True
            self._acts_on = False
            self._notify()

    def pause_training(self) -> None:
        """Ask all workers but the one registered last, which acts, to pause at their next boundary."""
        with self._changed:
            self._pause = self._acts_on = True
            self._notify()

    def resume(self) -> None:
        """Let all workers go on."""
        with self._changed:
            self._pause = self._acts_on = False
            self._notify()

    def shutdown(self) -> None:
        """Tell all workers to end at their next boundary; those that are paused end at once."""
        with self._changed:
            self._shutdown = True
            self._notify()

    def is_pause(self) -> bool:
        """Whether workers are asked to pause."""
        with self._changed:
            return self._pause

    def is_shutdown(self) -> bool:
        """Whether workers are told to end."""
        with self._changed:
            return self._shutdown

    def wake(self) -> None:
        """End the current :meth:`wait_for_change`, or the next one."""
        with self._changed:
            self._notify()

    def version(self) -> int:
        """A number that grows with each change, for :meth:`wait_for_change`."""
        with self._changed:
            return self._version

    def wait_for_change(self, version: int, timeout_s: float) -> None:
        """Wait until something has changed since :meth:`version` gave `version`, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version, timeout_s)

    def phases(self) -> dict[str, ThreadPhase]:
        """Where all workers are, at one instant."""
        with self._changed:
            return {status.name: status.phase for status in self._statuses}

    def errors(self) -> dict[str, BaseException]:
        """What workers died of, in the order in which they did."""
        with self._changed:
            return {status.name: status.error for status in self._failed if status.error is not None}

    def holding_up(self) -> list[str]:
        """Which workers are asked to pause, at their next boundary, and have not come to a stand."""
        with self._changed:
            return [status.name for status in self._statuses if not _stands(status.phase) and self._must_pause(status)]

    def stood_still_s(self) -> float:
        """For how many seconds the worker registered last, the acting one, has been paused; else 0."""
        with self._changed:
            if not self._statuses or self._statuses[-1].phase is not ThreadPhase.PAUSED:
                return 0.0
            return time.perf_counter() - self._statuses[-1].paused_at

    # The workers' side.

    def set_phase(self, status: ThreadStatus, phase: ThreadPhase, error: BaseException | None = None) -> None:
        """Tell where a worker is."""
        with self._changed:
            status.phase = phase
            status.error = error
            if error is not None:
                self._failed.append(status)
            self._notify()

    def must_pause(self, status: ThreadStatus) -> bool:
        """Whether a worker that stands at a boundary is to pause now."""
        with self._changed:
            return self._must_pause(status)

    def wait_while_paused(self, status: ThreadStatus) -> None:
        """Stand still in :attr:`ThreadPhase.PAUSED` until told to go on or to end."""
        with self._changed:
            if not self._must_pause(status):
                return
            status.phase = ThreadPhase.PAUSED
            status.paused_at = time.perf_counter()
            self._notify()
            while self._pause and not self._shutdown:
                self._changed.wait(timeout=60.0)
            status.phase = ThreadPhase.RUNNING
            self._notify()

    def wait_idle(self, status: ThreadStatus, timeout_s: float) -> None:
        """Stand still for a while in which a worker has nothing to do; ends early when it is wanted."""
        end = time.perf_counter() + timeout_s
        with self._changed:
            while not self._shutdown and not self._must_pause(status):
                remaining = end - time.perf_counter()
                if remaining <= 0:
                    return
                self._changed.wait(remaining)

    def _notify(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _must_pause(self, status: ThreadStatus) -> bool:
        if not self._pause or self._shutdown or (self._acts_on and status is self._statuses[-1]):
            return False
        earlier = self._statuses[: self._statuses.index(status)]
        return all(_stands(before.phase) for before in earlier)


def _stands(phase: ThreadPhase) -> bool:
    return phase is ThreadPhase.PAUSED or phase.ended

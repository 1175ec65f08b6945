"""A worker thread: steps, and between two steps a boundary at which it can be paused and stopped."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from statevault.errors import StateVaultError
from statevault.process_limits import scarce
from statevault.threads.controller import ThreadController, ThreadPhase
from statevault.threads.notes import told

__all__ = ["WorkerThread"]

_logger = logging.getLogger(__name__)


class WorkerThread(ABC):
    """Runs :meth:`on_tick` again and again in a thread of its own, until it is told to end or fails."""

    def __init__(self, name: str, controller: ThreadController) -> None:
        """Make a worker, which is not started.

        Args:
            name: The thread's name, in logs and messages.
            controller: Who pauses and stops it.
        """
        self.name = name
        self.controller = controller
        self.status = controller.register(name)
        # A daemon, so that a step that hangs for ever does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"statevault-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            StateVaultError: The system gives none.
        """
        self.controller.set_phase(self.status, ThreadPhase.STARTING)
        try:
            self._thread.start()
        except RuntimeError as error:
            self.controller.set_phase(self.status, ThreadPhase.NOT_STARTED)
            raise StateVaultError(f"the thread {self.name!r} can't be started: {scarce(error) or error}") from error

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end.

        Returns:
            Whether it has ended, or never began.
        """
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def on_start(self) -> None:  # noqa: B027 - most workers need only some
        """Called in the thread before the first tick."""

    @abstractmethod
    def on_tick(self) -> None:
        """Take one step."""

    def on_paused(self) -> None:  # noqa: B027 - most workers need only some
        """Called in the thread when it is about to stand still, before anything is saved."""

    def on_resumed(self) -> None:  # noqa: B027 - most workers need only some
        """Called in the thread when it goes on."""

    def on_end(self) -> None:  # noqa: B027 - most workers need only some
        """Called in the thread after the last tick, also after a failure."""

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self.on_start()
            self.controller.set_phase(self.status, ThreadPhase.RUNNING)
            self._loop()
        # All of them, SystemExit too: whatever ends this thread is for the caller of launch to see.
        except BaseException as exception:  # noqa: BLE001
            error = exception
        try:
            self.on_end()
        except BaseException as exception:  # noqa: BLE001
            if error is None:
                error = exception
            else:
                error.add_note(f"the thread {self.name!r} also failed to tear down: {told(exception)}")
        if error is not None:
            _logger.error("the thread %r failed", self.name, exc_info=error)
        # Last, because from here on the components are taken to be at rest.
        self.controller.set_phase(self.status, ThreadPhase.STOPPED if error is None else ThreadPhase.FAILED, error)

    def _loop(self) -> None:
        while not self.controller.is_shutdown():
            if self.controller.must_pause(self.status):
                self.on_paused()
                self.controller.wait_while_paused(self.status)
                self.on_resumed()
            else:
                self.on_tick()

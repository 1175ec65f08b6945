"""Stands in for threads, locks and pools: what `threading` and `WorkerPool` are to the code under test.

The real :class:`~concurrent.futures.Future` and the real publisher run on them. A task that is not before a call of its
storage is not interrupted, so that a lock is never contended for a moment; it may be for long, and then its task waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from typing_extensions import override

from statevault.worker_pool import WorkerPool
from tests.simulation.scheduler import ProcessDiedError, Scheduler, Task

__all__ = ["SimulatedPool", "SimulatedThreading"]


class SimulatedPool(WorkerPool):
    """A pool whose threads are tasks of the process that made it."""

    scheduler: Scheduler

    def __init__(self, workers: int, name: str) -> None:
        task = self.scheduler.current
        assert task is not None
        self._process = task.process
        self._free = workers
        self._prefix = name
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._tasks = 0
        self._closing: list[Task] = []

    @override
    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: function(*args, **kwargs)))
        if self._free:
            self._free -= 1
            self._tasks += 1
            self.scheduler.spawn(self._process, self._prefix, self._work)
        return future

    def _work(self) -> None:
        try:
            while self._waiting:
                future, call = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    result = call()
                except ProcessDiedError:
                    raise
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            self._free += 1
            self._tasks -= 1
            if not self._tasks:
                self.scheduler.wake(self._closing)

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._tasks:
            self.scheduler.park(self._closing)


class _Condition:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: list[Task] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        """Whoever waits with a timeout waits for ever as well: somebody has to notify, or the schedule hangs."""
        self._scheduler.park(self._waiting)
        return True

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        while not predicate():
            self._scheduler.park(self._waiting)
        return True

    def notify_all(self) -> None:
        self._scheduler.wake(self._waiting)


class _Lock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False
        self._waiting: list[Task] = []

    def acquire(self) -> bool:
        while self._held:
            self._scheduler.park(self._waiting)
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        self._scheduler.wake(self._waiting)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class _Thread:
    def __init__(
        self, scheduler: Scheduler, target: Callable[[], object], name: str = "thread", daemon: bool = False
    ) -> None:
        self._scheduler = scheduler
        self._target = target
        self._name = name

    def start(self) -> None:
        task = self._scheduler.current
        assert task is not None
        # The first run of the publisher looks for work, which it is given after it was started.
        waiting: list[Task] = []

        def run() -> None:
            self._scheduler.park(waiting)
            self._target()

        self._scheduler.spawn(task.process, self._name, run)
        self._scheduler.wake(waiting)


class SimulatedThreading:
    """Takes the place of the module :mod:`threading` in the modules under test."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None

    def _running(self) -> Scheduler:
        assert self.scheduler is not None
        return self.scheduler

    def Condition(self) -> _Condition:
        return _Condition(self._running())

    def Lock(self) -> _Lock:
        return _Lock(self._running())

    def Thread(self, *, target: Callable[[], object], name: str, daemon: bool) -> _Thread:
        return _Thread(self._running(), target, name, daemon)

    def current_thread(self) -> object:
        return self._running().current

    def get_ident(self) -> int:
        return id(self._running().current)

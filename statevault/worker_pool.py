"""A bounded pool of threads that works until the very end of the process.

The pools of :mod:`concurrent.futures` refuse work once the main thread has ended: a program that saves in an ``atexit``
hook, or in a thread that outlives the main one, would save nothing. Here the threads are daemons that nobody waits for
but the one who made the pool. And where no thread can be had (Python 3.12 and later start none once the main thread has
ended; a process may have as many as it may, or little address space), a call is made by whoever submits it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from statevault.process_limits import has_room_for_thread

__all__ = ["WorkerPool", "parallel_map", "results_of"]

_P = ParamSpec("_P")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class WorkerPool:
    """Threads that make calls, several at once. Used in a ``with`` statement, all calls have ended when that ends.

    Args:
        workers: How many threads at most; each is started when it is first needed. Without any, whoever submits a call
            makes it.
        name: What the threads are called.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._workers = workers
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, function: Callable[_P, _Result], *args: _P.args, **kwargs: _P.kwargs) -> Future[_Result]:
        """Make a call as soon as a thread is free, or here and now if there can be none."""
        future: Future[_Result] = Future()
        call = partial(_perform, future, partial(function, *args, **kwargs))
        if self._has_thread():
            self._calls.put(call)
        else:
            call()
        return future

    def map_all(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Call a function for all items, and wait for the results: see :func:`results_of`."""
        return results_of(self.submit(function, item) for item in items)

    def map_ordered(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item], *, ahead: int
    ) -> Iterator[_Result]:
        """Like ``map``, in order, with at most `ahead` results that nobody has taken yet: memory is bounded."""
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(self.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _has_thread(self) -> bool:
        """Whether some thread will take the next call; one is started if all are busy and there may be more."""
        if self._idle.acquire(blocking=False):
            return True
        with self._lock:
            if len(self._threads) < self._workers and has_room_for_thread():
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                with suppress(RuntimeError, MemoryError):
                    thread.start()
                    self._threads.append(thread)
            return bool(self._threads)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # it holds what it was called with
            self._idle.release()


def _perform(future: Future[_Result], call: Callable[[], _Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
        future.set_exception(error)
        # The error leads to this frame, which must not lead back to it, nor hold what the call was made with.
        del future, call
    else:
        future.set_result(result)


def results_of(futures: Iterable[Future[_Result]]) -> list[_Result]:
    """Wait for all calls that have begun.

    Returns:
        The results, in order.

    Raises:
        Exception: The first that a call raised. Calls that had not begun then are not made.
    """
    submitted: list[Future[_Result]] = []
    try:
        for future in futures:
            submitted.append(future)
            if future.done() and future.exception() is not None:
                break
        return [future.result() for future in submitted]
    finally:
        for future in submitted:
            future.cancel()
        for future in submitted:
            if not future.cancelled():
                future.exception()


def parallel_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, workers: int, name: str
) -> list[_Result]:
    """Call a function for all items in a pool of its own, and wait for the results: see :func:`results_of`."""
    with WorkerPool(workers, name) as pool:
        return pool.map_all(function, items)

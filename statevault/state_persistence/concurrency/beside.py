"""One call beside another, for requests that need not wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

from statevault.process_limits import has_room_for_thread

__all__ = ["Beside"]

T = TypeVar("T")


class Beside(Generic[T]):
    """A call that a thread of its own makes while the caller does something else.

    Unlike a pool it needs no thread: where none can be had, because the interpreter ends, or the process has as many as
    it may, or little address space, the caller makes the call itself when it wants the result. Used in a ``with``
    statement, the call has ended when that ends, unless the caller is interrupted (Ctrl-C): whoever interrupts does not
    want to wait for a server.

    Args:
        call: What to call.
        name: Of the thread.
    """

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call = call
        self._future: Future[T] = Future()
        self._has_thread = has_room_for_thread()
        if self._has_thread:
            try:
                threading.Thread(target=self._make, name=name, daemon=True).start()
            except (RuntimeError, MemoryError):
                self._has_thread = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self._wait()

    def result(self) -> T:
        """What the call returns, or raises."""
        self._wait()
        return self._future.result()

    def _wait(self) -> None:
        if self._has_thread:
            self._future.exception()
        elif not self._future.done():
            self._make()

    def _make(self) -> None:
        try:
            self._future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001 - it is raised to whoever asks for the result
            self._future.set_exception(error)

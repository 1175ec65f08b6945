"""fsspec's event loop, as asynchronous filesystems need it to the very end of the process."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import fsspec.asyn
from typing_extensions import override

from statevault.errors import StorageError
from statevault.process_limits import scarce
from statevault.worker_pool import WorkerPool

__all__ = ["event_loop"]

_NO_THREAD = "there is no thread for the event loop of this storage"
_REMEDY = "open the store before the main thread ends"

_equipped: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def event_loop() -> asyncio.AbstractEventLoop:
    """The loop, whose thread runs, and which resolves names also once the main thread has ended.

    Raises:
        StorageError: Its thread can't be started: what is asked of it would never be answered.
    """
    _forget_without_thread()
    try:
        loop: asyncio.AbstractEventLoop = fsspec.asyn.get_loop()
    except (RuntimeError, MemoryError) as error:
        _forget_without_thread()
        raise StorageError(f"{_NO_THREAD}: {scarce(error) or _REMEDY}") from error
    thread = fsspec.asyn.iothread[0]
    if thread is None or not thread.is_alive():
        raise StorageError(f"{_NO_THREAD}: {_REMEDY}")
    if loop not in _equipped:
        loop.set_default_executor(_Executor())
        _equipped.add(loop)
    return loop


def _forget_without_thread() -> None:
    """Drop a loop whose thread could not be started: fsspec would give it out for ever."""
    loop = fsspec.asyn.loop[0]
    if loop is not None and fsspec.asyn.iothread[0] is None:
        fsspec.asyn.loop[0] = None
        loop.close()


class _Executor(ThreadPoolExecutor):
    """Makes calls in the loop's own thread where Python's pools take no more work."""

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            return WorkerPool(0, "").submit(fn, *args, **kwargs)

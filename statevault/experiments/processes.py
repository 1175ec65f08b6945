"""Processes of this process that run trials: spawned, told to stop, and never left behind.

* A worker ends with the process that started it, even when that is killed: it waits for its end.
* Ctrl-C reaches all processes of a terminal: workers leave it to the first one, which asks them to stop where they
  are, and kills what has not done so soon.
* What workers and the first process share is memory that is written one cell at a time: a worker that is killed leaves
  no lock behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, MutableSequence, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import Any, cast

from typing_extensions import override

from statevault.errors import WorkerDiedError
from statevault.experiments.progress import TrialCounts
from statevault.experiments.remote import watch_trials_with
from statevault.experiments.trial_run import Outcome, TrialId
from statevault.experiments.workers import Workers, submitted

__all__ = ["ProcessWorkers", "shared_cells"]

_logger = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 3.0
_LOOK_EVERY_S = 0.02


def shared_cells(count: int) -> MutableSequence[int]:
    """Whole numbers in memory that spawned workers share, 0 at first."""
    cells: Any = RawArray(ctypes.c_int64, count)
    return cast("MutableSequence[int]", cells)


class ProcessWorkers(Workers):
    """Processes that are spawned when the first trials come, and end with the ``with`` block.

    Args:
        n_processes: How many, at most.
        packed: What they need, from :func:`statevault.experiments.remote.pack`.
        counts: Is told how far trials are; its cells are those of :func:`shared_cells`.
    """

    def __init__(self, n_processes: int, packed: bytes, counts: TrialCounts) -> None:
        self._packed = packed
        self._context = _RecordingContext()
        self._stop = RawValue(ctypes.c_int8, 0)
        self._pool = ProcessPoolExecutor(
            n_processes, mp_context=self._context, initializer=_begin, initargs=(_StoppableCounts(counts, self._stop),)
        )

    @override
    def __exit__(self, *exception: object) -> None:
        try:
            if exception[0] is not None:
                self._end_soon()
        finally:
            if exception[0] is not None:
                self._kill()
            self._pool.shutdown(cancel_futures=True)

    @override
    def run(self, trials: Sequence[TrialId]) -> Iterator[Outcome]:
        try:
            yield from submitted(self._pool, self._packed, trials)
        except BrokenProcessPool as error:
            raise WorkerDiedError(self._why()) from error

    def _end_soon(self) -> None:
        """Ask workers to stop before their next iteration, and wait for a while until they have."""
        self._stop.value = 1
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._wait_for_ends()

    def _wait_for_ends(self) -> None:
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        # The pool waits for them as well. Whoever of two comes second is told the exit code a moment later.
        while time.monotonic() < deadline and any(process.exitcode is None for process in self._context.started):
            time.sleep(_LOOK_EVERY_S)

    def _kill(self) -> None:
        for process in self._context.started:
            with contextlib.suppress(ValueError, AttributeError):  # it was closed, and so it has ended; or never begun
                process.kill()

    def _why(self) -> str:
        """What killed the pool. It ends the other workers by SIGTERM then."""
        self._wait_for_ends()
        codes = {process.exitcode or 0 for process in self._context.started} - {0, -signal.SIGTERM}
        ends = ", ".join(sorted(map(_described, codes or {-signal.SIGTERM})))
        return (
            f"a worker process {ends}. What was saved stays: resume_experiment goes on from there. Was it short of "
            "memory? If it ended at once: a script must start experiments below `if __name__ == '__main__':`, since "
            "each worker imports it"
        )


def _described(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class _RecordingContext(SpawnContext):
    """Remembers the processes that an executor starts; it does not say which they are."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802 - its name there
        process = SpawnProcess(*args, **kwargs)
        self.started.append(process)
        return process


class _StoppableCounts(TrialCounts):
    """Counts in a worker, and whether the first process wants it to stop."""

    def __init__(self, counts: TrialCounts, stop: Any) -> None:
        super().__init__(counts.names, counts.iterations, counts.n_trials, counts.cells)
        self._stop = stop

    @override
    def is_stopped(self) -> bool:
        return bool(self._stop.value)


def _begin(counts: _StoppableCounts) -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="statevault-parent", daemon=True).start()
    watch_trials_with(counts)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""What an action costs: seconds, CPU seconds of the process, and its peak of memory."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["MemoryWatch", "Timing", "timed"]

_PERIOD_S = 0.02
_STAGED = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Timing:
    """When an action ran, and its CPU time.

    Attributes:
        began: On the monotonic clock that all processes share.
        ended: The same.
        cpu_s: Of all threads of the process; the server's is not in it.
    """

    began: float
    ended: float
    cpu_s: float


def timed(action: Callable[[], Any]) -> Timing:
    """Perform an action once and measure it."""
    gc.collect()
    cpu = _cpu_s()
    began = time.monotonic()
    action()
    ended = time.monotonic()
    return Timing(began, ended, _cpu_s() - cpu)


class MemoryWatch:
    """Looks at the memory of another process from outside, so that the process itself is not slowed down.

    What counts is private memory and what the process has staged in tmpfs; mapped files, which the kernel can
    drop, and the page cache do not. A peak of less than the period of 20 ms may be missed.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    @contextlib.contextmanager
    def on(self, pid: int) -> Iterator[None]:
        """Watch a process until the block ends."""
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(pid, done), name="memory-watch")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def growth(self, timing: Timing) -> int:
        """Return by how many bytes the memory grew at most during an action."""
        before = [used for at, used in self._samples if at <= timing.began]
        during = [used for at, used in self._samples if timing.began < at <= timing.ended]
        return max(0, max(during, default=0) - before[-1]) if before else 0

    def _watch(self, pid: int, done: threading.Event) -> None:
        while not done.wait(_PERIOD_S):
            used = _private_bytes(pid)
            if used is not None:
                self._samples.append((time.monotonic(), used + _staged_bytes(pid)))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _private_bytes(pid: int) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


def _staged_bytes(pid: int) -> int:
    """Return the bytes in the staging folders that statevault names after the process."""
    total = 0
    for own in (_STAGED / f"statevault-{os.getuid()}").glob(f"{pid}-*"):
        for folder, _, files in os.walk(own):
            for name in files:
                with contextlib.suppress(OSError):
                    total += os.stat(f"{folder}/{name}").st_blocks * 512  # noqa: PTH116 - 50 times a second
    return total

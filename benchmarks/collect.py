"""Collecting samples, as the acting loop does it in every step."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from typing_extensions import override

from benchmarks.measure import Effort, interleaved, seconds_per_call
from benchmarks.report import Row, Section
from statevault.data import DataCollector
from statevault.data.impls import SequentialBuffer

__all__ = ["run"]

_FIELDS = ("observation", "action", "reward", "done")


class LockedQueue:
    """A queue of samples as it is commonly made: a deque, a lock, and nothing that looks at the sample."""

    def __init__(self, size: int) -> None:
        self._queue: deque[dict[str, Any]] = deque(maxlen=size)
        self._times: deque[float] = deque(maxlen=size)
        self._lock = threading.RLock()

    def collect(self, sample: dict[str, Any]) -> None:
        """Append a sample."""
        with self._lock:
            self._queue.append(sample)


class TimedQueue(LockedQueue):
    """The same with the time of collection, which trainers need to tell what is new."""

    @override
    def collect(self, sample: dict[str, Any]) -> None:
        """Append a sample and the time."""
        with self._lock:
            self._queue.append(sample)
            self._times.append(time.time())


def run(effort: Effort) -> Section:
    """Measure collecting, with fields that are checked and with samples of any type."""
    size = 10_000
    calls = effort.pick(300_000, 50_000, 100)
    by_field: DataCollector[Any] = DataCollector(SequentialBuffer(_FIELDS, size))
    of_any: DataCollector[Any] = DataCollector(SequentialBuffer(size))
    sample = {"observation": 1.0, "action": 2, "reward": 0.5, "done": False}

    def collecting(collector: Any) -> Any:
        def loop(times: int) -> None:
            collect = collector.collect
            for _ in range(times):
                collect(sample)

        return loop

    seconds = interleaved(
        {
            name: seconds_per_call(collecting(collector), calls)
            for name, collector in (
                ("fields", by_field),
                ("any", of_any),
                ("peer", LockedQueue(size)),
                ("timed", TimedQueue(size)),
            )
        },
        effort.pick(7, 3, 1),
    )
    per_second = {name: spread.map(lambda s: 1 / s) for name, spread in seconds.items()}
    return Section(
        "collect",
        "samples collected per second",
        "a method that appends to a deque under a lock: no check of the fields, no time of collection",
        [
            Row("collect(), four fields checked", per_second["fields"], per_second["peer"], "1/s", "higher"),
            Row(
                "collect(), four fields checked",
                per_second["fields"],
                per_second["timed"],
                "1/s",
                "higher",
                against="notes the time as well",
            ),
            Row("collect(), samples of any type", per_second["any"], per_second["peer"], "1/s", "higher"),
        ],
    )

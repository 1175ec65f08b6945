"""A replay buffer of images: adding, reading, drawing, saving, memory. Each side runs in a process of its own."""

from __future__ import annotations

import os
import pickle
import random
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.measure import Effort, Spread, in_child, seconds_of
from benchmarks.report import Row, Section
from statevault.data import DataUser
from statevault.data.impls import SequentialBuffer

__all__ = ["run"]

Sample = dict[str, Any]

_FIELDS = ("image", "reward", "action")
_SMALL_FIELDS = ("observation", "reward", "action")
_BATCH = 256
_PER_UPDATE = 256


class Side(Protocol):
    """What is measured of both."""

    def collect(self, samples: Iterable[Sample]) -> None:
        """Queue samples."""

    def update(self) -> None:
        """Move the queued samples into the buffer."""

    def get_data(self) -> Any:
        """All samples, as lists by field."""

    def sample(self, n: int) -> Any:
        """A batch, as arrays by field."""

    def save(self, path: Path) -> None:
        """Write all samples."""


class Ours:
    """A data user with a sequential buffer."""

    def __init__(self, fields: Iterable[str], size: int) -> None:
        self._user = DataUser(SequentialBuffer(fields, size, seed=0))

    def collect(self, samples: Iterable[Sample]) -> None:
        collect = self._user.collector.collect
        for sample in samples:
            collect(sample)

    def update(self) -> None:
        self._user.update()

    def get_data(self) -> Any:
        return self._user.get_data()

    def sample(self, n: int) -> Any:
        return self._user.sample(n)

    def save(self, path: Path) -> None:
        self._user.save_state(path)


class Deques:
    """A deque of the samples and one of their times, filled from a queue."""

    def __init__(self, fields: Iterable[str], size: int) -> None:
        self._fields = tuple(fields)
        self._queue: deque[tuple[Sample, float]] = deque(maxlen=size)
        self._samples: deque[Sample] = deque(maxlen=size)
        self._times: deque[float] = deque(maxlen=size)
        self._lock = threading.RLock()

    def collect(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            with self._lock:
                self._queue.append((sample, time.time()))

    def update(self) -> None:
        with self._lock:
            while self._queue:
                sample, timestamp = self._queue.popleft()
                self._samples.append(sample)
                self._times.append(timestamp)

    def get_data(self) -> Any:
        return {name: [sample[name] for sample in self._samples] for name in self._fields}

    def sample(self, n: int) -> Any:
        picks = random.sample(self._samples, n)
        return {name: np.stack([sample[name] for sample in picks]) for name in self._fields}

    def save(self, path: Path) -> None:
        path.mkdir()
        with (path / "samples.pkl").open("wb") as file:
            pickle.dump((self._samples, self._times), file, protocol=pickle.HIGHEST_PROTOCOL)


class DequesByField(Deques):
    """A deque for each field: the fastest lists of all. It is measured for these alone."""

    def __init__(self, fields: Iterable[str], size: int) -> None:
        super().__init__(fields, size)
        self._columns: dict[str, deque[Any]] = {name: deque(maxlen=size) for name in self._fields}

    def update(self) -> None:
        with self._lock:
            while self._queue:
                sample, timestamp = self._queue.popleft()
                for name, column in self._columns.items():
                    column.append(sample[name])
                self._times.append(timestamp)

    def get_data(self) -> Any:
        return {name: list(column) for name, column in self._columns.items()}


_SIDES: dict[str, type[Ours | Deques]] = {"ours": Ours, "peer": Deques, "by field": DequesByField}


def measured(side: str, count: int, rounds: int) -> dict[str, list[float]]:
    """Fill one side, then measure what is done with it; runs in a child process."""
    random.seed(0)
    rng = np.random.default_rng(0)
    small = _SIDES[side](_SMALL_FIELDS, 10_000)
    observations = rng.standard_normal((_PER_UPDATE, 4))
    small_seconds = []
    for _ in range(max(1, min(count // _PER_UPDATE, 100))):
        small.collect({"observation": row, "reward": 0.5, "action": 1} for row in observations)
        small_seconds.append(seconds_of(small.update))
    del small

    images = rng.integers(0, 256, size=(_PER_UPDATE, 84, 84), dtype=np.uint8)
    before = _resident_bytes()
    subject: Side = _SIDES[side](_FIELDS, count)
    cycle_seconds = []
    for start in range(0, count, _PER_UPDATE):
        some = images[: count - start]
        cycle_seconds.append(seconds_of(partial(_cycle, subject, some)) / len(some))
    held = _resident_bytes() - before
    seconds: dict[str, list[float]] = {
        "add small": [Spread.of(small_seconds).median / _PER_UPDATE],
        "cycle": [Spread.of(cycle_seconds).median],
        "memory": [held / count],
        "add": [],
        "get_data": [],
        "sample": [],
        "save": [],
    }
    for _ in range(rounds):
        subject.collect(map(_sample, images))
        seconds["add"].append(seconds_of(subject.update) / len(images))
        seconds["get_data"].append(seconds_of(subject.get_data))
        if side == "by field":
            continue
        draws = [seconds_of(lambda: subject.sample(min(_BATCH, count))) for _ in range(5)]
        seconds["sample"].append(Spread.of(draws).median)
        with tempfile.TemporaryDirectory() as folder:
            seconds["save"].append(seconds_of(partial(subject.save, Path(folder, "buffer"))))
    return seconds


def run(effort: Effort) -> Section:
    """Measure a full buffer of 84x84 images beside a deque of dicts."""
    count = effort.pick(100_000, 10_000, 300)
    turns, rounds = effort.pick(2, 1, 1), effort.pick(2, 2, 1)
    figures: dict[str, dict[str, list[float]]] = {side: {} for side in _SIDES}
    for _ in range(turns):
        for side, of_side in figures.items():
            for name, values in in_child(measured, side, count, rounds).items():
                of_side.setdefault(name, []).extend(values)

    def row(what: str, name: str, unit: str, scale: float, *, peer: str = "peer", against: str | None = None) -> Row:
        ours, theirs = (Spread.of(figures[side][name]).map(lambda value: value * scale) for side in ("ours", peer))
        return Row(what, ours, theirs, unit, "lower", against)

    return Section(
        "buffers",
        f"{count:,} samples of an 84x84 uint8 image, a float and an int",
        "a deque of dicts, filled from a queue under a lock; random.sample and numpy.stack; pickle",
        [
            row("an image made, collected and moved", "cycle", "µs", 1e6),
            row(f"update(), one of {_PER_UPDATE} images", "add", "µs", 1e6),
            row(f"update(), one of {_PER_UPDATE} vectors of 4", "add small", "µs", 1e6),
            row("get_data()", "get_data", "ms", 1e3),
            row("get_data()", "get_data", "ms", 1e3, peer="by field", against="a deque for each field"),
            row(f"sample({min(_BATCH, count)})", "sample", "ms", 1e3),
            row("save to a local folder", "save", "s", 1.0),
            row("memory of one sample", "memory", "B", 1.0),
        ],
    )


def _sample(image: np.ndarray[Any, Any]) -> Sample:
    """A sample in memory of its own, as an environment makes it."""
    return {"image": image.copy(), "reward": float(image[0, 0]), "action": int(image[0, 1])}


def _cycle(subject: Side, images: np.ndarray[Any, Any]) -> None:
    subject.collect(map(_sample, images))
    subject.update()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

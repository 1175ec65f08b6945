"""The training side of a data pipeline: a buffer, and the times at which its samples were collected."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Generic

import numpy as np
from typing_extensions import TypeVar, override

from statevault.data.buffer import DataBuffer
from statevault.data.collector import DataCollector
from statevault.data.columns import Column
from statevault.errors import PickleNotAllowedError, UnsupportedTypeError
from statevault.state_persistence import PersistentStateMixin, load_pickle, read_tree, write_tree

__all__ = ["DataUser"]

R = TypeVar("R", default=Any)

_WAITING = "waiting.tree"


class DataUser(PersistentStateMixin, Generic[R]):
    """Moves collected samples into a buffer and reads it. All methods may be called from any thread.

    A state has all samples that were collected before the instant that it pictures: the acting loop stands still while
    it is saved, and :meth:`save_state` begins by moving what waits into the buffer.
    """

    def __init__(self, buffer: DataBuffer[Any, R]) -> None:
        """Initialize.

        Args:
            buffer: The buffer, which from now on only this object touches.
        """
        self._buffer = buffer
        self._collector: DataCollector[Any] = DataCollector(buffer)
        self._timestamps = self._empty_timestamps()
        self._lock = RLock()
        # How many samples were ever moved into the buffer, and how many when it was saved early.
        self._moved = 0
        self._moved_at_save = 0

    @property
    def buffer(self) -> DataBuffer[Any, R]:
        """The buffer."""
        return self._buffer

    @property
    def collector(self) -> DataCollector[Any]:
        """The collector whose samples this object gets."""
        return self._collector

    def update(self) -> None:
        """Move the collected samples into the buffer.

        Raises:
            Exception: Whatever the buffer raises for a sample that it can't add; that sample is lost, the
                later ones are moved by the next update.
        """
        with self._lock:
            samples = self._collector.drain()
            if samples:
                self._add(samples)

    def _add(self, samples: Sequence[tuple[float, Any]]) -> None:
        waiting = iter(samples)
        added = len(samples)
        self._moved += added
        try:
            self._buffer.extend(sample for _, sample in waiting)
        except BaseException:
            # What the buffer did not take waits again; the last one that it took is the one that it refused.
            left = list(waiting)
            self._collector.put_back(left)
            added -= len(left) + 1
            raise
        finally:
            self._timestamps.extend([timestamp for timestamp, _ in samples[:added]])
            self._drop_old_timestamps()

    def get_data(self) -> R:
        """Move the collected samples into the buffer and return all that it holds."""
        with self._lock:
            self.update()
            return self._buffer.get_data()

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> Any:
        """Move the collected samples into the buffer and draw some of what it holds.

        Args:
            n: How many samples to draw, uniformly and with replacement.
            rng: A random generator, a seed, or None for the buffer's own generator.

        Returns:
            The drawn samples, stacked along a new first axis: see the buffer's ``sample``.

        Raises:
            ValueError: The buffer is empty, or ``n`` is negative.
        """
        with self._lock:
            self.update()
            return self._buffer.sample(n, rng)

    def count_data_added_since(self, timestamp: float) -> int:
        """Count the samples collected at or after a time that an :meth:`update` has moved into the buffer.

        Args:
            timestamp: A time of :func:`statevault.time.time`, in seconds.

        Returns:
            The count; at most the size of the collector's queue.
        """
        with self._lock:
            return self._timestamps.count_newest_from(timestamp)

    def __len__(self) -> int:
        """How many samples the buffer holds."""
        with self._lock:
            return len(self._buffer)

    @override
    def save_state(self, path: Path) -> None:
        """Move the collected samples into the buffer and save it, below a new folder ``path``."""
        with self._lock:
            self.update()
            path.mkdir(exist_ok=True)
            self._buffer.save_state(path / "buffer")
            write_tree(self._timestamps.record(), path / "timestamps.tree", held=True)

    def save_early(self, path: Path) -> None:
        """Do what :meth:`save_state` does, while samples may still be collected: they go on waiting."""
        with self._lock:
            self.save_state(path)
            self._moved_at_save = self._moved

    def save_late(self, path: Path) -> None:
        """Save the samples that have been collected since :meth:`save_early`, when nobody collects.

        Args:
            path: Where :meth:`save_early` has saved.
        """
        with self._lock:
            waiting = self._collector.waiting()
            try:
                if self._moved == self._moved_at_save:
                    if waiting:
                        write_tree(waiting, path / _WAITING, held=True)
                    return
            except (UnsupportedTypeError, PickleNotAllowedError):
                pass  # only the buffer knows how to store such samples
            # Or somebody has read the buffer meanwhile, so that it has got them: it is another one than was saved.
            shutil.rmtree(path)
            self.save_state(path)

    @override
    def load_state(self, path: Path) -> None:
        """Load the buffer; samples that wait for it are dropped.

        A folder that PAMIQ-Core wrote is read where pickles are allowed.

        Raises:
            FileNotFoundError: Nothing, or not all, was saved under this path.
            FormatError: A file there does not hold what it should.
        """
        with self._lock:
            timestamps = self._empty_timestamps()
            if (path / "timestamps.tree").exists() or not (path / "timestamps.pkl").exists():
                timestamps.restore(read_tree(path / "timestamps.tree"))
            else:
                for timestamp in load_pickle(path / "timestamps.pkl"):
                    timestamps.append(float(timestamp))
            waiting = read_tree(path / _WAITING) if (path / _WAITING).exists() else []
            self._buffer.load_state(path / "buffer")
            self._timestamps = timestamps
            self._collector.drain()
            if waiting:
                self._add([(float(timestamp), sample) for timestamp, sample in waiting])

    def _drop_old_timestamps(self) -> None:
        excess = len(self._timestamps) - (self._buffer.max_queue_size or len(self._timestamps))
        if excess > 0:
            self._timestamps.drop_oldest(excess)

    def _empty_timestamps(self) -> Column:
        # An unbounded queue gets segments of the usual size.
        return Column(max_rows=self._buffer.max_queue_size or 1 << 20)

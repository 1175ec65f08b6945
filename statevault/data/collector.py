"""The acting side of a data pipeline: a bounded queue of samples and the times of their collection."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic

from typing_extensions import TypeVar

from statevault import time
from statevault.data.buffer import DataBuffer

__all__ = ["DataCollector"]

T = TypeVar("T", default=Any)


class DataCollector(Generic[T]):
    """Collects samples in one thread, for a :class:`~statevault.data.DataUser` in another.

    There is no lock: appending to and popping from a deque are atomic, so collecting never waits for
    training.
    """

    def __init__(self, buffer: DataBuffer[Any, Any]) -> None:
        """Initialize with an empty queue.

        Args:
            buffer: The buffer that the samples are for: it bounds the queue and knows what a sample looks
                like.
        """
        self._validate = buffer.validate
        self._queue: deque[tuple[float, T]] = deque(maxlen=buffer.max_queue_size)

    def collect(self, data: T) -> None:
        """Queue a sample; a full queue drops its oldest one.

        Args:
            data: The sample. It is not copied here: it must not be changed afterwards.

        Raises:
            SampleFieldsError: Its fields are not the ones that the buffer collects.
        """
        self._validate(data)
        self._queue.append((time.time(), data))

    def __len__(self) -> int:
        """How many samples wait to be moved into the buffer."""
        return len(self._queue)

    def drain(self) -> list[tuple[float, T]]:
        """Take all waiting samples, oldest first, with the times at which they were collected.

        Only the data user calls this: two threads that drain would each get a part.
        """
        # Not "until empty": a fast collector would keep the training thread here.
        return [self._queue.popleft() for _ in range(len(self._queue))]

    def waiting(self) -> list[tuple[float, T]]:
        """All waiting samples, oldest first, with the times at which they were collected; they go on waiting.

        Only to be called while nobody collects.
        """
        return list(self._queue)

    def put_back(self, samples: Sequence[tuple[float, T]]) -> None:
        """Let drained samples wait again, before those collected since; a full queue takes only the newest."""
        for sample in reversed(samples):
            if len(self._queue) == self._queue.maxlen:
                break
            self._queue.appendleft(sample)

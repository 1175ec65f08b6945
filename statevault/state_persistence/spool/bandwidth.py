"""A limit to how fast bytes are put to a storage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from statevault.storage import Body, Buffer, Storage, StorageWrapper
from statevault.storage.body import buffers, is_one_shot

__all__ = ["PacedStorage", "TokenBucket"]

_BLOCK_BYTES = 64 * 1024


class TokenBucket:
    """Gives out so many tokens a second, to any number of threads, one after the other.

    Who asks for more than there are gets them at once and waits until they would have come: so a request of any size
    is served, and those behind it wait the longer.

    Args:
        rate: Tokens per second.
        capacity: How many gather while nobody asks: what may go at once after a pause.
        clock: Seconds that only go forward.
        sleep: Waits for seconds; may raise.
    """

    def __init__(
        self,
        rate: float,
        *,
        capacity: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._capacity = capacity
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = capacity
        self._counted_at = clock()

    def take(self, count: int) -> None:
        """Take tokens, and wait until they would have come."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._capacity, self._tokens + (now - self._counted_at) * self._rate) - count
            self._counted_at = now
            wait_s = -self._tokens / self._rate
        if wait_s > 0:
            self._sleep(wait_s)


class PacedStorage(StorageWrapper):
    """A storage to which the bytes of each put go at a pace.

    A storage may gather the blocks of a large object to send several at once (16 MiB with S3): the pace holds on
    average over them.

    Args:
        inner: Where the calls go.
        pace: Called before each block with the object's key and the block's size in bytes; waits until it may go, or
            raises. What is put again counts again, since it is sent again.
    """

    def __init__(self, inner: Storage, pace: Callable[[str, int], None]) -> None:
        super().__init__(inner)
        self._pace = pace

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        paced = _PacedBody(body, partial(self._pace, key))
        return super().put(key, iter(paced) if is_one_shot(body) else paced, create_only=create_only)


@dataclass(frozen=True, slots=True)
class _PacedBody(Iterable[Buffer]):
    """A body in small blocks, each of which waits for its turn. It can be read again if the body inside can."""

    body: Body
    pace: Callable[[int], None]

    @override
    def __iter__(self) -> Iterator[Buffer]:
        for view in buffers(self.body):
            for start in range(0, view.nbytes, _BLOCK_BYTES):
                block = view[start : start + _BLOCK_BYTES]
                self.pace(block.nbytes)
                yield block

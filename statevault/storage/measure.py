"""How fast a storage is, and what its clock says. Everything that is put for that is deleted again."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from statevault.errors import StorageError
from statevault.storage.interface import Storage
from statevault.storage.probe import PROBE_PREFIX
from statevault.worker_pool import parallel_map

__all__ = [
    "SEVERAL_PARTS",
    "ClockDifference",
    "Throughput",
    "Timings",
    "measure_clock",
    "measure_latency",
    "measure_throughput",
]

SEVERAL_PARTS = 17 << 20
"""Bytes; what is larger goes up in several parts where the backend does that."""
_BLOCK_BYTES = 1 << 20
_READ_BYTES = 8 << 20
_CONCURRENT_READS = 8


@dataclass(frozen=True, slots=True)
class Timings:
    """How long one kind of request took.

    Attributes:
        seconds: Of each request.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds that half of them took at most."""
        return median(self.seconds)

    @property
    def worst(self) -> float:
        """Seconds that the slowest one took."""
        return max(self.seconds)


@dataclass(frozen=True, slots=True)
class Throughput:
    """How long one large object took.

    Attributes:
        size: Bytes of it.
        up_s: Seconds to put it.
        down_s: Seconds to read it, in several ranges at once.
        intact: Whether what was read is what was put.
    """

    size: int
    up_s: float
    down_s: float
    intact: bool


@dataclass(frozen=True, slots=True)
class ClockDifference:
    """What the backend's clock says.

    Attributes:
        ahead_s: By how many seconds it is ahead of this machine's; negative if it is behind.
        uncertainty_s: How far that may be off.
    """

    ahead_s: float
    uncertainty_s: float


def measure_latency(storage: Storage, *, count: int = 10) -> dict[str, Timings]:
    """Time small requests, one after the other.

    Args:
        storage: The storage.
        count: How many of each kind.

    Returns:
        By kind: ``put``, ``get``, ``head``, ``list`` and ``delete``.

    Raises:
        StorageError: A request failed.
    """
    prefix = f"{PROBE_PREFIX}{secrets.token_hex(8)}/"
    keys = [f"{prefix}{number}" for number in range(count)]
    kinds: dict[str, Callable[[str], object]] = {
        "put": lambda key: storage.put(key, b"statevault latency"),
        "get": storage.get,
        "head": storage.head,
        "list": lambda key: list(storage.list(key)),
        "delete": lambda key: storage.delete([key]),
    }
    try:
        return {kind: Timings(tuple(_seconds(request, key) for key in keys)) for kind, request in kinds.items()}
    except BaseException:
        with contextlib.suppress(StorageError):
            storage.delete(keys)
        raise


def measure_throughput(storage: Storage, *, size: int, on_progress: Callable[[int], None] | None = None) -> Throughput:
    """Put and read one object of incompressible bytes, in the way in which states are put and read.

    Args:
        storage: The storage.
        size: Bytes, at least 1; with more than :data:`SEVERAL_PARTS` the upload is one in parts where there are such.
        on_progress: Called with the number of bytes sent or received since the last call, by several threads.

    Raises:
        StorageError: A request failed.
    """
    key = f"{PROBE_PREFIX}{secrets.token_hex(8)}/large"
    noise = _Noise(size, on_progress or (lambda count: None))
    try:
        began = time.perf_counter()
        storage.put(key, noise)
        up_s = time.perf_counter() - began

        def is_intact(start: int) -> bool:
            data = storage.get(key, start, min(start + _READ_BYTES, size))
            noise.on_progress(len(data))
            return noise.has(start, data)

        began = time.perf_counter()
        starts = range(0, size, _READ_BYTES)
        intact = all(parallel_map(is_intact, starts, workers=_CONCURRENT_READS, name="statevault-measure"))
        return Throughput(size, up_s, time.perf_counter() - began, intact)
    finally:
        with contextlib.suppress(StorageError):
            storage.delete([key])


def measure_clock(storage: Storage) -> ClockDifference | None:
    """Compare the backend's clock with this machine's.

    Returns:
        None where the backend does not tell when it stored an object.

    Raises:
        StorageError: A request failed.
    """
    key = f"{PROBE_PREFIX}{secrets.token_hex(8)}/clock"
    try:
        before = datetime.now(UTC)
        storage.put(key, b"statevault clock")
        after = datetime.now(UTC)
        modified = storage.head(key).modified
    finally:
        with contextlib.suppress(StorageError):
            storage.delete([key])
    if modified is None:
        return None
    # Most backends tell whole seconds: the object was stored somewhere within that second.
    resolution_s = 0.0 if modified.microsecond else 1.0
    middle = before + (after - before) / 2
    ahead_s = (modified - middle).total_seconds() + resolution_s / 2
    return ClockDifference(ahead_s, (after - before).total_seconds() / 2 + resolution_s / 2)


class _Noise:
    """Bytes that no link and no server can compress, made anew at each iteration; no block is like another."""

    def __init__(self, size: int, on_progress: Callable[[int], None]) -> None:
        self._size = size
        self._block = os.urandom(_BLOCK_BYTES)
        self.on_progress = on_progress

    def __iter__(self) -> Iterator[bytes]:
        for number in range(-(-self._size // _BLOCK_BYTES)):
            block = self._numbered(number)
            self.on_progress(len(block))
            yield block

    def has(self, start: int, data: bytes) -> bool:
        """Whether these are the bytes from `start` on, which is a multiple of a block's size."""
        first = start // _BLOCK_BYTES
        blocks = (data[offset : offset + _BLOCK_BYTES] for offset in range(0, len(data), _BLOCK_BYTES))
        return all(block == self._numbered(first + number) for number, block in enumerate(blocks))

    def _numbered(self, number: int) -> bytes:
        block = number.to_bytes(8, "big") + self._block[8:]
        return block[: self._size - number * _BLOCK_BYTES]


def _seconds(request: Callable[[str], object], key: str) -> float:
    began = time.perf_counter()
    request(key)
    return time.perf_counter() - began

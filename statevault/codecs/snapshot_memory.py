"""Memory for copies of large tensors that is kept when it has served, and written over by the next ones.

A copy into memory that is there already takes a fraction of the time of one into fresh pages, which the kernel has to
find and to clear first. Who waits for a snapshot of large tensors waits for little else.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

__all__ = ["SnapshotMemory"]

_MOST_TOO_LARGE = 1.25
_STEP = 1024**2


class SnapshotMemory:
    """Blocks of memory of one process. May be used by several threads.

    Args:
        available: How many bytes of memory the operating system has to give right now. Half of them are taken at most.
    """

    def __init__(self, available: Callable[[], int]) -> None:
        self._available = available
        self._lock = threading.Lock()
        # Oldest first.
        self._spares: list[mmap.mmap] = []
        self._given = 0

    @property
    def spare_size(self) -> int:
        """Bytes that lie ready."""
        with self._lock:
            return _size(self._spares)

    def take(self, size: int) -> mmap.mmap | None:
        """Get a block of at least `size` bytes (more than 0), with anything in it; None if there is no room for it."""
        with self._lock:
            fitting = [spare for spare in self._spares if size <= len(spare) <= max(_MOST_TOO_LARGE * size, _up(size))]
            if fitting:
                block = min(fitting, key=len)
                self._spares = [spare for spare in self._spares if spare is not block]
                self._given += len(block)
                return block
            if not self._has_room(size):
                _close(self._spares)
                self._spares = []
                if not self._has_room(size):
                    return None
            made = _new_block(size)
            self._given += 0 if made is None else len(made)
            return made

    def give_back(self, blocks: Sequence[mmap.mmap]) -> None:
        """Keep the blocks of a snapshot that nobody needs any more, and of those before only as much again."""
        with self._lock:
            self._spares += blocks
            wanted = _size(blocks)
            self._given -= wanted
            while _size(self._spares) > wanted:
                _close([self._spares.pop(0)])

    def clear(self) -> None:
        """Give all that lies ready to the operating system."""
        with self._lock:
            _close(self._spares)
            self._spares = []

    def _has_room(self, size: int) -> bool:
        # What was taken has been written since, and is not available any more.
        taken = self._given + _size(self._spares)
        return taken + size <= (self._available() + taken) // 2


def _size(blocks: Sequence[mmap.mmap]) -> int:
    return sum(map(len, blocks))


def _up(size: int) -> int:
    return -(-size // _STEP) * _STEP


def _new_block(size: int) -> mmap.mmap | None:
    # No huge pages: while the kernel makes room for one, it could clear several times as many small ones.
    try:
        return mmap.mmap(-1, _up(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return None  # a limit of the process (ulimit -v)


def _close(blocks: Sequence[mmap.mmap]) -> None:
    for block in blocks:
        # Somebody still looks at it: it is closed with the last view.
        with suppress(BufferError):
            block.close()

"""Tree files that a load receives into memory instead of writing them into a folder.

As with those that are held for a save (:mod:`~statevault.codecs.tree.held`), a stub stands for each of them. Its memory
serves mapped once: what is read out of it that way is that memory itself.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from statevault.codecs.buffers import copy_bytes
from statevault.codecs.tree.leaves import ByteSource
from statevault.codecs.tree.stubs import new_stub, read_stub
from statevault.errors import FormatError

__all__ = ["ReceivedTree", "find_received"]

_MAP_FROM = 64 * 1024


class ReceivedTree:
    """The memory of a tree file, and what stands for it.

    Args:
        size: Bytes of the file.

    Attributes:
        size: Bytes of the file.
        stub: What is to lie at its path.

    Raises:
        OSError: There is no such memory.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.stub = new_stub()
        self._block: mmap.mmap | None = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory = memoryview(self._block)
        self._is_intact: Callable[[memoryview], bool] = lambda content: False
        self._lock = threading.Lock()
        self._readers = 0
        self._is_given_away = False
        self._is_released = False
        _all[self.stub] = self

    @property
    def memory(self) -> memoryview:
        """Where its bytes belong."""
        return self._memory

    def complete(self, is_intact: Callable[[memoryview], bool]) -> None:
        """Say that all bytes are there.

        Args:
            is_intact: Whether a copy of them is what they were.
        """
        self._is_intact = is_intact

    @contextmanager
    def reading(self, *, mapped: bool) -> Iterator[ByteSource]:
        """Its bytes, to be decoded meanwhile: nobody changes them or gives them back.

        Args:
            mapped: Give the memory of large segments away, to the first who asks for it while nobody else reads. Who
                has it may change it: all others get a copy from then on.

        Raises:
            FormatError: What was given away was changed, or the load is over.
        """
        with self._lock:
            if self._is_released:
                raise FormatError("it was held in memory for a load, which is over")
            memory, was_given_away = self._memory, self._is_given_away
            gives_away = mapped and not was_given_away and not self._readers
            self._is_given_away |= gives_away
            self._readers += 1
        try:
            if was_given_away:
                memory = self._intact_copy()
            yield _Source(memory, mapped=gives_away or (mapped and was_given_away))
        finally:
            self._end_reading()

    def release(self) -> None:
        """Hold nothing any more: the load is over. What was given away stays for as long as somebody has it."""
        _all.pop(self.stub, None)
        with self._lock:
            self._is_released = True
            if not self._readers:
                self._drop()

    def leave_to_the_parent(self) -> None:
        """Hold nothing in a child process, which would keep for its life what the load gives back."""
        self._lock = threading.Lock()  # a thread that is not here may have held it
        self._readers = 0
        self.release()

    def _end_reading(self) -> None:
        with self._lock:
            self._readers -= 1
            if self._is_released and not self._readers:
                self._drop()

    def _intact_copy(self) -> memoryview:
        # The copy is what is looked at: whoever has the memory may change it at any time.
        copy = memoryview(bytearray(self._memory))
        if not self._is_intact(copy):
            raise FormatError(
                "somebody has read the file with mapped=True and has changed what that gave out, which was the file "
                "itself: read it once, or without mapped=True"
            )
        return copy

    def _drop(self) -> None:
        if self._block is not None and not self._is_given_away:
            # At once, and not when the last view is gone: the traceback of an error that broke the load has some.
            with suppress(OSError):  # memory that is locked (mlockall) waits for that
                self._block.madvise(mmap.MADV_DONTNEED)
        self._block, self._memory = None, memoryview(b"")


class _Source:
    def __init__(self, memory: memoryview, *, mapped: bool) -> None:
        self._memory = memory
        self._mapped = mapped

    @property
    def size(self) -> int:
        return self._memory.nbytes

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._memory[offset : offset + length])

    def read_into(self, offset: int, target: memoryview) -> None:
        copy_bytes(self._memory[offset : offset + target.nbytes], target)

    def mapped(self, offset: int, length: int) -> memoryview | None:
        # The others are not worth that all of the memory is kept for them.
        return self._memory[offset : offset + length] if self._mapped and length >= _MAP_FROM else None


# Those that live, by their stubs.
_all: weakref.WeakValueDictionary[bytes, ReceivedTree] = weakref.WeakValueDictionary()


def find_received(path: Path) -> ReceivedTree | None:
    """The tree that was received for a load which goes on, if a file is the stub of one."""
    stub = read_stub(path)
    return None if stub is None else _all.get(stub)


def _leave_all_to_the_parent() -> None:
    for tree in list(_all.values()):
        tree.leave_to_the_parent()


os.register_at_fork(after_in_child=_leave_all_to_the_parent)

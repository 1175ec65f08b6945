"""Large files in memory that have served, and are written over by the next ones.

A copy into memory that is there already takes a fraction of the time of one into fresh pages, which the kernel has to
find and to clear first. Who waits for a snapshot of large tensors waits for little else.
"""

from __future__ import annotations

import logging
import mmap
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SpareFiles", "open_to_write", "reusing"]

_logger = logging.getLogger(__name__)
_WRITE_BUFFER = 256 * 1024
_LARGE = 1024**2
_MOST_TOO_LARGE = 1.25
# Each keeps a descriptor of the process open.
_MOST_FILES = 32


@dataclass(frozen=True, slots=True)
class _Spare:
    path: Path
    size: int
    mapped: mmap.mmap


@dataclass(frozen=True, slots=True)
class _Written:
    folder: Path
    mapped: mmap.mmap | None


class SpareFiles:
    """The spare files of one process. May be used by several threads.

    Args:
        home: A folder in memory (tmpfs), which belongs to this process alone: only what is written below it is written
            over what lies there.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder = home / "spare"
        self._process = os.getpid()
        self._lock = threading.Lock()
        # Oldest first.
        self._spares: list[_Spare] = []
        # What was written through here, by inode. No other files are used again: whoever wrote those may still have
        # them open.
        self._written: dict[int, _Written] = {}

    @property
    def size(self) -> int:
        """Bytes that lie ready."""
        return sum(spare.size for spare in self._spares)

    def serves(self, path: Path) -> bool:
        """Whether a file lies where spare files may take its name, and this is the process that they belong to."""
        return path.is_relative_to(self._home) and os.getpid() == self._process

    def note(self, path: Path, descriptor: int, mapped: mmap.mmap | None = None) -> None:
        """Remember a file that was written.

        Args:
            path: Where, if it has not been renamed since within its folder.
            descriptor: Of the open file.
            mapped: All of it.
        """
        with self._lock:
            self._written[os.fstat(descriptor).st_ino] = _Written(path.parent, mapped)

    def wrote(self, path: Path) -> bool:
        """Whether a file below the home was written through here, and is nobody's who could write on."""
        status = path.stat()
        with self._lock:
            return status.st_nlink == 1 and status.st_ino in self._written

    def recycle(self, folder: Path) -> None:
        """Keep the large files below a folder that nobody needs any more, and of those before only as much again.

        It takes some time, for the sake of the thread that writes the next ones.
        """
        found = [spare for spare in map(self._spare, _large_files(folder)) if spare is not None]
        with self._lock:
            # What was written there and removed since is mapped for nothing.
            for inode in [inode for inode, written in self._written.items() if written.folder.is_relative_to(folder)]:
                _close(self._written.pop(inode).mapped)
            self._spares += found
            wanted = sum(spare.size for spare in found)
            while self.size > wanted or len(self._spares) > _MOST_FILES:
                _remove(self._spares.pop(0))

    def take(self, target: Path, size: int) -> mmap.mmap | None:
        """Give a spare file another name.

        Args:
            target: The name, below the home.
            size: Bytes that will be written.

        Returns:
            So many bytes of it, mapped: all of it then. None if there is none of about that size.
        """
        with self._lock:
            fitting = [spare for spare in self._spares if size <= spare.size <= _MOST_TOO_LARGE * size]
            if not fitting:
                return None
            spare = min(fitting, key=lambda spare: spare.size)
            self._spares.remove(spare)
        try:
            spare.path.rename(target)
            if spare.size == size:
                return spare.mapped
            os.truncate(target, size)
            return _mapped(target)
        except OSError as error:
            _logger.debug("No spare file for %s: %s", target, error)
            spare.path.unlink(missing_ok=True)
            target.unlink(missing_ok=True)
            return None

    def clear(self) -> None:
        """Give the memory back."""
        with self._lock:
            for spare in self._spares:
                _remove(spare)
            for written in self._written.values():
                _close(written.mapped)
            self._spares.clear()
            self._written.clear()

    def _spare(self, file: tuple[Path, int, int]) -> _Spare | None:
        path, size, inode = file
        with self._lock:
            written = self._written.pop(inode, None)
        if written is None:
            return None
        try:
            mapped = written.mapped or _mapped(path)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return _Spare(path.rename(self._folder / secrets.token_hex(8)), size, mapped)
        except OSError as error:
            # It is removed with its folder.
            _logger.debug("%s is not kept: %s", path, error)
            return None


_current: ContextVar[SpareFiles | None] = ContextVar("statevault_spare_files", default=None)


@contextmanager
def reusing(spares: SpareFiles | None) -> Iterator[None]:
    """Let :func:`open_to_write` use spare files inside a ``with`` block, in this thread (or task)."""
    token = _current.set(spares)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def open_to_write(path: Path, size: int) -> Iterator[Callable[[bytes | memoryview], object]]:
    """Open a new file.

    Args:
        path: Where; no file lies there.
        size: Bytes that will be written, exactly.

    Yields:
        What writes bytes, or a flat view of them.

    Raises:
        OSError: The file can't be written.
    """
    spares = _current.get() if size >= _LARGE else None
    if spares is not None and not spares.serves(path):
        spares = None
    mapped = None if spares is None else spares.take(path, size)
    if spares is None or mapped is None:
        with path.open("wb", buffering=_WRITE_BUFFER) as file:
            yield file.write
            if spares is not None:
                spares.note(path, file.fileno())
        return
    yield _Writer(mapped).write
    with path.open("rb") as file:
        spares.note(path, file.fileno(), mapped)


class _Writer:
    def __init__(self, target: mmap.mmap) -> None:
        self._target = target
        self._at = 0

    def write(self, data: bytes | memoryview) -> None:
        import numpy as np  # noqa: PLC0415 - nobody needs it who writes nothing large

        if not len(data):
            return
        source = np.frombuffer(data, np.uint8)
        # Unlike an assignment to a slice of a memoryview, this lets other threads go on.
        np.copyto(np.frombuffer(self._target, np.uint8, count=source.size, offset=self._at), source)
        self._at += source.size


def _large_files(folder: Path) -> list[tuple[Path, int, int]]:
    """The path, size and inode of the largest files that have one name, largest last."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            status = path.lstat()
            if status.st_size >= _LARGE and status.st_nlink == 1:
                found.append((path, status.st_size, status.st_ino))
    return sorted(found, key=lambda file: file[1])[-_MOST_FILES:]


def _mapped(path: Path) -> mmap.mmap:
    """Map a file, no page of which is missing: the kernel would end a process that needs one and finds no memory."""
    import numpy as np  # noqa: PLC0415 - as above

    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    # All pages are looked up now, while other threads go on.
    np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE].max()
    return mapped


def _remove(spare: _Spare) -> None:
    _close(spare.mapped)
    spare.path.unlink(missing_ok=True)


def _close(mapped: mmap.mmap | None) -> None:
    if mapped is not None:
        # Another thread writes into it right now: it is closed with the last reference.
        with suppress(BufferError):
            mapped.close()

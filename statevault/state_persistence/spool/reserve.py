"""A little room on the disk that is given up when the disk is full.

To drop a state is to write: an intent, and a tombstone for each. To take back a save that found no room is to write a
tombstone, too. On a disk that somebody else has filled to the last byte these fit only where something else goes first,
without a record: these files, which hold nothing.

They are many small ones, since a file system may run out of inodes as well as of blocks. Their folder has the name of
an unfinished file, so that no listing shows it, but not one that a writer gives, so that nobody sweeps it. Whoever
deletes them does no harm: they are made again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from statevault.errors import StorageFullError
from statevault.state_persistence.spool.ledger import FOLDER
from statevault.storage.keys import TEMPORARY_PREFIX
from statevault.storage.local.file_calls import FileCalls

__all__ = ["LEAST_RESERVED_FILES", "RESERVED_FILES", "Reserve"]

_logger = logging.getLogger(__name__)

RESERVED_FILES = 32
LEAST_RESERVED_FILES = 4
"""Enough to drop one state: for an intent, a tombstone, and the folders of both."""
_FILE_BYTES = 8 * 1024

_Result = TypeVar("_Result")


class Reserve:
    """The reserve of one spool, which works without one, until the disk is full. May be used by several threads.

    Args:
        root: The spool's folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._calls = FileCalls()
        self._folder = Path(root, FOLDER, f"{TEMPORARY_PREFIX}reserve")
        self._lock = threading.RLock()
        self._paths = [self._folder / f"{number:02d}" for number in range(RESERVED_FILES)]

    def fill(self, count: int = RESERVED_FILES) -> None:
        """Make what is missing, as far as there is room; also what a crash has left half-made.

        Args:
            count: How many files there are to be, at least.
        """
        try:
            with self._lock:  # not while somebody writes in its place
                if not self._folder.is_dir():
                    self._calls.mkdir(str(self._folder))
                for path in self._paths[:count]:
                    if not _is_whole(path):
                        self._make(path)
        except OSError as error:
            _logger.debug("the reserve of the spool is not whole: %s", error)

    def release(self) -> bool:
        """Give all of it up; returns whether there was any."""
        with self._lock:
            released = [path for path in self._paths if self._unlink(path)]
        return bool(released)

    def instead(self, write: Callable[[], _Result]) -> _Result:
        """Write something small, on a full disk in the place of the reserve; what is left of it is kept.

        Args:
            write: Writes it; may be called twice.

        Raises:
            StorageFullError: The disk is full, and there is no reserve.
            Exception: And whatever `write` raises.
        """
        try:
            return write()
        except StorageFullError:
            with self._lock:
                if not self.release():
                    raise
                try:
                    return write()
                finally:
                    self.fill()

    def start_anew(self) -> None:
        """In a forked child: a thread of its parent may have held the lock."""
        self._lock = threading.RLock()

    def _make(self, path: Path) -> None:
        self._unlink(path)
        try:
            descriptor = self._calls.create(str(path))
        except FileExistsError:
            return  # another process makes it
        try:
            # Bytes that no file system can store in less room, as it could a hole or zeros.
            left = memoryview(os.urandom(_FILE_BYTES))
            while left:
                left = left[self._calls.write(descriptor, left) :]
        except OSError:
            self._unlink(path)  # it may be the last bytes of the disk that it has
            raise
        finally:
            os.close(descriptor)

    def _unlink(self, path: Path) -> bool:
        try:
            self._calls.unlink(str(path))
        except OSError:
            return False
        return True


def _is_whole(path: Path) -> bool:
    try:
        return path.lstat().st_size == _FILE_BYTES
    except FileNotFoundError:
        return False

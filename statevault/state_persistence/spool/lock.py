"""Who uses a spool, and who replicates it: known by file locks that the kernel lets go of when their process dies."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path
from typing import Any

from statevault.storage.descriptors import DESCRIPTORS
from statevault.storage.os_errors import storage_error

__all__ = ["SpoolLock"]

_held: weakref.WeakSet[SpoolLock] = weakref.WeakSet()


class SpoolLock:
    """A lock on a file, which is made where it is missing, and stays.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """Take the lock, unless somebody else has it, or shares it; another object of this process is somebody else.

        Raises:
            StorageError: The file can't be made, or locked.
        """
        return self._descriptor is not None or self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def share(self) -> None:
        """Take the lock together with any number of others, or share what is held; waits for who holds it alone.

        Raises:
            StorageError: The file can't be made, or locked.
        """
        self._lock(fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is not None:
            os.close(descriptor)

    def _lock(self, operation: int) -> bool:
        descriptor = self._descriptor
        try:
            if descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                descriptor = DESCRIPTORS.instead(lambda: os.open(self._path, flags, 0o644))
                _held.add(self)
                self._descriptor = descriptor
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            self.release()
            return False
        except OSError as error:
            self.release()
            what = f"Can't lock the spool by {self._path}"
            raise storage_error(error, url=str(self._path.parent), key="", what=what) from error
        return True


def _leave_to_the_parent(*_: Any) -> None:
    """In a forked child: close its copies of the descriptors, which would hold the locks when the parent is dead."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_leave_to_the_parent)

"""An unfinished file: what a put writes to until all bytes are on the medium, and an object may have them.

It lies in the folder of the object, so that it becomes the object by one link or rename, and it is locked as long as it
is written to, so that :mod:`statevault.storage.local.debris` can tell whether somebody still does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress

from statevault.storage.body import buffers
from statevault.storage.descriptors import DESCRIPTORS
from statevault.storage.interface import Body
from statevault.storage.keys import TEMPORARY_PREFIX
from statevault.storage.local.file_calls import FileCalls

__all__ = ["UnfinishedFile", "is_unfinished"]

_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + r"\d+-[0-9a-f]{16}", re.ASCII)
# A filesystem without hard links says so by EPERM, ENOSYS, EOPNOTSUPP, ENOTSUPP (524), EACCES, EIO, EINVAL, EMLINK, …:
# there is no list of them. These errors alone say something else: that the disk is full or read-only, that the folder
# is gone, that the call was interrupted or timed out. Giving up the atomic call for them would let two writers have one
# name, where an error, or another try, is right.
_NOT_ABOUT_LINKS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EINTR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_COMPARE_BYTES = 1 << 20


def is_unfinished(name: str) -> bool:
    """Whether a file's name is one that :class:`UnfinishedFile` gives, and nobody else."""
    return _NAME.fullmatch(name) is not None


class UnfinishedFile:
    """A new file that is no object yet. Its methods raise OSError.

    Args:
        folder: Where it is made.
        calls: The calls that change the disk.

    Raises:
        FileNotFoundError: The folder is not there.
        OSError: The disk says no.
    """

    def __init__(self, folder: str, calls: FileCalls) -> None:
        self._calls = calls
        self._path = f"{folder}/{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        self._descriptor: int | None = calls.create(self._path)
        self._has_name = True
        with suppress(OSError):  # Not every filesystem can.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, body: Body) -> int:
        """Write all bytes and bring them onto the medium; returns how many. Nothing can be written after."""
        assert self._descriptor is not None
        size = 0
        for view in buffers(body):
            written = 0
            while written < view.nbytes:
                written += self._calls.write(self._descriptor, view[written:])
            size += view.nbytes
        # Before the name: after a crash a name without bytes would pass for the object.
        self._calls.fsync(self._descriptor, self._path)
        self._close()
        return size

    def replace(self, target: str) -> None:
        """Make it the object under a name, whatever lies there."""
        self._calls.replace(self._path, target)
        self._has_name = False

    def link(self, target: str) -> bool:
        """Make it the object under a name, if that is free; returns whether it is."""
        try:
            # The one call that decides this atomically.
            self._calls.link(self._path, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NOT_ABOUT_LINKS:
                raise
            # No hard links (FAT, Android, some network mounts): no better than the check before.
            if os.path.lexists(target):
                # A network mount may have made the link, and failed all the same.
                return os.path.samefile(self._path, target)  # noqa: PTH121
            self.replace(target)
        return True

    def equals(self, target: str) -> bool:
        """Whether it holds the same bytes as another file."""
        if not stat.S_ISREG(os.lstat(target).st_mode):
            return False  # A pipe would be waited for.
        # str paths, no Path per call
        with (
            DESCRIPTORS.opened(lambda: open(self._path, "rb")) as one,  # noqa: PTH123
            DESCRIPTORS.opened(lambda: open(target, "rb")) as two,  # noqa: PTH123
        ):
            while True:
                block = one.read(_COMPARE_BYTES)
                if block != two.read(_COMPARE_BYTES):
                    return False
                if not block:
                    return True

    def discard(self) -> None:
        """Take its own name away, if it still has it."""
        self._close()
        if self._has_name:
            self._has_name = False
            with suppress(FileNotFoundError):
                self._calls.unlink(self._path)

    def _close(self) -> None:
        if self._descriptor is not None:
            DESCRIPTORS.close(self._descriptor)
            self._descriptor = None

"""The calls to the operating system that decide what survives a crash of a local disk.

They stand in one place so that a crash-consistency test can record their order, or make one fail, without
patching :mod:`os`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from statevault.storage.descriptors import DESCRIPTORS

__all__ = ["FileCalls"]


class FileCalls:
    """The calls with which :class:`~statevault.storage.LocalStorage` changes the disk. All raise OSError."""

    def mkdir(self, path: str) -> None:
        """Make one folder."""
        os.mkdir(path)  # noqa: PTH102

    def create(self, path: str) -> int:
        """Make a new file and open it for writing; returns its descriptor."""
        return DESCRIPTORS.instead(lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of `data`; returns how many bytes."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int, path: str) -> None:
        """Bring a file or a folder, opened under `descriptor`, onto the medium."""
        if sys.platform == "darwin":
            # macOS' fsync leaves the data in the drive's volatile cache; network mounts know nothing else.
            try:
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            except OSError as error:
                if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.ENOTTY}:
                    raise
            else:
                return
        os.fsync(descriptor)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; fails if that name exists."""
        os.link(source, target)

    def replace(self, source: str, target: str) -> None:
        """Rename a file over whatever lies under `target`."""
        os.replace(source, target)  # noqa: PTH105

    def unlink(self, path: str) -> None:
        """Remove a name of a file."""
        os.unlink(path)  # noqa: PTH108

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)  # noqa: PTH106

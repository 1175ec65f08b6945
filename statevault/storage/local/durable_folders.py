"""Folders of a local disk, whose names must be on the medium before what lies in them counts as stored.

POSIX promises little: an fsync of a file brings its bytes onto the medium, one of a folder the names in it. Nothing
orders the two, or two folders. So a new object is safe only after an fsync of its folder, and of every folder above
that might be new, whoever made it. Which ones are known to be safe is remembered, so that this is paid for once.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress

from statevault.storage.descriptors import DESCRIPTORS, descriptor_limit
from statevault.storage.local.file_calls import FileCalls

__all__ = ["DurableFolders"]

_MAX_PINNED = 128
_LARGEST_PART = 16  # of the descriptors that the process may have
# What a filesystem without fsync for folders says; it brings names onto the medium by itself. 524 is ENOTSUPP, which
# Linux should keep to itself. Anything else may be a write that failed.
_NO_FSYNC = frozenset(
    {errno.EACCES, errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
    | {524}
)
_LOST = "an fsync of the folder above failed before, so a power cut may take this one; check the disk and restart"
_MEANWHILE = "an fsync failed meanwhile"


class DurableFolders:
    """The folders of one store, the root included, and those above it.

    Args:
        root: The store's root.
        calls: The calls that change the disk.
    """

    def __init__(self, root: str, calls: FileCalls) -> None:
        self._root = root
        self._calls = calls
        # Folders whose name, and those of all above, are on the medium, each held open. While it is open no folder made
        # later gets its inode number, so the number tells whether it is still the one under its path.
        self._pinned: OrderedDict[str, int] = OrderedDict()
        # A storage that is forgotten without being closed must not keep them open.
        weakref.finalize(self, _close_all, self._pinned).atexit = False
        # Folders whose name an fsync that failed should have written.
        self._lost: set[str] = set()
        self._failures = 0
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def failures(self) -> int:
        """How many fsyncs have failed.

        The kernel tells one caller of each failed write, and takes the page for clean. So whoever changes a name notes
        this number before, and hands it to what brings the change onto the medium.
        """
        return self._failures

    def make(self, folder: str) -> None:
        """Make a folder, and those above it where they are missing.

        Raises:
            FileNotFoundError: One of them was removed meanwhile.
            OSError: The disk says no.
        """
        try:
            self._calls.mkdir(folder)
        except FileExistsError:
            return  # A file there makes what follows fail with ENOTDIR.
        except FileNotFoundError:
            self.make(os.path.dirname(folder))  # noqa: PTH120
            try:
                self._calls.mkdir(folder)
            except FileExistsError:
                return
        # A new name, which the next fsync writes.
        self._lost.discard(folder)

    def sync(self, folder: str, *, failures: int) -> None:
        """Bring the names in a folder onto the medium, and its own name, and those of the folders above.

        Args:
            folder: The folder.
            failures: What :attr:`failures` was before its names were changed.

        Raises:
            OSError: The disk says no, or said no before to what can't be written again: the names can't be relied on.
        """
        try:
            descriptor = _open(folder)
        except FileNotFoundError:
            return  # Removed since, with all that was in it.
        try:
            self._fsync(descriptor, folder)
            with self._lock_of_this_process():
                self._sync_name(folder, descriptor, failures)
        finally:
            DESCRIPTORS.close(descriptor)
        self._check_failures(failures, folder)

    def sync_removals(self, folders: Iterable[str], *, failures: int) -> None:
        """Bring onto the medium that names have gone from folders, which may have gone themselves.

        Args:
            folders: The folders.
            failures: What :attr:`failures` was before the names went.

        Raises:
            OSError: The disk says no, or said no before.
        """
        # What lies in a folder whose own name is gone is gone with it.
        for folder in sorted({self._nearest(folder) for folder in folders}):
            try:
                descriptor = _open(folder)
            except FileNotFoundError:
                continue
            try:
                self._fsync(descriptor, folder)
            finally:
                DESCRIPTORS.close(descriptor)
            self._check_failures(failures, folder)

    def remove_empty(self, folder: str) -> None:
        """Remove a folder and those above it as far as they are empty; never the root."""
        while len(folder) > len(self._root):
            try:
                self._calls.rmdir(folder)
            except FileNotFoundError:
                pass  # Another delete was faster; the folder above may be ours to remove.
            except OSError:
                return  # Not empty, or not ours: an empty folder more does no harm.
            with self._lock_of_this_process():
                self._unpin(folder)
            folder = os.path.dirname(folder)  # noqa: PTH120

    def close(self) -> None:
        """Close what is held open. The next use begins anew."""
        with self._lock_of_this_process():
            _close_all(self._pinned)

    def _sync_name(self, path: str, descriptor: int | None, failures: int) -> None:
        """Bring the name of a folder (open, if it is the store's) onto the medium, and those of the folders above."""
        # The root may be a link: its own name is where the link leads.
        parent = os.path.dirname(os.path.realpath(path) if path == self._root else path)  # noqa: PTH120
        if parent == path or (descriptor is not None and self._is_pinned(path, descriptor)):
            return
        if path in self._lost:
            raise OSError(errno.EIO, _LOST, path)
        try:
            above = _open(parent)
        except FileNotFoundError:
            return  # Removed since, from the top.
        except PermissionError:
            if path.startswith(f"{self._root}/"):
                raise
            # Above the root are folders that this user can't read, and so has not made.
        else:
            try:
                self._fsync(above, parent)
                if self._holds(parent):
                    self._sync_name(parent, above, failures)
            finally:
                DESCRIPTORS.close(above)
            if not self._holds(parent):
                self._sync_name(parent, None, failures)
        self._check_failures(failures, parent)
        if descriptor is not None:
            # Only now: of a folder that is pinned those above are not looked at again.
            self._pin(path, descriptor)

    def _holds(self, path: str) -> bool:
        return path == self._root or path.startswith(f"{self._root}/")

    def _fsync(self, descriptor: int, path: str) -> None:
        try:
            self._calls.fsync(descriptor, path)
        except OSError as error:
            if error.errno in _NO_FSYNC:
                return
            if error.errno == errno.EIO:
                # Another fsync may succeed without writing anything. A file's name is written again by the next put of
                # it, but that of a folder is not. After other errors (a full disk) nothing is lost.
                self._failures += 1
                with suppress(OSError), os.scandir(path) as entries:
                    below = {entry.path for entry in entries if entry.is_dir(follow_symlinks=False)}
                    self._lost |= below - set(self._pinned)
            raise

    def _check_failures(self, before: int, path: str) -> None:
        if self._failures != before:
            raise OSError(errno.EIO, _MEANWHILE, path)

    def _is_pinned(self, path: str, descriptor: int) -> bool:
        pinned = self._pinned.get(path)
        if pinned is None:
            return False
        with suppress(OSError):  # A folder that a server has removed.
            if os.path.samestat(os.fstat(pinned), os.fstat(descriptor)):
                self._pinned.move_to_end(path)
                return True
        self._unpin(path)
        return False

    def _pin(self, path: str, descriptor: int) -> None:
        # Where few descriptors are left, the folder is made sure of once more the next time, which needs none for long.
        if DESCRIPTORS.are_whole:
            with suppress(OSError):
                self._pinned[path] = os.dup(descriptor)
        while len(self._pinned) > min(_MAX_PINNED, descriptor_limit() // _LARGEST_PART):
            os.close(self._pinned.popitem(last=False)[1])

    def _unpin(self, path: str) -> None:
        pinned = self._pinned.pop(path, None)
        if pinned is not None:
            os.close(pinned)

    def _nearest(self, folder: str) -> str:
        """The folder, or the nearest above that is there; never above the root."""
        while len(folder) > len(self._root) and not os.path.isdir(folder):  # noqa: PTH112
            folder = os.path.dirname(folder)  # noqa: PTH120
        return folder

    def _lock_of_this_process(self) -> threading.Lock:
        if self._pid != os.getpid():  # A forked child: another thread of its parent may have held the lock.
            self._lock = threading.Lock()
            self._pid = os.getpid()
        return self._lock


def _close_all(pinned: OrderedDict[str, int]) -> None:
    while pinned:
        os.close(pinned.popitem()[1])


def _open(folder: str) -> int:
    return DESCRIPTORS.instead(lambda: os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

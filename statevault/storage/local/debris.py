"""What killed processes leave on a local disk: unfinished files, and folders in which nothing lies.

The kernel gives back the lock of an unfinished file when its process dies, however it dies. So a file that can be
locked, and that nobody has written to for a while, belongs to nobody.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from statevault.storage.local.file_calls import FileCalls
from statevault.storage.local.unfinished_file import is_unfinished

__all__ = ["Debris"]

# Not at once: some network mounts keep locks to each host.
_SETTLED_AFTER_S = 3600.0
# Where files can't be locked, their age alone has to tell. No put pauses for so long between two writes.
_SETTLED_WITHOUT_LOCKS_S = 24 * 3600.0


class Debris:
    """What listings came across that is no object, and that a later delete removes.

    Nothing is looked for, so that it costs nothing where there is none; and whoever only reads removes nothing.

    Args:
        calls: The calls that change the disk.
    """

    def __init__(self, calls: FileCalls) -> None:
        self._calls = calls
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def note_files(self, folder: str, names: Iterable[str]) -> None:
        """Note which of the names in a folder are those of unfinished files."""
        self._files.update(f"{folder}/{name}" for name in names if is_unfinished(name))

    def note_empty(self, folder: str) -> None:
        """Note a folder in which nothing lies, and which may go."""
        self._folders.add(folder)

    def sweep(self) -> set[str]:
        """Remove what was noted, as far as its writers are gone; never fails.

        Returns:
            The folders in which files were, and those that were empty: they may go as well, if nothing lies in them.
        """
        folders = set(_drained(self._folders))
        for path in _drained(self._files):
            with suppress(OSError):  # Gone already, or not ours to remove.
                self._remove(path)
            folders.add(os.path.dirname(path))  # noqa: PTH120
        return folders

    def _remove(self, path: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if _belongs_to_nobody(descriptor):
                self._calls.unlink(path)
        finally:
            os.close(descriptor)


def _drained(paths: set[str]) -> Iterator[str]:
    """Take the paths out, one by one; other threads may do the same, and put some in."""
    while True:
        try:
            yield paths.pop()
        except KeyError:
            return


def _belongs_to_nobody(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    age_s = time.time() - status.st_mtime
    if not stat.S_ISREG(status.st_mode) or age_s < _SETTLED_AFTER_S:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return age_s >= _SETTLED_WITHOUT_LOCKS_S
    return True

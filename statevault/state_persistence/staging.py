"""Folders for what is on its way between components and storage.

Components read and write real files, so that a snapshot needs a folder. It lies in memory (tmpfs) when it fits,
so that a snapshot costs no disk write, else on disk. Each process has folders of its own, held by a file lock
that the kernel lets go of when the process dies however it dies: what a killed process left is swept by the
next one, and what a living one holds is never touched.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from statevault.errors import StagingSpaceError

__all__ = ["Staging"]

_logger = logging.getLogger(__name__)
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the tmpfs of Linux; our folder in it is private (0700)
_MARGIN = 64 * 1024**2
_MODE_PRIVATE = 0o700


class Staging:
    """The staging folders of one store in this process.

    Args:
        folder: Where to make them; None for tmpfs when it fits, else the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._held: dict[Path, tuple[int, Path]] = {}
        self._pid = os.getpid()

    def roots(self, size: int) -> list[Path]:
        """Where a folder of `size` bytes may be made, best first.

        Raises:
            StagingSpaceError: It fits nowhere.
        """
        if self._folder is not None:
            candidates = [self._folder]
        else:
            candidates = [Path(tempfile.gettempdir()) / f"statevault-{os.getuid()}"]
            if _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK):
                candidates.insert(0, _SHARED_MEMORY / f"statevault-{os.getuid()}")
        fitting = [root for root in candidates if _room(root) >= size + _MARGIN]
        if not fitting:
            rooms = ", ".join(f"{_room(root) // 1024**2} MiB in {root}" for root in candidates)
            raise StagingSpaceError(
                f"no room to stage a state of {size // 1024**2} MiB (free: {rooms}): free some, "
                "or name another folder with staging_dir="
            )
        return fitting

    @contextmanager
    def folder(self, root: Path) -> Iterator[Path]:
        """A new empty folder below one of :meth:`roots`, removed at the end of the block."""
        path = self.make(root)
        try:
            yield path
        finally:
            self.remove(path)

    def make(self, root: Path) -> Path:
        """Make a new empty folder; the caller removes it with :meth:`remove`."""
        path = self._own(root) / secrets.token_hex(6)
        path.mkdir(mode=_MODE_PRIVATE)
        return path

    def remove(self, path: Path) -> None:
        """Remove a folder with all that is in it."""
        shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Remove all folders of this process and let go of the locks."""
        if self._pid == os.getpid():
            for lock, own in self._held.values():
                shutil.rmtree(own, ignore_errors=True)
                with suppress(FileNotFoundError):
                    own.with_suffix(".lock").unlink()
                os.close(lock)
        self._held.clear()

    def _own(self, root: Path) -> Path:
        """The folder of this process below a root, made and locked at the first use."""
        if self._pid != os.getpid():  # a forked child: the folders are its parent's
            self._pid = os.getpid()
            self._held.clear()
        if root not in self._held:
            _make_private(root)
            sweep(root)
            self._held[root] = _hold(root)
        return self._held[root][1]


def sweep(root: Path) -> None:
    """Remove the folders of processes that are gone."""
    for lock_path in root.glob("*.lock"):
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its process lives
        else:
            # The folder goes before the lock: whoever dies in between leaves something to be swept.
            shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
            with suppress(FileNotFoundError):
                lock_path.unlink()
            _logger.info("Swept the staging folder of a process that is gone: %s", lock_path.with_suffix(""))
        finally:
            os.close(lock)


def _hold(root: Path) -> tuple[int, Path]:
    while True:
        own = root / f"{os.getpid()}-{secrets.token_hex(4)}"
        lock_path = own.with_suffix(".lock")
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A sweeper may have locked and removed the file between our open and our lock.
            if lock_path.stat().st_ino == os.fstat(lock).st_ino:
                own.mkdir(mode=_MODE_PRIVATE)
                return lock, own
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(lock)


def _make_private(root: Path) -> None:
    root.mkdir(mode=_MODE_PRIVATE, parents=True, exist_ok=True)
    status = root.lstat()
    if status.st_uid != os.getuid() or not root.is_dir() or root.is_symlink():
        raise StagingSpaceError(f"the staging folder {root} belongs to somebody else: name another with staging_dir=")


def _room(root: Path) -> int:
    """Bytes that fit: of tmpfs no more than half of the free memory, which it takes from."""
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free
    if root.is_relative_to(_SHARED_MEMORY):
        free = min(free, _available_memory() // 2)
    return free


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0

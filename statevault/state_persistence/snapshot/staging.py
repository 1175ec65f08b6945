"""Folders for what is on its way between components and storage.

Components read and write real files (those that hold large trees, stubs of them), so that a snapshot needs a folder. It
lies in memory (tmpfs) when it fits, so that a snapshot costs no disk write, else on disk. Each process has folders of
its own, held by a file lock that the kernel lets go of when the process dies however it dies: what a killed process
left is swept by the next one, and what a living one holds is never touched. Whoever cleans folders for temporary files
may remove the lock's file, so the folder itself is locked as well, where its filesystem can do that (NFS can't).
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from statevault.codecs.snapshot_memory import SnapshotMemory
from statevault.codecs.tree.held import HeldTrees
from statevault.errors import StagingSpaceError
from statevault.state_persistence.snapshot.memory import available_memory
from statevault.storage.descriptors import DESCRIPTORS

__all__ = ["Staging"]

_logger = logging.getLogger(__name__)
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the tmpfs of Linux; our folder in it is private (0700)
_MARGIN = 64 * 1024**2
_MODE_PRIVATE = 0o700
_FOLDER_NAME = re.compile(r"\d+-[0-9a-f]{8}")
_UNKNOWN_SIZE = 1024**3
_HELD_BESIDE_DISK = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class _Held:
    locks: tuple[int, ...]
    folder: Path

    def close(self) -> None:
        for lock in self.locks:
            os.close(lock)


class Staging:
    """The staging folders of one store in this process.

    Args:
        folder: Where to make them; None for tmpfs when it fits, else the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._held: dict[Path, _Held] = {}
        self._swept: set[Path] = set()
        # Of a store that nobody closes. At the end of the process others may still publish out of it.
        weakref.finalize(self, _release, self._held).atexit = False
        self._lock = threading.Lock()
        self._memory = SnapshotMemory(available_memory)
        _all.add(self)
        DESCRIPTORS.begin()
        if folder is None:
            with suppress(OSError):
                tempfile.gettempdir()  # looks for it by making a file, at the first call

    def roots(self, size: int, *, beside: int = 0) -> list[Path]:
        """Where a folder may be made, best first.

        Args:
            size: Bytes of the files in it; 0 if that is not known.
            beside: Bytes of memory that are going to be taken at the same time.

        Raises:
            StagingSpaceError: It fits nowhere.
        """
        # A folder of our own also in a folder that the user names: what is swept must be nobody else's.
        own = f"statevault-{os.getuid()}"
        candidates = [(self._folder or Path(tempfile.gettempdir())) / own]
        if self._folder is None and _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK):
            candidates.insert(0, _SHARED_MEMORY / own)
        usable = [root for root in candidates if _is_ours(root)]
        if not usable:
            raise StagingSpaceError(
                f"the staging folder {candidates[-1]} belongs to somebody else: name another with staging_dir="
            )
        for root in usable:
            # First of all: what is left there may be what fills it.
            self._sweep_once(root)
        fitting = [root for root in usable if self._has_room(root, size, beside)]
        if not fitting:
            rooms = ", ".join(f"{_megabytes(_room(root))} in {root}" for root in candidates)
            raise StagingSpaceError(
                f"no room to stage files of {_megabytes(size)} and to leave {_megabytes(_MARGIN)} beside them "
                f"(free: {rooms}): free some, or name another folder with staging_dir="
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
        _remove(path)

    def holder(self, path: Path) -> HeldTrees:
        """What holds tree files in memory that components write into a folder which :meth:`make` made."""
        # Whoever names a folder on disk has little memory, or keeps it for something else.
        is_free = self._folder is None or _is_in_memory(path)
        return HeldTrees(path, self._memory, most_copied=None if is_free else _HELD_BESIDE_DISK)

    def close(self) -> None:
        """Remove all folders of this process, let go of the locks, and give memory back."""
        self._memory.clear()
        _release(self._held)

    def forget(self) -> None:
        """Hold nothing, in a forked child: the folders are its parent's, and so is the state of the lock."""
        self._lock = threading.Lock()
        self._memory = SnapshotMemory(available_memory)
        for held in self._held.values():
            # The parent's descriptors keep the locks, and the folder is the parent's to remove.
            held.close()
        self._held.clear()

    def memory_to_receive(self, wanted: int) -> int:
        """How much memory may be taken for trees that are loaded.

        Args:
            wanted: For how many bytes there is use.
        """
        if self._folder is not None and not _is_in_memory(self._folder):
            return min(wanted, _HELD_BESIDE_DISK)
        if _memory_room() < wanted:
            self._memory.clear()
        return min(wanted, _memory_room())

    def _has_room(self, root: Path, size: int, beside: int) -> bool:
        needed = _needed(root, size) + _MARGIN + (beside if _is_in_memory(root) else 0)
        if _is_in_memory(root) and _room(root) < needed:
            # What is read, and files that components write by themselves, do not go there.
            self._memory.clear()
        return _room(root) >= needed

    def _own(self, root: Path) -> Path:
        """The folder of this process below a root, made and locked at the first use."""
        with self._lock:
            if root not in self._held:
                _make_private(root)
                self._sweep_once(root)
                self._held[root] = DESCRIPTORS.instead(lambda: _hold(root))
            return self._held[root].folder

    def _sweep_once(self, root: Path) -> None:
        if root not in self._swept:
            DESCRIPTORS.instead(lambda: sweep(root))
            self._swept.add(root)


# Weakly, so that each ends when its store does.
_all: weakref.WeakSet[Staging] = weakref.WeakSet()


def _forget_all() -> None:
    for staging in list(_all):
        staging.forget()


os.register_at_fork(after_in_child=_forget_all)


def _is_in_memory(path: Path) -> bool:
    return path.is_relative_to(_SHARED_MEMORY)


def sweep(root: Path) -> None:
    """Remove the folders of processes that are gone."""
    for lock_path in root.glob("*.lock"):
        if _FOLDER_NAME.fullmatch(lock_path.stem) is None:
            continue  # not made here
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
            _remove(lock_path.with_suffix(""))
            with suppress(FileNotFoundError):
                lock_path.unlink()
            _logger.info("Swept the staging folder of a process that is gone: %s", lock_path.with_suffix(""))
        finally:
            os.close(lock)
    for folder in root.glob("*"):
        # A folder is younger than its lock, so that one which is just being made has one.
        if _FOLDER_NAME.fullmatch(folder.name) is None or folder.with_suffix(".lock").exists():
            continue
        with suppress(OSError):  # it is no folder, or gone, or its process lives
            for lock in _lock_folder(folder):
                _remove(folder)
                _logger.info("Swept a staging folder whose lock and process are gone: %s", folder)
                os.close(lock)


def _hold(root: Path) -> _Held:
    while True:
        own = root / f"{os.getpid()}-{secrets.token_hex(4)}"
        lock_path = own.with_suffix(".lock")
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A sweeper may have locked and removed the file between our open and our lock.
            if lock_path.stat().st_ino == os.fstat(lock).st_ino:
                own.mkdir(mode=_MODE_PRIVATE)
                return _Held((lock, *_lock_folder(own)), own)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            with suppress(OSError):
                own.rmdir()
            lock_path.unlink(missing_ok=True)
            os.close(lock)
            raise
        os.close(lock)


def _lock_folder(folder: Path) -> tuple[int, ...]:
    """Lock a folder itself; nothing where its filesystem does not lock folders.

    Raises:
        BlockingIOError: Another process has.
        OSError: It is gone, or no folder.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    except OSError:
        os.close(lock)
        return ()
    return (lock,)


def _release(held: dict[Path, _Held]) -> None:
    while held:
        _, own = held.popitem()
        _remove(own.folder)
        with suppress(FileNotFoundError):
            own.folder.with_suffix(".lock").unlink()
        own.close()


def _make_private(root: Path) -> None:
    root.mkdir(mode=_MODE_PRIVATE, parents=True, exist_ok=True)
    if not _is_ours(root):
        raise StagingSpaceError(f"the staging folder {root} belongs to somebody else: name another with staging_dir=")


def _megabytes(count: int) -> str:
    return f"{count / 10**6:.1f} MB"


def _is_ours(root: Path) -> bool:
    """Whether a folder is this user's own, or can be made so. Folders for temporary files are open to everybody."""
    try:
        status = root.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _remove(path: Path) -> None:
    """Remove a folder, also one in which a component made something read-only, or folders of any depth."""
    with suppress(OSError, RecursionError):
        DESCRIPTORS.instead(lambda: shutil.rmtree(path))
    if path.exists():
        _flatten(path)
        shutil.rmtree(path, ignore_errors=True)


def _flatten(path: Path) -> None:
    """Move all that lies in a folder to its top: no walk is too deep then, and no path too long."""
    folders = [path]
    while folders:
        folder = folders.pop()
        with suppress(OSError):
            folder.chmod(_MODE_PRIVATE)
            with os.scandir(folder) as opened:
                entries = list(opened)
            for entry in entries:
                moved = path / secrets.token_hex(8)
                if entry.is_dir(follow_symlinks=False):
                    Path(entry.path).chmod(_MODE_PRIVATE)  # else it can't be moved
                    folders.append(moved)
                os.rename(entry.path, moved)  # noqa: PTH104
            if folder != path:
                folder.rmdir()


def _needed(root: Path, size: int) -> int:
    """A state of unknown size is staged in memory only where there is plenty of it."""
    return _UNKNOWN_SIZE if size == 0 and _is_in_memory(root) else size


def _room(root: Path) -> int:
    """Bytes that fit: of tmpfs no more than half of the free memory, which it takes from."""
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free
    if _is_in_memory(root):
        free = min(free, _memory_room())
    return free


def _memory_room() -> int:
    """Half of the free memory: what is read or saved is not all that a program does."""
    return available_memory() // 2

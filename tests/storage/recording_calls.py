"""What a storage really does to a local disk, written down call by call."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from typing_extensions import override

from statevault.storage.local.file_calls import FileCalls

__all__ = ["NOT_TOLD", "Event", "Identity", "KilledError", "NoFsync", "RecordingCalls"]

Identity: TypeAlias = tuple[int, int]
"""Device and inode."""
NOT_TOLD: Identity = (0, 0)


@dataclass(frozen=True, slots=True)
class Event:
    """One call that changed the disk, or (``call == "mark"``) something that a test wants to remember.

    What is made and what is brought onto the medium has an identity: an fsync may be of a folder that another thread
    has removed since it was opened, and even made anew.
    """

    call: str
    path: str = ""
    target: str = ""
    data: bytes = b""
    identity: Identity = NOT_TOLD
    mark: object = None


class KilledError(BaseException):
    """The process was killed. No ``except Exception`` sees it, and clean-up that would change the disk is not done."""


class NoFsync(FileCalls):
    """What is done to the disk, without waiting for the medium."""

    @override
    def fsync(self, descriptor: int, path: str) -> None:
        pass


class RecordingCalls(NoFsync):
    """Does what it is told, and writes it down in the order in which it took effect.

    Args:
        base: The folder below which all happens. It is there, and on the medium.

    Attributes:
        events: What was done.
        calls: How many calls were made.
        fsyncs: How many of them were an fsync below the base.
        killed_at: The number of the call before which the process is killed; every later one fails as well.
        killed_after: The number of the link, replace, unlink or rmdir after which it is killed.
        failing_fsync: The number of the fsync that fails.
        full_at: What the names of objects end in for which there is no space.
    """

    def __init__(self, base: Path) -> None:
        self.events: list[Event] = []
        self.calls = 0
        self.fsyncs = 0
        self.killed_at: int | None = None
        self.killed_after: int | None = None
        self.failing_fsync: int | None = None
        self.full_at: str | None = None
        self._base = base
        self._lock = threading.RLock()
        self._open: dict[int, str] = {}

    def mark(self, what: object) -> None:
        """Remember something at this point."""
        with self._lock:
            self.events.append(Event("mark", mark=what))

    @override
    def mkdir(self, path: str) -> None:
        with self._step():
            super().mkdir(path)
            self._note("mkdir", path, identity=_identity(os.stat(path)))  # noqa: PTH116

    @override
    def create(self, path: str) -> int:
        with self._step():
            descriptor = super().create(path)
            self._open[descriptor] = path
            self._note("create", path, identity=_identity(os.fstat(descriptor)))
            return descriptor

    @override
    def write(self, descriptor: int, data: memoryview) -> int:
        with self._step():
            # In two parts: a power cut may come between them.
            part = data[: max(1, data.nbytes // 2)] if data.nbytes > 1 else data
            written = super().write(descriptor, part)
            self._note("write", self._open[descriptor], data=bytes(part[:written]))
            return written

    @override
    def fsync(self, descriptor: int, path: str) -> None:
        with self._step():
            if self._relative(path).startswith(".."):
                return
            self.fsyncs += 1
            identity = _identity(os.fstat(descriptor))
            if self.fsyncs == self.failing_fsync:
                self._note("fsync failed", path, identity=identity)
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            self._note("fsync", path, identity=identity)

    @override
    def link(self, source: str, target: str) -> None:
        with self._step():
            super().link(source, target)
            self._note("link", source, target)

    @override
    def replace(self, source: str, target: str) -> None:
        with self._step():
            if self.full_at is not None and target.endswith(self.full_at):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
            super().replace(source, target)
            self._note("replace", source, target)

    @override
    def unlink(self, path: str) -> None:
        with self._step():
            super().unlink(path)
            self._note("unlink", path)

    @override
    def rmdir(self, path: str) -> None:
        with self._step():
            super().rmdir(path)
            self._note("rmdir", path)

    @contextmanager
    def _step(self) -> Iterator[None]:
        with self._lock:
            self.calls += 1
            if self.killed_at is not None and self.calls >= self.killed_at:
                raise KilledError
            yield

    def _note(
        self, call: str, path: str, target: str = "", *, data: bytes = b"", identity: Identity = NOT_TOLD
    ) -> None:
        self.events.append(Event(call, self._relative(path), target and self._relative(target), data, identity))
        if self.killed_after is not None and call in {"link", "replace", "unlink", "rmdir"}:
            self.killed_after -= 1
            if not self.killed_after:
                self.killed_at = self.calls
                raise KilledError

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self._base)


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino

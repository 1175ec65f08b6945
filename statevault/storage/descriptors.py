"""Descriptors that are kept for saves, and given up when the process has no other left.

A leak in the program, or connections that somebody else holds, may take every descriptor that the process can have. A
save has to open files and connections all the same. So some are kept from the beginning. Where an ``open`` finds no
descriptor, one of them is closed and the ``open`` tried again; when the file is closed, its place is kept again. In
between another thread may take it, but that is a matter of microseconds, and there are more. Half of them are spared
for the final state, whatever the saves before it have lost.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TypeVar

__all__ = ["DESCRIPTORS", "KeptDescriptors", "descriptor_limit"]

_logger = logging.getLogger(__name__)

_MOST = 128
"""A save has up to 30 open at its worst: eight files that are put, those they are read from, and their folders."""
_SECONDS_BETWEEN_WARNINGS = 60.0
_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_FEW = 8
_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})

_Result = TypeVar("_Result")


def descriptor_limit() -> int:
    """How many descriptors the process may have (``ulimit -n``)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if limit == resource.RLIM_INFINITY else limit


class KeptDescriptors:
    """The kept descriptors of a process. May be used by several threads.

    A forked child has copies of its parent's, as of all others, and gives them up on its own account.
    """

    def __init__(self) -> None:
        # All are duplicates of one end of a pipe that nothing else uses. So it can be seen whether a number still
        # stands for it: whoever becomes a daemon closes all descriptors, and opens others.
        self._kept: list[int] = []
        self._identity = (0, 0)
        self._wanted = 0
        self._borrowers = 0
        self._ends = 0
        self._warned_at = -math.inf
        self._lock = threading.RLock()  # a signal handler may save, too
        self._turn = threading.RLock()

    @property
    def are_whole(self) -> bool:
        """Whether none was given up that could not be taken back."""
        return len(self._kept) >= self._wanted

    def keep(self) -> None:
        """Take back what is missing, as far as it can be had; never fails."""
        with self._lock:
            # While somebody is about to use what was given up, it is not taken back.
            if not self._borrowers and not self.are_whole:
                self._fill(self._wanted)

    def begin(self) -> None:
        """Keep some from now on, if none are kept yet; never fails."""
        with self._lock:
            if self._wanted:
                return
            # Of what is free, no more than half: the program has only begun.
            self._fill(2 * min(_MOST, descriptor_limit() // 4))
            self._wanted = len(self._kept) // 2
            while len(self._kept) > self._wanted:
                os.close(self._kept.pop())

    def instead(self, call: Callable[[], _Result], *, many: bool = False) -> _Result:
        """Make a call; where it fails for want of a descriptor, again in the place of one that was kept, and so on.

        Args:
            call: Opens something, or does more than that; may be called several times.
            many: Whether to give up half of what is left at a time, since the call takes long.

        Raises:
            Exception: What `call` raises for another reason, or when nothing is left to give up.
        """
        try:
            return call()
        except Exception as error:
            if not self.are_wanting(error):
                raise
            last = error
        with self._borrowing():
            while self._give_up(many=many):
                try:
                    return call()
                except Exception as error:
                    if not self.are_wanting(error):
                        raise
                    last = error
            raise last

    def in_turn(self, operation: Callable[[], _Result]) -> _Result:
        """Make an operation that needs several at a time: where there are few, one such operation after the other.

        Args:
            operation: Gives back what it has opened when it fails; may be called several times.

        Raises:
            Exception: What `operation` raises.
        """
        if self.are_whole:
            try:
                return operation()
            except Exception as error:
                if not self.are_wanting(error):
                    raise
        with self._turn:
            for pause_s in _PAUSES_S:
                try:
                    return operation()
                except Exception as error:
                    if not self.are_wanting(error):
                        raise
                # Those that have begun while there were enough need no turn, and end.
                time.sleep(pause_s)
            return operation()

    def are_wanting(self, error: Exception) -> bool:
        """Whether an error may come of it that the process has no descriptor left, or too few."""
        if isinstance(error, FileNotFoundError | FileExistsError):
            return False
        number = error.errno if isinstance(error, OSError) else None
        if number is not None and number > 0:
            return number in _NONE_LEFT
        # Many libraries hide the number behind an error of their own, and have closed what they had opened.
        probes: list[int] = []
        try:
            while len(probes) < _FEW:
                probes.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as none_left:
            return none_left.errno in _NONE_LEFT
        finally:
            for probe in probes:
                os.close(probe)
        return False

    @contextmanager
    def opened(self, opening: Callable[[], AbstractContextManager[_Result]]) -> Iterator[_Result]:
        """Open a file or a folder as :meth:`instead` does, and keep its place again when it is closed."""
        try:
            with self.instead(opening) as opened:
                yield opened
        finally:
            self.keep()

    def close(self, descriptor: int) -> None:
        """Close a descriptor, and keep its place where one is missing."""
        with self._lock:
            if not self._borrowers and 0 < len(self._kept) < self._wanted and self._is_ours(self._kept[0]):
                os.dup2(self._kept[0], descriptor, inheritable=False)
                self._kept.append(descriptor)
                return
        os.close(descriptor)

    @contextmanager
    def to_the_last(self) -> Iterator[None]:
        """Give up, inside the block, also those that are spared for the final state."""
        with self._lock:
            self._ends += 1
        try:
            yield
        finally:
            with self._lock:
                self._ends -= 1

    def start_anew(self) -> None:
        """In a forked child: other threads of its parent may have held the lock, or been given some."""
        self._lock, self._turn = threading.RLock(), threading.RLock()
        self._borrowers = self._ends = 0

    def _fill(self, count: int) -> None:
        with suppress(OSError):
            if not self._kept or not self._is_ours(self._kept[0]):
                self._kept = []
                end, other = os.pipe()
                os.close(other)
                status = os.fstat(end)
                self._identity = (status.st_dev, status.st_ino)
                self._kept.append(end)
            while len(self._kept) < count:
                self._kept.append(os.dup(self._kept[0]))

    @contextmanager
    def _borrowing(self) -> Iterator[None]:
        with self._lock:
            self._borrowers += 1
            now = time.monotonic()
            is_news = now - self._warned_at >= _SECONDS_BETWEEN_WARNINGS
            if is_news:
                self._warned_at = now
        try:
            if is_news:
                _logger.warning(
                    "this process has opened as many files and connections as it may (ulimit -n: %d): saves go on with "
                    "the %d that are kept for them. Find out who does not close them",
                    descriptor_limit(),
                    len(self._kept),
                )
            yield
        finally:
            with self._lock:
                self._borrowers -= 1
            self.keep()

    def _give_up(self, *, many: bool) -> bool:
        """Close one, or half of those that may be closed; returns whether there was any."""
        with self._lock:
            # The others are made of the first one.
            spared = 1 if self._ends else max(1, self._wanted // 2)
            free = len(self._kept) - spared
            for _ in range((free + 1) // 2 if many else min(free, 1)):
                kept = self._kept.pop()
                if self._is_ours(kept):
                    os.close(kept)
            return free > 0

    def _is_ours(self, descriptor: int) -> bool:
        with suppress(OSError):
            status = os.fstat(descriptor)
            return (status.st_dev, status.st_ino) == self._identity
        return False


DESCRIPTORS = KeptDescriptors()
"""Those of this process."""
os.register_at_fork(after_in_child=DESCRIPTORS.start_anew)

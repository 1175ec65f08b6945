"""Components are saved and loaded by one thread at a time: a state never mixes two of their instants."""

from __future__ import annotations

import os
import threading
from types import TracebackType

from statevault.errors import StateVaultError

__all__ = ["ExclusiveUse"]


class ExclusiveUse:
    """A lock that tells a thread that would wait for itself, and is free in a forked child."""

    def __init__(self) -> None:
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._owner: int | None = None

    def __enter__(self) -> None:
        """Wait until no other thread uses the components.

        Raises:
            StateVaultError: This thread uses them: a component called its own store.
        """
        if self._pid != os.getpid():
            self._start_anew()
        if self._owner == threading.get_ident():
            raise StateVaultError("a component that is being saved or loaded can't save or load its own store")
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner = None
        self._lock.release()

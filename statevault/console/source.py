"""What the web API shows and commands, as far as it needs to know it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from statevault.state_persistence.spool import ReplicationStatus
from statevault.threads import SaveLog, SaveReport, SystemStatus, TickStatistics

__all__ = ["ControlledSystem", "StatesListing", "SystemSource"]

# How long a second one waits for a listing that is under way.
_PATIENCE_S = 1.0


class ControlledSystem(Protocol):
    """A running system: :class:`statevault.threads.ControlThread` is one. Everything may be used from any thread."""

    @property
    def status(self) -> SystemStatus:
        """How it is now."""

    @property
    def waiting_requests(self) -> int:
        """How many requests it has not taken up yet."""

    @property
    def save_log(self) -> SaveLog:
        """What became of its last saves."""

    def request_pause(self) -> None:
        """Ask it to pause until it is asked to resume."""

    def request_resume(self) -> None:
        """Ask it to go on."""

    def request_save(self) -> SaveReport:
        """Ask it to save."""

    def request_shutdown(self) -> None:
        """Ask it to end."""


class StatesListing:
    """The names of a store's states. Listed at most every so often: a listing is a request to the storage."""

    def __init__(self, url: str, names: Callable[[], list[str]], *, max_age_s: float = 10.0) -> None:
        """Make a listing that asks `names`, oldest first, when its last answer is older than `max_age_s`.

        Args:
            url: The store, without credentials.
            names: Lists the names.
            max_age_s: Seconds for which an answer holds, unless a state was saved meanwhile.
        """
        self.url = url
        self._names = names
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._listed: tuple[list[str], str] = [], ""
        self._version = -1
        self._listed_at = 0.0

    def __call__(self, version: int) -> tuple[list[str], str]:
        """The names, oldest first, and why they could not be listed; the latter is empty if they could.

        Args:
            version: Changes when the store has other states, as far as this process knows.
        """
        # A storage may take minutes to fail. Then one request waits for it, not all that come meanwhile.
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return self._listed[0], "the storage has not answered yet"
        try:
            now = time.monotonic()
            if version != self._version or now - self._listed_at > self._max_age_s:
                try:
                    self._listed = self._names(), ""
                except Exception as error:  # noqa: BLE001 - shown: a status must not depend on the storage
                    self._listed = self._listed[0], repr(error)
                self._version, self._listed_at = version, time.monotonic()
            return self._listed
        finally:
            self._lock.release()


@dataclass(frozen=True, slots=True)
class SystemSource:
    """All that the web API is about.

    Attributes:
        system: What it commands.
        ticks: How long the agent's steps took so far.
        states: The states of the store.
        replication: How the replication of a spool goes; None where there is none.
    """

    system: ControlledSystem
    ticks: Callable[[], TickStatistics]
    states: StatesListing
    replication: Callable[[], ReplicationStatus | None] = lambda: None

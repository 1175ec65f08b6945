"""What became of each save: one report per save, from the wish to the commit or the failure.

Whoever asks for a save gets the report's id at once and can look later how it ended. Wishes that one snapshot can
fulfil share a report, so that at most one waits at any time.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

__all__ = ["SaveLog", "SavePhase", "SaveReport"]


class SavePhase(Enum):
    """Where a save is."""

    WAITING = "waiting"
    SNAPSHOT = "snapshot"
    PUBLISHING = "publishing"
    COMMITTED = "committed"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self in {SavePhase.COMMITTED, SavePhase.FAILED}


@dataclass(frozen=True, slots=True)
class SaveReport:
    """One save.

    Attributes:
        id: Its name in this run; not the name of a state.
        requested: Whether somebody asked for it, rather than the save condition or the end of the run.
        phase: Where it is.
        asked_at: When it was asked for, or began, by the clock of this machine (UTC).
        name: The name of the committed state.
        snapshot_s: Seconds that the snapshot took; None before its end, and for a final state.
        duration_s: Seconds from the begin of the snapshot until the state was seen to be committed.
        stall_s: For how many seconds the acting thread stood still for it.
        size_bytes: Bytes of the state's files; None while that is not known.
        error: Why it failed; empty if it did not.
    """

    id: str
    requested: bool
    phase: SavePhase
    asked_at: datetime
    name: str | None = None
    snapshot_s: float | None = None
    duration_s: float | None = None
    stall_s: float | None = None
    size_bytes: int | None = None
    error: str = ""


class SaveLog:
    """The reports of a run's last saves. All methods may be called from any thread."""

    def __init__(self, *, capacity: int = 100) -> None:
        """Make an empty log that forgets the oldest of more than `capacity` reports."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._reports: dict[str, SaveReport] = {}
        self._waiting: str | None = None

    @property
    def waiting(self) -> bool:
        """Whether somebody's wish for a save waits for its snapshot."""
        return self._waiting is not None

    def request(self) -> SaveReport:
        """Note somebody's wish for a save.

        Returns:
            The report of the save that will fulfil it: a new one, or the one that waits already.
        """
        with self._lock:
            if self._waiting is None:
                self._waiting = self._add(SavePhase.WAITING, requested=True)
            return self._reports[self._waiting]

    def begin(self) -> str:
        """Note that a snapshot begins. It fulfils the wish that waits; what is asked for from now on needs another.

        Returns:
            The id of its report.
        """
        with self._lock:
            report_id, self._waiting = self._waiting, None
            if report_id is None:
                return self._add(SavePhase.SNAPSHOT, requested=False)
            self._reports[report_id] = replace(self._reports[report_id], phase=SavePhase.SNAPSHOT)
            return report_id

    def update(self, report_id: str, **changes: Any) -> None:
        """Change fields of a report; of one that is forgotten, nothing."""
        with self._lock:
            if report_id in self._reports:
                self._reports[report_id] = replace(self._reports[report_id], **changes)

    def get(self, report_id: str) -> SaveReport | None:
        """The report of that id; None if there was none, or it is forgotten."""
        with self._lock:
            return self._reports.get(report_id)

    def recent(self, limit: int) -> list[SaveReport]:
        """At most `limit` reports, newest first."""
        with self._lock:
            return list(self._reports.values())[: -limit - 1 : -1]

    def _add(self, phase: SavePhase, *, requested: bool) -> str:
        # Random: ids of an earlier run must not be taken for those of this one.
        report = SaveReport(secrets.token_hex(8), requested, phase, datetime.now(UTC))
        self._reports[report.id] = report
        while len(self._reports) > self._capacity:
            del self._reports[next(iter(self._reports))]
        return report.id

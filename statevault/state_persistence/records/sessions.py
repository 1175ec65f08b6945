"""The saves that are under way, as the records of a store tell."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from statevault.errors import FormatError, ObjectNotFoundError
from statevault.format.keys import SESSIONS, StateKey, session_key
from statevault.format.records import SessionRecord
from statevault.state_persistence.records.fetch import fetch_record
from statevault.storage import Storage

__all__ = ["STALE_AFTER", "Session", "read_sessions"]

STALE_AFTER = timedelta(days=1)
"""When a session without a marker is old enough for its writer to be taken for dead. A writer gives up by itself then;
one that does not is told so by the abort (and saves again)."""


@dataclass(frozen=True, slots=True)
class Session:
    """A save that has begun.

    Attributes:
        record: What its writer said.
        begun_at: When it began by the backend's clock, or, where that does not tell, by its writer's: a device without
            a clock begins in 1970 or, once it was set wrongly, years ahead.
    """

    record: SessionRecord
    begun_at: datetime

    @property
    def key(self) -> StateKey:
        """The state that it saves."""
        return StateKey(self.record.sequence, self.record.state)


def read_sessions(storage: Storage) -> list[Session]:
    """LIST and read all sessions.

    One that goes away meanwhile has ended: its marker, if any, is listed after.

    Raises:
        FormatError: A session can't be read.
        StorageError: The storage failed.
    """
    sessions = []
    for info in list(storage.list(SESSIONS)):
        try:
            record = fetch_record(storage, info, SessionRecord)
        except ObjectNotFoundError:
            continue
        if session_key(record.state) != info.key:
            raise FormatError(f"the session {info.key} of {storage.url} is of another state ({record.state!r})")
        sessions.append(Session(record, info.modified or record.started_at))
    return sessions

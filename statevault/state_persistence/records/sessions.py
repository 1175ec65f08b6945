"""The saves that are under way, as the records of a store tell."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from statevault.errors import FormatError, ObjectNotFoundError, UnsupportedVersionError
from statevault.format.keys import SESSIONS, StateKey, session_key
from statevault.format.names import is_state_name
from statevault.format.records import SessionRecord
from statevault.state_persistence.records.fetch import fetch_record
from statevault.storage import ObjectInfo, Storage

__all__ = ["STALE_AFTER", "Session", "Sessions", "UnreadableSession", "look_at_sessions", "read_sessions"]

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


@dataclass(frozen=True, slots=True)
class UnreadableSession:
    """A session of which only the key is known.

    Attributes:
        key: Its key.
        state: The state that the key names.
        error: Why it can't be read.
    """

    key: str
    state: str
    error: FormatError


@dataclass(frozen=True, slots=True)
class Sessions:
    """All sessions of a store.

    Attributes:
        readable: Those that say what they are.
        unreadable: The others. What they protect is not known: only that of a state with a marker or a tombstone
            protects nothing, whatever it says.
    """

    readable: tuple[Session, ...]
    unreadable: tuple[UnreadableSession, ...]


def look_at_sessions(storage: Storage) -> Sessions:
    """LIST and read all sessions.

    One that goes away meanwhile has ended: its marker, if any, is listed after. What has a name that no state can have
    is somebody else's, and passed over.

    Raises:
        UnsupportedVersionError: A session was written by a newer version.
        StorageError: The storage failed.
    """
    readable: list[Session] = []
    unreadable: list[UnreadableSession] = []
    for info in list(storage.list(SESSIONS)):
        state = info.key.removeprefix(SESSIONS)
        if not is_state_name(state):
            continue
        try:
            record = _read(storage, info)
        except ObjectNotFoundError:
            continue
        except UnsupportedVersionError:
            raise
        except FormatError as error:
            unreadable.append(UnreadableSession(info.key, state, error))
        else:
            readable.append(Session(record, info.modified or record.started_at))
    return Sessions(tuple(readable), tuple(unreadable))


def read_sessions(storage: Storage) -> list[Session]:
    """LIST and read all sessions, as :func:`look_at_sessions` does.

    Raises:
        FormatError: A session can't be read.
        StorageError: The storage failed.
    """
    sessions = look_at_sessions(storage)
    for unreadable in sessions.unreadable:
        raise unreadable.error
    return list(sessions.readable)


def _read(storage: Storage, info: ObjectInfo) -> SessionRecord:
    record = fetch_record(storage, info, SessionRecord)
    if session_key(record.state) != info.key:
        raise FormatError(f"the session {info.key} of {storage.url} is of another state ({record.state!r})")
    return record

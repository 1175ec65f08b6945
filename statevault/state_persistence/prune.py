"""Removing states for good: steps P0 to P8 (``docs/format.md``, section 7). The order of the steps is the protocol.

Idempotent, and safe with any number of writers, readers and other pruners at once. It deletes only what the
records of the store name; what statevault did not write is never touched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from statevault.errors import FormatError, ObjectNotFoundError, StatePrunedError
from statevault.format.keys import (
    SESSIONS,
    StateKey,
    abort_key,
    check_object_key,
    commit_key,
    manifest_key,
    session_key,
    tombstone_key,
)
from statevault.format.records import MAX_RECORD_SIZE, AbortRecord, SessionRecord, TombstoneRecord
from statevault.state_persistence.catalog import Catalog, Listing
from statevault.state_persistence.download import StateReader
from statevault.storage import ObjectInfo, Storage

__all__ = ["STALE_AFTER", "PruneResult", "prune"]

_logger = logging.getLogger(__name__)
STALE_AFTER = timedelta(days=1)
"""A writer gives up long before; one that does not is told so by the abort (and saves again)."""


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What a prune did.

    Attributes:
        removed: Names of the states that it made invisible, oldest first.
        objects: How many objects it deleted.
        freed: Their bytes.
    """

    removed: tuple[str, ...]
    objects: int
    freed: int


def prune(
    storage: Storage,
    catalog: Catalog,
    victims: Iterable[str],
    *,
    by: str,
    reason: str,
    stale_after: timedelta = STALE_AFTER,
) -> PruneResult:
    """Remove states, and what crashed saves and earlier prunes left.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        victims: Names of states. Those that are not visible, and pinned ones, are left alone.
        by: Who prunes.
        reason: Why; kept in the tombstones.
        stale_after: How old a session without a marker is when its writer is taken for dead; never one of `by`.

    Raises:
        FormatError: A record can't be read: nothing was deleted, since it might have protected something.
        CorruptStateError: Likewise for a commit marker or a manifest.
        StatePrunedError: Likewise for a marker that has gone without a tombstone.
        StorageError: The storage failed; the next prune goes on where this one stopped.
    """
    # P0: the victims are dead before anything is listed, so that a writer that chose one as its base and did not
    # see the tombstone has a session that P4 sees.
    listing = catalog.listing()
    wanted = set(victims)
    removed = [key for key in listing.visible if key.state in wanted - listing.pins]
    for key in removed:
        _put_tombstone(storage, key, by=by, reason=reason)
    # P1: abort first, look for the marker after: at least one of prune and writer sees the other.
    for session, begun in _sessions(storage):
        if session.writer != by and datetime.now(UTC) - begun >= stale_after:
            _give_up(storage, listing, session, by=by)
    # P2 to P5, in this order: what is listed later can only protect more.
    dead = {key.state: key for key in catalog.listing().tombstones}
    data = [info for info in storage.list() if _state_of(info) in dead and _is_ours(info)]
    for state in {_state_of(info) for info in data}:
        _check_tombstone(storage, dead[state])
    sessions = [session for session, _ in _sessions(storage)]
    commits = catalog.listing().commits
    # P6
    bases = {session.base for session in sessions if session.base is not None and session.state not in dead}
    protected: set[str] = set()
    holding_data = {_state_of(info) for info in data}
    for key in commits:
        if key.state in bases and key.state in dead:
            # Its own objects as well, and the manifest, which the next prune has to read once more.
            protected |= {manifest_key(key.state)} | _references(storage, catalog, key)
        elif key.state not in dead and not holding_data.isdisjoint(_reuses(catalog, key)):
            protected |= _references(storage, catalog, key)
    # P7
    garbage = [info for info in data if info.key not in protected]
    storage.delete([info.key for info in garbage])
    # P8: a marker that a live session has as its base stays, to protect what that session reuses. A session whose
    # state is committed protects nothing any more.
    done = [key for key in commits if key.state in dead and key.state not in bases]
    ended = {*dead, *(key.state for key in commits)}
    over = [session_key(session.state) for session in sessions if session.state in ended]
    storage.delete([*(commit_key(*key) for key in done), *over])
    catalog.forget(done)
    result = PruneResult(tuple(key.state for key in removed), len(garbage), sum(info.size for info in garbage))
    _logger.info(
        "Pruned %d states of %s: %d objects, %d bytes", len(removed), storage.url, result.objects, result.freed
    )
    return result


def _sessions(storage: Storage) -> list[tuple[SessionRecord, datetime]]:
    """LIST and read all sessions, with when each began by its writer's clock or the backend's, whichever is later.

    A session that goes away meanwhile has ended: its marker, if any, is listed after.
    """
    sessions = []
    for info in list(storage.list(SESSIONS)):
        where = f"{info.key} of {storage.url}"
        if info.size > MAX_RECORD_SIZE:
            raise FormatError(f"the session {where} has {info.size} bytes: it is not statevault's")
        try:
            session = SessionRecord.from_json(storage.get(info.key), where=where)
        except ObjectNotFoundError:
            continue
        if session_key(session.state) != info.key:
            raise FormatError(f"the session {where} is of another state ({session.state!r})")
        # A device without a clock begins in 1970; that alone must not make it stale.
        sessions.append((session, max(session.started_at, info.modified or session.started_at)))
    return sessions


def _check_tombstone(storage: Storage, key: StateKey) -> None:
    """Make sure, before data is deleted, that a tombstone is statevault's.

    Raises:
        FormatError: It isn't.
    """
    where = f"{tombstone_key(*key)} of {storage.url}"
    if storage.head(tombstone_key(*key)).size > MAX_RECORD_SIZE:
        raise FormatError(f"the tombstone {where} is too large to be statevault's")
    record = TombstoneRecord.from_json(storage.get(tombstone_key(*key)), where=where)
    if (record.sequence, record.state) != key:
        raise FormatError(f"the tombstone {where} is of another state ({record.state!r})")


def _is_ours(info: ObjectInfo) -> bool:
    """Whether a key is one that statevault writes: what some other tool put into a folder stays."""
    try:
        check_object_key(info.key)
    except FormatError:
        return False
    return not any(segment.startswith(".") for segment in info.key.split("/"))


def _give_up(storage: Storage, listing: Listing, session: SessionRecord, *, by: str) -> None:
    key = StateKey(session.sequence, session.state)
    if key in listing.tombstones:
        return
    abort = AbortRecord(state=key.state, by=by, at=datetime.now(UTC))
    storage.put(abort_key(key.state), abort.to_json())
    if not storage.exists(commit_key(*key)):
        _logger.warning("The save of %s by %s did not end; it is given up", key.state, session.writer)
        _put_tombstone(storage, key, by=by, reason="its writer was taken for dead")


def _put_tombstone(storage: Storage, key: StateKey, *, by: str, reason: str) -> None:
    tombstone = TombstoneRecord(state=key.state, sequence=key.sequence, by=by, at=datetime.now(UTC), reason=reason)
    storage.put(tombstone_key(*key), tombstone.to_json())


def _reuses(catalog: Catalog, key: StateKey) -> list[str]:
    """The states in whose folders a visible one has objects. In its own nothing is deleted."""
    try:
        return catalog.record(key).reuses
    except StatePrunedError:
        return _unless_pruned(catalog, key)


def _references(storage: Storage, catalog: Catalog, key: StateKey) -> set[str]:
    """The keys of all data objects that a state needs."""
    try:
        manifest = StateReader(storage, catalog, catalog.record(key)).manifest
    except StatePrunedError:
        return set(_unless_pruned(catalog, key))
    return {entry.key for entry in manifest.objects}


def _unless_pruned(catalog: Catalog, key: StateKey) -> list[str]:
    """Nothing, for a state that another prune has removed meanwhile.

    That one took data only after it had looked for sessions: one that it did not see finds the tombstone in step 3 of
    its save, and does without this base.

    Raises:
        StatePrunedError: There is no tombstone: the record was lost, and might have protected something.
    """
    if catalog.is_tombstoned(key):
        return []
    raise StatePrunedError(f"the commit marker of {key.state!r} has gone without a tombstone: nothing was deleted")


def _state_of(info: ObjectInfo) -> str:
    return info.key.partition("/")[0]

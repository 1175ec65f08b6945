"""What a save takes back that has failed."""

from __future__ import annotations

import logging
from contextlib import suppress

from statevault.errors import SaveFencedError, StateExistsError, StateVaultError, StoreReplacedError
from statevault.format.keys import StateKey, commit_key, manifest_key, session_key
from statevault.format.records import SessionRecord
from statevault.state_persistence.publish.ending import check_fences
from statevault.state_persistence.publish.upload import object_keys
from statevault.state_persistence.records.tombstones import put_tombstone
from statevault.state_persistence.snapshot.snapshot import Snapshot
from statevault.storage import Storage

__all__ = ["drop_session", "give_up", "own_keys"]

_logger = logging.getLogger(__name__)


def give_up(storage: Storage, session: SessionRecord, snapshot: Snapshot, error: Exception, *, may_clash: bool) -> None:
    """Take back what a save has put that failed before its marker was tried, as far as the storage allows.

    A disk that is full should not stay full of debris until the next prune.

    Args:
        storage: The store's objects.
        session: The session of the save.
        snapshot: What was to be saved.
        error: Why it failed.
        may_clash: Whether others may have chosen the same name.

    Raises:
        SaveFencedError: The save failed because a prune took its writer for dead, and its data away.
    """
    key = StateKey(session.sequence, session.state)
    if isinstance(error, StateExistsError):
        # What lies in the folder is somebody's own: it must neither be deleted nor be marked as dead.
        drop_session(storage, session)
        return
    if isinstance(error, StoreReplacedError):
        # In the other store nothing says that the folder is this save's own, but a name that nobody else makes.
        if not may_clash:
            with suppress(StateVaultError):
                storage.delete(own_keys(key.state, snapshot))
        drop_session(storage, session)
        return
    try:
        check_fences(storage, key)
        if storage.get(session_key(key.state)) != session.to_json() or storage.exists(commit_key(*key)):
            return  # another writer has the name: what lies there is its own
        # First the data, which may be what fills the disk, and only what this save can have put.
        storage.delete(own_keys(key.state, snapshot))
        # The tombstone names the state for the sake of puts that land later: a collection finds them by it. Only with
        # it in place may the session go.
        put_tombstone(storage, key, by=session.writer, reason=f"its save failed: {type(error).__name__}")
        storage.delete([session_key(key.state)])
    except SaveFencedError as fenced:
        raise fenced from error
    except StateVaultError as left_over:
        _logger.debug("debris of the failed save of %s is left to a prune: %s", key.state, left_over)


def own_keys(state: str, snapshot: Snapshot) -> list[str]:
    """All keys in the folder of a state under which its save may have put something."""
    return [*object_keys(state, snapshot), manifest_key(state)]


def drop_session(storage: Storage, session: SessionRecord) -> None:
    """Delete the session of a save that has put nothing else, if it is still its own."""
    try:
        if storage.get(session_key(session.state)) == session.to_json():
            storage.delete([session_key(session.state)])
    except StateVaultError as left_over:
        _logger.debug("the session of %s is left to a prune: %s", session.state, left_over)

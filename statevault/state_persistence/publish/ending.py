"""The end of a save: steps 6 and 7 (``docs/format.md``, section 5)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from statevault.errors import SaveFencedError, StorageError, StorageTimeoutError
from statevault.format.keys import StateKey, abort_key, session_key, tombstone_key
from statevault.state_persistence.concurrency.beside import Beside
from statevault.state_persistence.records.deadline import Deadline
from statevault.state_persistence.records.tombstones import put_tombstone
from statevault.storage import Storage

__all__ = ["check_fences", "end_save"]

_logger = logging.getLogger(__name__)


def end_save(storage: Storage, key: StateKey, deadline: Deadline, *, writer: str) -> None:
    """Make sure that what is acknowledged stays.

    Args:
        storage: The store's objects.
        key: The state, whose marker was put.
        deadline: Until when the save has to end.
        writer: Who saves.

    Raises:
        SaveFencedError: A prune has given the save up.
        StorageTimeoutError: The save took so long that it may have been.
        BaseException: It could not be seen; the notes say that the state is there.
    """
    try:
        # Step 6: only after the marker. A prune writes its abort first and looks for the marker after, so at least
        # one of the two sees the other.
        # Step 7 at the same time: whatever the fences say, a session with a marker protects nothing.
        with Beside(partial(_end_session, storage, key), "statevault-session"):
            check_fences(storage, key)
    except SaveFencedError:
        raise
    except BaseException as error:
        error.add_note(f"{key.state!r} is complete and committed; only whether a prune gave it up could not be seen")
        raise
    try:
        deadline.check(f"the save of {key.state!r} to {storage.url}")
    except StorageTimeoutError:
        try:
            # An abort may have come and gone while this process stood still, and data with it: pinned or not, it is
            # dead.
            put_tombstone(storage, key, by=writer, reason="its save took too long")
        except BaseException as error:
            error.add_note(
                f"{key.state!r} is visible, and perhaps not whole, because its save took too long: remove it"
            )
            raise
        raise


def check_fences(storage: Storage, key: StateKey) -> None:
    """Check that no prune has given the save up.

    Raises:
        SaveFencedError: One has.
    """
    with Beside(partial(storage.exists, abort_key(key.state)), "statevault-fences") as look:
        found = _tried(partial(storage.exists, tombstone_key(*key))), _tried(look.result)
    # One that was seen counts, whatever became of the look for the other.
    if True in found:
        raise SaveFencedError(
            f"the save of {key.state!r} to {storage.url} was given up by a prune that took its writer for dead"
        )
    for failure in found:
        if isinstance(failure, StorageError):
            raise failure


def _end_session(storage: Storage, key: StateKey) -> None:
    """Delete the session of a save that has its marker. The save is acknowledged whether or not this succeeds."""
    try:
        storage.delete([session_key(key.state)])
    except StorageError:
        pass
    except Exception:
        _logger.exception("the session of %s is left to a prune", key.state)


def _tried(look: Callable[[], bool]) -> bool | StorageError:
    try:
        return look()
    except StorageError as error:
        return error

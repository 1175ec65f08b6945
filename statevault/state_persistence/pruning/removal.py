"""Making states invisible for good: steps P0 and P1 of a prune (``docs/format.md``, section 7).

With its tombstone a state is dead, and nothing brings it back. The order of the steps is the protocol.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

from statevault.errors import StoreReplacedError
from statevault.format.keys import PINS, StateKey, abort_key, commit_key, intent_key, parse_pin_keys
from statevault.format.records import MAX_INTENT_STATES, AbortRecord, IntentRecord
from statevault.state_persistence.pruning.obstacles import check_sessions
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.records.deadline import Deadline
from statevault.state_persistence.records.sessions import Session, Sessions, look_at_sessions
from statevault.state_persistence.records.tombstones import put_tombstone
from statevault.storage import Storage
from statevault.worker_pool import parallel_map

__all__ = ["give_up_stale", "remove_states"]

_logger = logging.getLogger(__name__)
_CONCURRENT_PUTS = 16


def remove_states(
    storage: Storage, states: Iterable[StateKey], *, by: str, reason: str, check: Callable[[], None] = lambda: None
) -> list[StateKey]:
    """P0: put the tombstones of states, except of those that are pinned.

    Args:
        storage: The store's objects.
        states: Visible states.
        by: Who removes them.
        reason: Why; kept in the tombstones.
        check: Raises :class:`StoreReplacedError` if it is not the store any more in which they were chosen.

    Returns:
        Those that have their tombstone now.

    Raises:
        StoreReplacedError: It is another store now: of the batch nothing was removed.
        StorageTimeoutError: A batch took more than a day.
        StorageError: A put failed. The intent stays if it was that of a tombstone, which may yet land.
    """
    left = iter(states)
    removed: list[StateKey] = []
    while batch := list(islice(left, MAX_INTENT_STATES)):
        removed += _remove_batch(storage, batch, by=by, reason=reason, check=check)
    return removed


def _remove_batch(
    storage: Storage, states: Sequence[StateKey], *, by: str, reason: str, check: Callable[[], None]
) -> list[StateKey]:
    # First the intent, then the pins: somebody whose pin is not listed here has put it after, and sees the intent.
    deadline = Deadline()
    prune = secrets.token_hex(8)
    intent = IntentRecord(prune=prune, states=[key.state for key in states], by=by, at=datetime.now(UTC))
    storage.put(intent_key(prune), intent.to_json())
    pinned = parse_pin_keys(info.key for info in storage.list(PINS))
    removed = [key for key in states if key.state not in pinned]
    try:
        check()
    except StoreReplacedError:
        storage.delete([intent_key(prune)])
        raise
    deadline.check(f"the removal of states from {storage.url}")
    bury = partial(put_tombstone, storage, by=by, reason=reason)
    parallel_map(bury, removed, workers=_CONCURRENT_PUTS, name="statevault-remove")
    # Only now, and not after an error: whoever does not see the intent must see the tombstones.
    storage.delete([intent_key(prune)])
    return removed


def _log_given_up(session: Session, url: str) -> None:
    _logger.warning(
        "The save of %s by %s to %s did not end; it is given up", session.record.state, session.record.writer, url
    )


def give_up_stale(
    storage: Storage,
    catalog: Catalog,
    *,
    by: str,
    stale_after: timedelta,
    sessions: Sessions | None = None,
    on_given_up: Callable[[Session, str], None] = _log_given_up,
) -> list[StateKey]:
    """P1: give up the saves whose writers are taken for dead.

    Abort first, look for the marker after: at least one of prune and writer sees the other.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        by: Who prunes; its own saves are never stale.
        stale_after: How old a session without a marker is when its writer is taken for dead.
        sessions: What was read of the sessions a moment ago; they are read if it is not given. One that has ended since
            has left a marker or a tombstone, which are looked for here.
        on_given_up: Told of each that is given up, and of the store.

    Returns:
        The states that were given up.

    Raises:
        ObstacleError: A session can't be read that may protect something: nobody was given up.
        UnsupportedVersionError: One was written by a newer version.
        StorageError: The storage failed.
    """
    seen = look_at_sessions(storage) if sessions is None else sessions
    now = datetime.now(UTC)
    stale = [
        session for session in seen.readable if session.record.writer != by and now - session.begun_at >= stale_after
    ]
    if not stale and not seen.unreadable:
        return []
    listing = catalog.listing()
    # By name: where two writers chose the same, the marker of the one must not be taken for missing.
    over = {key.state for key in (*listing.commits, *listing.tombstones)}
    check_sessions(seen.unreadable, ended=over)
    given_up = []
    for session in stale:
        key = session.key
        if key.state in over:
            continue
        storage.put(abort_key(key.state), AbortRecord(state=key.state, by=by, at=now).to_json())
        if not storage.exists(commit_key(*key)):
            on_given_up(session, storage.url)
            put_tombstone(storage, key, by=by, reason="its writer was taken for dead")
            given_up.append(key)
    return given_up

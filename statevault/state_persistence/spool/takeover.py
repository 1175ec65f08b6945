"""What a replication has begun at the remote, and died: it is given up, and cleared away.

This is step P1 of a prune, for one writer that is known to be dead. Without it, what was put would lie there until a
prune takes the writer for dead, and its marker could still land.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from statevault.format.keys import StateKey, abort_key, commit_key
from statevault.format.records import AbortRecord
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.records.sessions import read_sessions
from statevault.state_persistence.records.tombstones import put_tombstone
from statevault.storage import Storage

__all__ = ["give_up_copies"]

_logger = logging.getLogger(__name__)
_REASON = "the process that copied it died"


def give_up_copies(storage: Storage, *, of: str, by: str) -> list[StateKey]:
    """Give up the saves of one writer that did not end, and delete what they have put.

    Args:
        storage: The store's objects.
        of: The writer. If it lives all the same, it notices, and saves again.
        by: Who gives them up.

    Returns:
        The states that were given up.

    Raises:
        FormatError: A record can't be read.
        StorageError: The storage failed; call again to go on.
    """
    sessions = [session for session in read_sessions(storage) if session.record.writer == of]
    if not sessions:
        return []
    catalog = Catalog(storage)
    listing = catalog.listing()
    over = {key.state for key in (*listing.commits, *listing.tombstones)}
    given_up = []
    for session in sessions:
        key = session.key
        if key.state in over:
            continue
        # Abort first, look for the marker after: at least one of this and the writer sees the other.
        storage.put(abort_key(key.state), AbortRecord(state=key.state, by=by, at=datetime.now(UTC)).to_json())
        if not storage.exists(commit_key(*key)):
            put_tombstone(storage, key, by=by, reason=_REASON)
            given_up.append(key)
            _logger.info("The copy of %s to %s was interrupted; it is begun anew", key.state, storage.url)
    prune(storage, catalog, [], by=by, reason=_REASON)
    return given_up

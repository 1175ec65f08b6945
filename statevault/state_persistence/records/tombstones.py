"""The record that ends a state."""

from __future__ import annotations

from datetime import UTC, datetime

from statevault.format.keys import StateKey, tombstone_key
from statevault.format.records import TombstoneRecord
from statevault.storage import Storage

__all__ = ["put_tombstone"]


def put_tombstone(storage: Storage, key: StateKey, *, by: str, reason: str) -> None:
    """Make a state dead for good, which nobody was told is safe: that of a save, or one that a prune removes.

    Args:
        storage: The store's objects.
        key: The state.
        by: Who does it.
        reason: Why.

    Raises:
        StorageError: The put failed; it may yet land.
    """
    tombstone = TombstoneRecord(state=key.state, sequence=key.sequence, by=by, at=datetime.now(UTC), reason=reason)
    storage.put(tombstone_key(*key), tombstone.to_json())

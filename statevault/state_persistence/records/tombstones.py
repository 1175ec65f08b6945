"""The record that ends a state."""

from __future__ import annotations

from datetime import UTC, datetime

from statevault.errors import FormatError, StorageError
from statevault.format.keys import StateKey, tombstone_key
from statevault.format.records import TombstoneRecord, in_utc
from statevault.state_persistence.records.fetch import fetch_record
from statevault.storage import ObjectInfo, Storage

__all__ = ["how_it_ended", "put_tombstone"]


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


def how_it_ended(storage: Storage, info: ObjectInfo) -> str:
    """What a tombstone says to people, to be appended to "was removed"; nothing if it can't be read.

    Args:
        storage: The store's objects.
        info: What a LIST said of the tombstone.
    """
    try:
        record = fetch_record(storage, info, TombstoneRecord)
    except (FormatError, StorageError):
        return ""
    reason = f": {record.reason}" if record.reason else ""
    return f" by {record.by}, {in_utc(record.at):%Y-%m-%d %H:%M} UTC{reason}"

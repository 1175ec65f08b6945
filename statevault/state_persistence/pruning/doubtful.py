"""Tombstones that can't be read. Their states are dead all the same: that one is there decides, not what it says.

But that what lies in the folder is a state's, and may be deleted, must be certain then from something else.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from statevault.errors import CorruptStateError, FormatError, UnsupportedVersionError
from statevault.format.keys import StateKey, manifest_key, tombstone_key
from statevault.format.records import TombstoneRecord
from statevault.state_persistence.records.catalog import Catalog, Listing
from statevault.state_persistence.records.fetch import fetch_record
from statevault.storage import ObjectInfo, Storage

__all__ = ["foreign_folders", "is_whole"]

_logger = logging.getLogger(__name__)


def is_whole(storage: Storage, listing: Listing, key: StateKey) -> bool:
    """Whether a tombstone says what its key says. Its state is dead in any case.

    Raises:
        UnsupportedVersionError: It was written by a newer version.
    """
    try:
        record = fetch_record(storage, listing.objects[tombstone_key(*key)], TombstoneRecord)
    except UnsupportedVersionError:
        raise
    except FormatError as error:
        _logger.debug("%s", error)
        return False
    return (record.sequence, record.state) == key


def foreign_folders(
    storage: Storage, catalog: Catalog, listing: Listing, data: Iterable[ObjectInfo], doubtful: Collection[StateKey]
) -> set[str]:
    """Folders of which only a tombstone that can't be read says that they are a state's: nothing is deleted in them.

    A marker, a session, a manifest, or a state that refers to the folder bears the tombstone out.
    """
    if not doubtful:
        return set()
    known = {key.state for key in listing.commits} | listing.sessions
    there = {info.key for info in data}
    foreign = {key.state for key in doubtful if key.state not in known and manifest_key(key.state) not in there}
    if foreign:
        records = catalog.records(listing.commits)
        foreign -= {name for record in records if not isinstance(record, CorruptStateError) for name in record.reuses}
    for key in doubtful:
        if key.state in foreign:
            _logger.warning(
                "The tombstone %s of %s is damaged, and nothing else says that %s/ was a state: what lies there stays. "
                "Delete it by hand if it is not needed",
                tombstone_key(*key),
                storage.url,
                key.state,
            )
    return foreign

"""Garbage collection: what a prune leaves to a look through the whole store (``docs/format.md``, section 7).

Debris of crashed saves that landed late, uploads that nobody ended, and records that have outlived all that they
protect. The one use of clocks in the protocol: for waste, never for what is visible.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from statevault.errors import FormatError, ObjectNotFoundError, UnsupportedVersionError
from statevault.format.keys import StateKey, abort_key, folder_of, is_intent_key, tombstone_key
from statevault.format.names import is_state_name
from statevault.format.records import AbortRecord, IntentRecord, TombstoneRecord
from statevault.state_persistence.pruning.obstacles import enumerated, refusing
from statevault.state_persistence.pruning.prune import Sweep, sweep
from statevault.state_persistence.pruning.rehearsal import RehearsalStorage
from statevault.state_persistence.pruning.removal import give_up_stale
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.records.catalog import Catalog, Listing
from statevault.state_persistence.records.fetch import fetch_record
from statevault.state_persistence.records.packing import PackingRule, pack_markers
from statevault.state_persistence.records.sessions import STALE_AFTER
from statevault.storage import PROBE_PREFIX, ObjectInfo, Storage
from statevault.worker_pool import parallel_map

__all__ = ["RECORDS_LIVE", "CollectionResult", "collect", "rehearse_collection"]

_logger = logging.getLogger(__name__)
_Dated = TombstoneRecord | AbortRecord | IntentRecord
_CONCURRENT_READS = 16
_NO_CLOCK = datetime(2020, 1, 1, tzinfo=UTC)
"""A device that did not know the time wrote what is older."""
RECORDS_LIVE = timedelta(days=7)
"""For how long tombstones, aborts and intents outlive what they are about; a writer gives up after a day."""


@dataclass(frozen=True, slots=True)
class CollectionResult:
    """What a collection did.

    Attributes:
        given_up: Names of the states whose saves did not end, and were given up.
        objects: How many data objects it deleted.
        freed: Their bytes.
        records: How many old records it deleted, and objects that probes have left.
        uploads: How many unfinished uploads it ended.
    """

    given_up: tuple[str, ...]
    objects: int
    freed: int
    records: int
    uploads: int


def collect(
    storage: Storage,
    catalog: Catalog,
    *,
    by: str,
    stale_after: timedelta = STALE_AFTER,
    records_live: timedelta = RECORDS_LIVE,
    shared: SharedObjects | None = None,
    packing: PackingRule = PackingRule(),  # noqa: B008 - immutable
) -> CollectionResult:
    """Look through the whole store, and delete what nobody needs.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        by: Who collects.
        stale_after: How old a session without a marker, and an unfinished upload, is when its writer is taken for dead.
        records_live: How old a tombstone, abort or intent is when it goes, once nothing else is left of its state.
        shared: What is known of the objects that the states need of each other.
        packing: When the markers are packed for those who list them.

    Raises:
        FormatError: A record can't be read: nothing was collected, since it might protect something.
        CorruptStateError: Likewise for a commit marker or a manifest.
        StatePrunedError: Likewise for a marker that has gone without a tombstone.
        StorageError: The storage failed; call again to go on.
    """
    with refusing("nothing was collected"):
        given_up = give_up_stale(storage, catalog, by=by, stale_after=stale_after)
    names = [key.state for key in given_up]
    so_far = f"nothing was collected, but these saves were given up: {enumerated(names)}"
    with refusing(so_far if names else "nothing was collected"):
        result = _clear_away(
            storage,
            catalog,
            given_up,
            stale_after=stale_after,
            records_live=records_live,
            shared=shared,
            packing=packing,
        )
    _logger.info(
        "Collected garbage of %s: %d objects, %d bytes, %d records, %d unfinished uploads",
        storage.url,
        result.objects,
        result.freed,
        result.records,
        result.uploads,
    )
    return result


def _clear_away(
    storage: Storage,
    catalog: Catalog,
    given_up: list[StateKey],
    *,
    stale_after: timedelta,
    records_live: timedelta = RECORDS_LIVE,
    shared: SharedObjects | None = None,
    packing: PackingRule,
) -> CollectionResult:
    swept = sweep(storage, catalog, shared, whole_store=True)
    expired = [*_expired(storage, swept, records_live), *_forgotten_probes(swept.listing, stale_after)]
    storage.delete(expired)
    uploads = storage.abort_unfinished_uploads(stale_after)
    pack_markers(storage, catalog, swept.listing, packing, fetch=True)
    names = tuple(key.state for key in given_up)
    return CollectionResult(names, len(swept.garbage), swept.freed, len(expired), uploads)


def rehearse_collection(storage: Storage, *, by: str, stale_after: timedelta = STALE_AFTER) -> CollectionResult:
    """What :func:`collect` would do now. Nothing is changed, and unfinished uploads are not counted.

    Args:
        storage: The store's objects.
        by: Who would collect.
        stale_after: As for :func:`collect`.

    Raises:
        Exception: As :func:`collect`.
    """
    rehearsal = RehearsalStorage(storage)
    catalog = Catalog(rehearsal)
    never = PackingRule(at_least=sys.maxsize)
    with refusing("nothing was collected"):
        given_up = give_up_stale(
            rehearsal, catalog, by=by, stale_after=stale_after, on_given_up=lambda session, url: None
        )
        return _clear_away(rehearsal, catalog, given_up, stale_after=stale_after, packing=never)


def _expired(storage: Storage, swept: Sweep, records_live: timedelta) -> list[str]:
    """The records that are older than any writer may live, of states of which nothing else is left."""
    listing = swept.listing
    # What had data a moment ago may have some that lands late: its turn comes with the next collection.
    remains = {folder_of(info.key) for info in swept.data} | listing.sessions | listing.pins.keys()
    remains |= {key.state for key in listing.commits}
    dead = {key.state for key in listing.tombstones}
    kinds: dict[str, type[_Dated]] = {
        # The last one stays: sequences never fall, so that no marker is taken for an older one of the same key.
        tombstone_key(*key): TombstoneRecord
        for key in listing.tombstones
        if key.sequence != listing.last_sequence and key.state not in remains
    }
    kinds |= {abort_key(state): AbortRecord for state in listing.aborts - remains - dead if is_state_name(state)}
    kinds |= {key: IntentRecord for key in listing.objects if is_intent_key(key)}
    # Now, by the earlier of two clocks: ours may have jumped ahead, and the backend's has come to its newest record.
    now = datetime.now(UTC)
    latest = min((max(_times(listing), default=now), now)) - records_live
    old = [key for key in kinds if (listing.objects[key].modified or latest) <= latest]

    def written_at(key: str) -> datetime | None:
        return _written_at(storage, listing.objects[key], kinds[key])

    times = parallel_map(written_at, old, workers=_CONCURRENT_READS, name="statevault-collect")
    return [key for key, at in zip(old, times, strict=True) if at is not None and _NO_CLOCK < at <= latest]


def _forgotten_probes(listing: Listing, stale_after: timedelta) -> list[str]:
    """What a probe has left that was killed."""
    latest = datetime.now(UTC) - stale_after
    probes = (info for key, info in listing.objects.items() if key.startswith(PROBE_PREFIX))
    return [info.key for info in probes if info.modified is not None and info.modified <= latest]


def _times(listing: Listing) -> Iterator[datetime]:
    """When the records were put, by the backend's clock, if it tells."""
    return (info.modified for info in listing.objects.values() if info.modified is not None)


def _written_at(storage: Storage, info: ObjectInfo, kind: type[_Dated]) -> datetime | None:
    """When a record was written by its writer's clock; None if it has gone, or nobody knows.

    What is damaged is as old as its object: it was one of these records, as its key says, and would stay for ever.
    """
    try:
        return fetch_record(storage, info, kind).at
    except (ObjectNotFoundError, UnsupportedVersionError) as error:
        _logger.debug("%s", error)
        return None
    except FormatError as error:
        _logger.debug("%s", error)
        return info.modified

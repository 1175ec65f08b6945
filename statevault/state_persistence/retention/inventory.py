"""The states of a store as retention sees them: read once, and remembered from one plan to the next."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime

from statevault.errors import CorruptStateError, StatePrunedError
from statevault.format.keys import StateKey
from statevault.format.records import CommitRecord
from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.records.catalog import Catalog, Listing
from statevault.state_persistence.retention.holdings import Holdings
from statevault.state_persistence.retention.stored_sizes import StoredSizes
from statevault.storage import Storage

__all__ = ["Inventory"]

_logger = logging.getLogger(__name__)
_PASSED_OVER = "retention passes it over"


class Inventory:
    """What retention knows of the states of one store. May be used by several threads.

    A state whose marker is damaged is no part of it: nobody knows what it needs, or how good it was. It is reported in
    the log, once.

    All methods raise :class:`~statevault.errors.StorageError` when the storage fails, and
    :class:`~statevault.errors.UnsupportedVersionError` for a record of a newer version.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        shared: What they need of each other.
    """

    def __init__(self, storage: Storage, catalog: Catalog, shared: SharedObjects) -> None:
        self._storage = storage
        self._catalog = catalog
        self._shared = shared
        self._infos: dict[StateKey, tuple[CommitRecord, StateInfo]] = {}
        self._reported: set[str] = set()

    def holdings(self, listing: Listing, *, now: datetime) -> Holdings:
        """All states that are visible in `listing`, for a policy to decide on at `now`."""
        records = self._records(listing)
        infos = [self._info(record) for record in records]
        # Markers are small, but an agent may save for years.
        self._infos = {
            StateKey(info.sequence, info.name): (record, info) for record, info in zip(records, infos, strict=True)
        }
        return Holdings(tuple(infos), now, StoredSizes(records, self._shared))

    def sizes(self, listing: Listing) -> StoredSizes:
        """The sizes of the states that are visible in `listing`, where their markers can be read."""
        return StoredSizes(self._records(listing, "what it takes is not known"), self._shared)

    def newest_first(self, listing: Listing) -> Iterator[StateInfo]:
        """The states that are visible in `listing`; each marker is read when it is asked for."""
        for key in reversed(listing.visible):
            try:
                record = self._catalog.record(key)
            except StatePrunedError:
                continue
            except CorruptStateError as error:
                self._report(error)
            else:
                yield self._info(record)

    def _records(self, listing: Listing, without: str = _PASSED_OVER) -> list[CommitRecord]:
        visible = listing.visible
        self._shared.forget_others(visible)
        records: dict[str, CommitRecord] = {}
        for record in self._catalog.records_to_show(listing):
            if isinstance(record, CorruptStateError):
                self._report(record, without)
            else:
                # Of two markers of one name, which no save leaves, the later one: they can only go together.
                records.pop(record.state, None)
                records[record.state] = record
        return list(records.values())

    def _info(self, record: CommitRecord) -> StateInfo:
        # A remote path takes a moment to make, and thousands of them too long to be made anew after each save.
        known = self._infos.get(StateKey(record.sequence, record.state))
        if known is not None and (known[0] is record or known[0] == record):
            return known[1]
        return StateInfo.from_record(record, self._storage.path(record.state))

    def _report(self, damaged: CorruptStateError, what: str = _PASSED_OVER) -> None:
        report = f"{damaged}; {what}"
        if report not in self._reported:
            self._reported.add(report)
            _logger.warning("%s", report)

"""Writing the marker pack, at the end of a prune or a collection (``docs/format.md``, section 12).

Packed is only what this process has read from the markers' own objects, and late enough: whatever an older pack says is
not carried over. The pack is a cache, so that nothing fails for want of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from statevault.errors import CorruptStateError, StatePrunedError, StateVaultError
from statevault.format.keys import MARKER_PACK, StateKey, commit_key
from statevault.format.marker_pack import MAX_PACK_SIZE, PackedMarker, microseconds
from statevault.format.records import MAX_RECORD_SIZE
from statevault.state_persistence.records.catalog import SETTLED_AFTER, Catalog, Listing
from statevault.state_persistence.records.packed_markers import seal_pack, storage_clock
from statevault.storage import ObjectInfo, Storage
from statevault.worker_pool import parallel_map

__all__ = ["PackingRule", "pack_markers"]

_logger = logging.getLogger(__name__)
_CONCURRENT_READS = 16


@dataclass(frozen=True, slots=True)
class PackingRule:
    """When a pack is worth its PUT.

    Attributes:
        at_least: How many markers there must be.
        gain: How many more of them the new pack must have than the old one, at least.
        share: Likewise, as a share of them.
    """

    at_least: int = 512
    gain: int = 256
    share: float = 1 / 8


def pack_markers(storage: Storage, catalog: Catalog, listing: Listing, rule: PackingRule, *, fetch: bool) -> None:
    """Put a new marker pack, if that is worth it. A failure is reported in the log.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        listing: What a LIST has said, of a moment ago.
        rule: When it is worth it.
        fetch: Read the markers that `catalog` has not read, or not late enough. Otherwise no marker is read, and what
            is not known is left out.
    """
    try:
        _pack(storage, catalog, listing, rule, fetch=fetch)
    except StateVaultError as error:
        _logger.warning("The markers of %s were not packed: %s", storage.url, error)


def _pack(storage: Storage, catalog: Catalog, listing: Listing, rule: PackingRule, *, fetch: bool) -> None:
    # In the order of what it costs to find out.
    if len(listing.commits) < rule.at_least:
        return
    settled = dict(_settled(listing))
    ours = dict(_fitting({key: info for key, info in settled.items() if fetch or _is_known(catalog, key, info)}))
    least = max(rule.gain, len(settled) * rule.share)
    if len(settled) < rule.at_least or len(ours) < least:
        return
    least += catalog.packed(settled, listing)
    if len(ours) < least:
        return
    markers = _markers(catalog, ours, fetch=fetch)
    if len(markers) < least:
        return
    size = storage.put(MARKER_PACK, seal_pack(markers))
    _logger.info("Packed %d markers of %s: %d bytes", len(markers), storage.url, size)


def _settled(listing: Listing) -> Iterator[tuple[StateKey, ObjectInfo]]:
    """The visible states whose markers nobody can have put a moment ago."""
    clock = storage_clock(listing.objects.values())
    for key in listing.visible:
        info = listing.objects[commit_key(*key)]
        if clock is None or info.modified is None or info.modified.tzinfo is None:
            continue
        if info.modified <= clock - SETTLED_AFTER and 0 < info.size <= MAX_RECORD_SIZE:
            yield key, info


def _fitting(markers: Mapping[StateKey, ObjectInfo]) -> Iterator[tuple[StateKey, ObjectInfo]]:
    """As many as a pack may hold, the oldest first."""
    room = MAX_PACK_SIZE - PackedMarker.room("", 0)
    for key, info in markers.items():
        room -= PackedMarker.room(key.state, info.size)
        if room < 0:
            return
        yield key, info


def _is_known(catalog: Catalog, key: StateKey, info: ObjectInfo) -> bool:
    return info.modified is not None and catalog.was_read_settled(key, info.modified)


def _markers(catalog: Catalog, infos: Mapping[StateKey, ObjectInfo], *, fetch: bool) -> list[PackedMarker]:
    """The bytes of markers, as far as they are known or can be read."""
    contents = {key: catalog.stored(key) if _is_known(catalog, key, info) else None for key, info in infos.items()}
    if fetch:
        contents |= _fetched(catalog, [key for key, content in contents.items() if content is None])
    markers = []
    for key, content in contents.items():
        info = infos[key]
        modified = microseconds(info.modified)
        if content is not None and modified is not None and len(content) == info.size:
            markers.append(PackedMarker(*key, info.size, modified, content))
    return markers


def _fetched(catalog: Catalog, keys: Iterable[StateKey]) -> dict[StateKey, bytes | None]:
    """Read markers from their own objects, several at once; None for those that can't be packed."""

    def fetch(key: StateKey) -> bytes | None:
        try:
            return catalog.fetch(key)
        except (StatePrunedError, CorruptStateError):
            return None

    keys = list(keys)
    contents = parallel_map(fetch, keys, workers=_CONCURRENT_READS, name="statevault-pack")
    return dict(zip(keys, contents, strict=True))

"""Commit markers out of the marker pack: many in one GET (``docs/format.md``, section 12).

A cache, to tell people and policies of states. Nothing here serves to decide what may be deleted: that what a pack says
was read from the markers is the word of whoever wrote it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from statevault.codecs import SealWriter, decompress_chunk, digest, find_seal
from statevault.codecs.compression import compress_bounded, is_bounded
from statevault.errors import FormatError, StateVaultError
from statevault.format.keys import MARKER_PACK, StateKey, commit_key
from statevault.format.marker_pack import MAX_PACK_SIZE, MarkerPack, PackedMarker, microseconds
from statevault.format.records import CommitRecord
from statevault.storage import ObjectInfo, Storage

__all__ = ["PackedMarkers", "open_pack", "seal_pack", "storage_clock"]

_logger = logging.getLogger(__name__)
_KIND = "markers"
_WORTH = 32
"""How many markers must be missing for the pack to be read: it is as large as all of them."""


class _Entry(NamedTuple):
    """A marker of a pack that held.

    Attributes:
        info: What the LIST told of the marker's object.
        record: The marker; None where it was known already, from its own object.
        pack: The last pack that had it.
    """

    info: ObjectInfo
    record: CommitRecord | None
    pack: ObjectInfo


@dataclass(frozen=True, slots=True)
class _Held:
    """What is known of a pack. Replaced as a whole: several threads may ask.

    Attributes:
        pack: The pack as a LIST told of it; None if none was read.
        entries: Those of its entries that held when it was read.
    """

    pack: ObjectInfo | None = None
    entries: Mapping[StateKey, _Entry] = field(default_factory=dict)

    def entry(self, key: StateKey, objects: Mapping[str, ObjectInfo]) -> _Entry | None:
        """The entry of a marker, if it holds still."""
        entry = self.entries.get(key)
        return None if entry is None or objects.get(entry.info.key) != entry.info else entry

    def records(self, keys: Iterable[StateKey], objects: Mapping[str, ObjectInfo]) -> dict[StateKey, CommitRecord]:
        """The markers of the entries that hold still."""
        entries = ((key, self.entry(key, objects)) for key in keys)
        return {key: entry.record for key, entry in entries if entry is not None and entry.record is not None}


class PackedMarkers:
    """The marker pack of one store. Each version of it is read once, and only if that spares many requests.

    Args:
        storage: The store's objects.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._held = _Held()

    def records(self, keys: Collection[StateKey], objects: Mapping[str, ObjectInfo]) -> dict[StateKey, CommitRecord]:
        """Those of some markers that the pack holds. Never to tell what may be deleted.

        A pack that is missing, damaged, or can't be read has none.

        Args:
            keys: The markers.
            objects: All records, as a LIST has just told.
        """
        held = self._held
        found = held.records(keys, objects)
        if len(keys) - len(found) >= _WORTH and (newer := self._read(keys, objects)) is not held:
            found = newer.records(keys, objects)
        return found

    def covered(
        self, keys: Iterable[StateKey], objects: Mapping[str, ObjectInfo], *, wanted: Collection[StateKey]
    ) -> int:
        """How many of some markers the pack holds that is there now.

        Args:
            keys: The markers.
            objects: All records, as a LIST has told.
            wanted: Markers that :meth:`records` may be asked for later, since the pack is not read for that again.
        """
        held, pack = self._read(wanted, objects), objects.get(MARKER_PACK)
        entries = (held.entry(key, objects) for key in keys)
        return sum(entry is not None and entry.pack == pack for entry in entries)

    def forget(self, keys: Iterable[StateKey]) -> None:
        """Drop what is known of states that were pruned."""
        gone, held = set(keys), self._held
        if not gone.isdisjoint(held.entries):
            entries = {key: entry for key, entry in held.entries.items() if key not in gone}
            self._held = _Held(held.pack, entries)

    def _read(self, wanted: Collection[StateKey], objects: Mapping[str, ObjectInfo]) -> _Held:
        """Read the pack, unless that very one was read before."""
        info, held = objects.get(MARKER_PACK), self._held
        if info is None or info.modified is None or info == held.pack:
            return held
        entries = {key: entry for key in held.entries if (entry := held.entry(key, objects)) is not None}
        try:
            pack = self._fetch(info)
        except StateVaultError as error:
            # A cache: whatever is wrong with it, the markers themselves are there.
            _logger.warning("The marker pack is not used: %s", error)
        else:
            wanted = set(wanted)
            for marker in pack.markers:
                key = StateKey(marker.sequence, marker.state)
                entry = self._checked(marker, objects, info, wanted=key in wanted and key not in entries)
                if entry is not None:
                    # What an older pack has told of the very same object is not told anew.
                    entries[key] = entries.get(key, entry)._replace(pack=info)
        self._held = _Held(info, entries)
        return self._held

    def _fetch(self, info: ObjectInfo) -> MarkerPack:
        where = f"{info.key} of {self._storage.url}"
        if info.size > MAX_PACK_SIZE:
            raise FormatError(f"{where} has {info.size} bytes; at most {MAX_PACK_SIZE} are allowed")
        return open_pack(self._storage.get(info.key), where=where)

    def _checked(
        self, marker: PackedMarker, objects: Mapping[str, ObjectInfo], pack: ObjectInfo, *, wanted: bool
    ) -> _Entry | None:
        """The entry of a marker if it holds, and is one where it is wanted."""
        info = objects.get(commit_key(marker.sequence, marker.state))
        if info is None or (marker.size, marker.modified) != (info.size, microseconds(info.modified)):
            return None
        if len(marker.content) != marker.size:
            return None
        if not wanted:
            return _Entry(info, None, pack)
        where = f"{info.key} in {MARKER_PACK} of {self._storage.url}"
        try:
            record = CommitRecord.from_json(marker.content, where=where)
        except FormatError as error:
            # Its own object may be right, or says best what is wrong.
            _logger.debug("%s", error)
            return None
        return _Entry(info, record, pack) if (record.sequence, record.state) == marker[:2] else None


def seal_pack(markers: list[PackedMarker]) -> bytes:
    """Make the object of a pack."""
    packed = MarkerPack.model_construct(markers=markers).pack()
    payload = compress_bounded(packed)
    seal = SealWriter({"kind": _KIND, "size": len(packed)})
    seal.update(payload)
    return payload + seal.finish()


def open_pack(data: bytes, *, where: str) -> MarkerPack:
    """Read the object of a pack.

    Args:
        data: The object.
        where: Key and store, for messages.

    Raises:
        CorruptStateError: Its payload can't be decompressed.
        FormatError: It is damaged, too large, of another version, or something else.
    """
    seal = find_seal(data)
    if seal is None or seal.info.get("kind") != _KIND:
        raise FormatError(f"{where} is no marker pack, or was cut short")
    if digest(memoryview(data)[: -seal.digested_from_end]) != seal.digest:
        raise FormatError(f"{where} does not match its digest")
    size = seal.info.get("size")
    # Before anything is decompressed: a frame gives no more than this.
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= MAX_PACK_SIZE:
        raise FormatError(f"{where} says that it has {size!r} bytes; at most {MAX_PACK_SIZE} are allowed")
    if not is_bounded(size, len(data)):
        raise FormatError(f"{where} has {len(data)} bytes and says that they make {size}, more than any writer packs")
    return MarkerPack.unpack(decompress_chunk(memoryview(data)[: -seal.size], size=size), where=where)


def storage_clock(objects: Iterable[ObjectInfo]) -> datetime | None:
    """The instant to which a storage's clock had come at least when it was listed, by its newest object.

    No later than now, by our own clock: somebody may have given an object a time of the future. None where the
    storage does not tell.
    """
    times = [info.modified for info in objects if info.modified is not None and info.modified.tzinfo is not None]
    return min(max(times), datetime.now(UTC)) if times else None

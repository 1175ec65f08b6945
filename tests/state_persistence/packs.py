"""Stores of many states with a marker pack, and what lies in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from statevault.format.keys import COMMITS, MARKER_PACK, VAULT, StateKey, commit_key, parse_state_keys
from statevault.format.marker_pack import PackedMarker, microseconds
from statevault.format.records import CommitRecord
from statevault.state_persistence import StateInfo, StateStore
from statevault.state_persistence.pruning.collection import collect
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.records.packed_markers import open_pack, seal_pack
from statevault.state_persistence.records.packing import PackingRule
from statevault.storage import ObjectInfo, Storage
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.storages import DictStorage, TimedStorage, WatchedStorage

__all__ = [
    "RULE",
    "add_markers",
    "collect_and_pack",
    "filled",
    "listed",
    "listed_without_pack",
    "lying",
    "packed_keys",
    "pass_hours",
    "put_pack",
    "storage_of_yesterday",
    "truthful",
]

RULE = PackingRule(at_least=40, gain=20)
"""That of tests, which have few states."""


def storage_of_yesterday() -> TimedStorage:
    """An empty storage whose clock says yesterday."""
    return TimedStorage(datetime.now(UTC) - timedelta(days=1))


def pass_hours(storage: TimedStorage, hours: float = 2) -> None:
    """Let time pass, and something be put then."""
    storage.now += timedelta(hours=hours)
    storage.put(VAULT + "probe/tick", b"")


def add_markers(storage: Storage, first: int, last: int) -> None:
    """Put the markers of more states, like that of the first one: numbers `first` to `last`."""
    record = Catalog(storage).record(StateKey(1, "0000.state"))
    for number in range(first, last + 1):
        name = f"{number:04}.state"
        more = record.model_copy(update={"state": name, "sequence": number + 1, "metadata": {"step": number}})
        storage.put(commit_key(number + 1, name), more.to_json())


def filled(count: int = 50) -> TimedStorage:
    """A store of many states, saved long ago."""
    storage = storage_of_yesterday()
    with store_with(storage, folder=Folder({"own.bin": b"own"})) as store:
        store.save_state(name="0000.state")
    add_markers(storage, 1, count - 1)
    pass_hours(storage)
    return storage


def collect_and_pack(storage: Storage, catalog: Catalog | None = None) -> None:
    """A collection, of a process of its own if it has no catalog."""
    collect(storage, catalog or Catalog(storage), by="packer", packing=RULE)


def listed(storage: Storage) -> tuple[list[StateInfo], Counter[str]]:
    """What a new process lists, and its requests."""
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        infos = store.states()
    return infos, Counter(call.partition(" ")[0] for call in watched.calls)


def listed_without_pack(storage: TimedStorage) -> list[StateInfo]:
    """What is listed when there is no pack."""
    pack = storage.objects.pop(MARKER_PACK)
    try:
        return listed(storage)[0]
    finally:
        storage.objects[MARKER_PACK] = pack


def packed_keys(storage: DictStorage) -> list[StateKey]:
    """The states whose markers are in the pack; none if there is none."""
    if MARKER_PACK not in storage.objects:
        return []
    return [StateKey(*marker[:2]) for marker in open_pack(storage.objects[MARKER_PACK], where="here").markers]


def truthful(storage: TimedStorage) -> list[PackedMarker]:
    """What a pack of all markers holds."""
    infos: Mapping[str, ObjectInfo] = {info.key: info for info in storage.list(COMMITS)}
    markers = []
    for key in parse_state_keys(infos, COMMITS):
        info = infos[commit_key(*key)]
        modified = microseconds(info.modified)
        assert modified is not None
        markers.append(PackedMarker(*key, info.size, modified, storage.objects[info.key]))
    return markers


def put_pack(storage: TimedStorage, markers: Iterable[PackedMarker]) -> None:
    """Put a pack of any entries."""
    storage.put(MARKER_PACK, seal_pack(list(markers)))


def lying(marker: PackedMarker, **fields: object) -> PackedMarker:
    """An entry that holds, and whose marker says something else than the real one; as long as that."""
    record = CommitRecord.from_json(marker.content, where="here").model_copy(update=fields)
    content = record.to_json().rstrip(b"\n")
    assert len(content) <= marker.size, "choose fields that are no longer"
    return marker._replace(content=content.ljust(marker.size))

"""Listing by the marker pack: fewer requests, and never another answer than the markers themselves give."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from statevault.codecs import SealWriter, compress_chunk
from statevault.errors import CorruptStateError, StorageError
from statevault.format.keys import COMMITS, MARKER_PACK, StateKey, commit_key, manifest_key
from statevault.format.manifest import ObjectEntry
from statevault.format.marker_pack import MAX_PACK_SIZE, MarkerPack, PackedMarker
from statevault.format.records import CommitRecord
from statevault.state_persistence import KeepLatest, StateStore
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.records.packed_markers import open_pack, seal_pack
from statevault.storage import LocalStorage
from tests.profiles import rounds
from tests.state_persistence.components import Folder
from tests.state_persistence.packs import (
    add_markers,
    collect_and_pack,
    filled,
    listed,
    listed_without_pack,
    lying,
    pass_hours,
    put_pack,
    storage_of_yesterday,
    truthful,
)
from tests.state_persistence.storages import DictStorage, TimedStorage, WatchedStorage


def packed(count: int = 50) -> TimedStorage:
    storage = filled(count)
    put_pack(storage, truthful(storage))
    return storage


def test_a_new_process_lists_with_one_get() -> None:
    storage = packed()
    infos, requests = listed(storage)
    assert requests == {"list": 1, "get": 2}, "the store's description, and the pack"
    assert infos == listed_without_pack(storage)
    assert [info.metadata.get("step") for info in infos] == [None, *range(1, 50)]


def test_the_pack_is_read_once_and_what_is_new_by_itself() -> None:
    storage = packed()
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        store.states()
        watched.calls.clear()
        store.states()
        store.plan_retention(KeepLatest(5))
        assert watched.calls == ["list _vault/"] * 2
        add_markers(storage, 50, 52)
        watched.calls.clear()
        assert len(store.states()) == 53
    assert sorted(watched.calls) == [*(f"get {COMMITS}{n + 1:012}.00{n}.state" for n in range(50, 53)), "list _vault/"]


def test_a_newer_pack_is_read_where_many_are_missing() -> None:
    storage = packed()
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        store.states()
        add_markers(storage, 50, 99)
        pass_hours(storage)
        put_pack(storage, truthful(storage)[40:])
        watched.calls.clear()
        assert [info.name for info in store.states()] == [f"{number:04}.state" for number in range(100)]
    assert watched.calls == ["list _vault/", f"get {MARKER_PACK}"], "what the older pack had is still known"


def test_few_markers_are_not_worth_a_pack() -> None:
    assert listed(packed(31))[1] == {"list": 1, "get": 1 + 31}
    assert listed(packed(32))[1] == {"list": 1, "get": 1 + 1}


def test_without_a_pack_nothing_is_asked_for_it() -> None:
    assert listed(filled())[1] == {"list": 1, "get": 1 + 50}


@pytest.mark.parametrize(("step", "later"), [(8, 1), (8, -1), (88, 0), (88, 1)])
def test_a_marker_that_was_put_again_is_read_itself(step: int, later: int) -> None:
    """With another size, or at another time; be it by a microsecond, or earlier."""
    storage = packed()
    key = commit_key(8, "0007.state")
    put, content = storage.times[key], storage.objects[key]
    storage.put(key, content.replace(b'"step": 7', b'"step": %d' % step))
    storage.times[key] = put + timedelta(microseconds=later)
    infos, requests = listed(storage)
    assert requests == {"list": 1, "get": 2 + 1}
    assert infos[7].metadata == {"step": step}
    assert infos == listed_without_pack(storage)


def test_a_marker_that_is_put_again_later_is_read_itself() -> None:
    storage = packed()
    with StateStore(storage) as store:
        assert store.states()[7].metadata == {"step": 7}
        storage.now += timedelta(microseconds=1)
        key = commit_key(8, "0007.state")
        storage.put(key, storage.objects[key].replace(b'"step": 7', b'"step": 8'))
        assert store.states()[7].metadata == {"step": 8}


def resealed(change: Callable[[list[PackedMarker]], list[PackedMarker]]) -> Callable[[bytes], bytes]:
    """A pack that is whole, of other entries."""
    return lambda pack: seal_pack(change(open_pack(pack, where="here").markers))


def sealed(payload: bytes, **info: object) -> bytes:
    seal = SealWriter({"kind": "markers", **info})
    seal.update(payload)
    return payload + seal.finish()


def of_fields(**fields: object) -> bytes:
    content = MarkerPack.model_construct(markers=[], **fields).pack()  # type: ignore[arg-type]
    return sealed(compress_chunk(content), size=len(content))


def first_replaced(**fields: object) -> Callable[[bytes], bytes]:
    return resealed(lambda markers: [marker._replace(**fields) for marker in markers])  # type: ignore[arg-type]


BOMB = compress_chunk(bytes(MAX_PACK_SIZE + 1))
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda pack: b"",
    "half of it": lambda pack: pack[: len(pack) // 2],
    "all but the last byte": lambda pack: pack[:-1],
    "one byte more": lambda pack: pack + b"\0",
    "a flipped bit in the frame": lambda pack: pack[:50] + bytes([pack[50] ^ 1]) + pack[51:],
    "a wrong digest": lambda pack: pack[:-20] + bytes([pack[-20] ^ 1]) + pack[-19:],
    "no seal": lambda pack: pack[: -len(sealed(b"", size=10_000))],
    "the seal of something else": lambda pack: sealed(compress_chunk(b"{}"), kind="policy", size=2),
    "no zstd frame": lambda pack: sealed(b"frame", size=5),
    "a size that is text": lambda pack: sealed(compress_chunk(b"{}"), size="2"),
    "a size that is true": lambda pack: sealed(compress_chunk(b"{"), size=True),
    "a bomb that says so": lambda pack: sealed(BOMB, size=MAX_PACK_SIZE + 1),
    "a bomb that does not": lambda pack: sealed(BOMB, size=1000),
    "no msgpack": lambda pack: sealed(compress_chunk(b"\xc1"), size=1),
    "a newer version": lambda pack: of_fields(version=2),
    "another format": lambda pack: of_fields(format="statevault-manifest"),
    "nothing in it": resealed(lambda markers: []),
    "contents of other states": resealed(
        lambda markers: [
            marker._replace(content=other.content.ljust(marker.size)[: marker.size])
            for marker, other in zip(markers, markers[::-1], strict=True)
        ]
    ),
    "contents of another length": resealed(
        lambda markers: [marker._replace(content=marker.content + b" ") for marker in markers]
    ),
    "contents that are no markers": resealed(
        lambda markers: [marker._replace(content=b"x" * marker.size) for marker in markers]
    ),
    "contents of a newer version": resealed(
        lambda markers: [
            marker._replace(content=marker.content.replace(b'"version": 1', b'"version": 2')) for marker in markers
        ]
    ),
    "other times": first_replaced(modified=0),
    "other sizes": first_replaced(size=10),
    "other sequences": first_replaced(sequence=77),
    "a name that is none": first_replaced(state="../x"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_pack_that_is_not_right_is_none(what: str) -> None:
    storage = packed()
    right = listed_without_pack(storage)
    storage.put(MARKER_PACK, DAMAGE[what](storage.objects[MARKER_PACK]))
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        assert store.states() == right
        assert store.states() == right
    assert watched.calls.count(f"get {MARKER_PACK}") == 1
    assert len([call for call in watched.calls if call.startswith(f"get {COMMITS}")]) == 50


def test_each_flipped_byte_is_noticed() -> None:
    pack = packed().objects[MARKER_PACK]
    for at in range(len(pack)):
        with pytest.raises((ValueError, OSError)):
            open_pack(pack[:at] + bytes([pack[at] ^ 0x10]) + pack[at + 1 :], where="here")


@pytest.mark.parametrize("size", [1000, MAX_PACK_SIZE + 1])
def test_a_bomb_takes_no_memory(size: int) -> None:
    bomb = sealed(BOMB, size=size)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="bytes"):
            open_pack(bomb, where="here")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_pack_that_is_too_large_is_not_asked_for() -> None:
    storage = packed()
    storage.objects[MARKER_PACK] = bytes(MAX_PACK_SIZE + 1)
    assert listed(storage)[1] == {"list": 1, "get": 1 + 50}


def test_where_a_storage_tells_no_times_no_pack_is_read() -> None:
    storage = packed()
    plain = DictStorage()
    plain.objects = storage.objects
    assert listed(plain)[1] == {"list": 1, "get": 1 + 50}


@pytest.mark.parametrize("gone", [True, False])
def test_a_pack_that_can_not_be_read_is_none(gone: bool) -> None:
    class Refusing(WatchedStorage):
        @override
        def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            if key == MARKER_PACK:
                if gone:
                    storage.objects.pop(key)
                else:
                    raise StorageError("refused", key=key)
            return super().get(key, start, end)

    storage = packed()
    assert len(listed(Refusing(storage))[0]) == 50


def test_removed_states_are_not_listed_though_they_are_packed() -> None:
    storage = packed()
    with StateStore(storage) as store:
        store.remove(["0003.state", "0049.state"])
    infos, requests = listed(storage)
    assert requests == {"list": 1, "get": 2}
    assert {"0003.state", "0049.state"}.isdisjoint(info.name for info in infos)
    assert len(infos) == 48


def test_a_copied_folder_lists_as_it_did(tmp_path: Path) -> None:
    storage = filled()
    here = LocalStorage(tmp_path / "here")
    for key, content in storage.objects.items():
        here.put(key, content)
    infos = {info.key: info for info in here.list()}
    stamped = [
        marker._replace(modified=round(modified.timestamp() * 1e6))
        for marker in truthful(storage)
        if (modified := infos[commit_key(*marker[:2])].modified) is not None
    ]
    here.put(MARKER_PACK, seal_pack(stamped))
    right, requests = listed(here)
    assert requests == {"list": 1, "get": 2}
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)
    again, requests = listed(LocalStorage(tmp_path / "there"))
    assert [info.name for info in again] == [info.name for info in right]
    assert requests == {"list": 1, "get": 2 + 50}


# What is never taken from a pack.


def test_what_loads_verifies_and_describes_reads_the_marker_itself() -> None:
    storage = packed()
    put_pack(storage, [lying(marker, files=7, metadata={}) for marker in truthful(storage)])
    with StateStore(storage) as store:
        assert {info.files for info in store.states()} == {7}
        assert store.info("0007.state").files == 1
        latest = store.latest()
        assert latest is not None
        assert latest.files == 1
        assert store.verify("0000.state").files == 1
        assert {info.files for info in store.states()} == {1, 7}, "what was read itself comes first"
        assert list(store.protected()) == ["0049.state"]
    catalog = Catalog(storage)
    catalog.records_to_show(catalog.listing())
    assert {
        record.files for record in catalog.records(catalog.listing().visible) if isinstance(record, CommitRecord)
    } == {1}
    assert catalog.record(StateKey(9, "0008.state")).files == 1


def test_what_no_retention_removes_is_told_by_the_markers_themselves() -> None:
    storage = packed()
    put_pack(storage, [lying(marker, writer="w", metadata={"exit": "error"}) for marker in truthful(storage)[1:]])
    with StateStore(storage) as store:
        store.plan_retention(KeepLatest(5))
        assert list(store.protected()) == ["0049.state"]


def sharing(storage: TimedStorage) -> None:
    """States that need an object in the folder of the first one, and many others."""
    folder = Folder({"frozen.bin": b"f" * 70_000, "own.bin": b"0"})
    with StateStore(storage) as store:
        store.register("folder", folder)
        for number in range(3):
            folder.files["own.bin"] = str(number).encode()
            store.save_state(name=f"s{number}.state")
    record = Catalog(storage).record(StateKey(1, "s0.state"))
    for number in range(3, 50):
        name = f"x{number}.state"
        more = record.model_copy(update={"state": name, "sequence": number + 1})
        storage.put(commit_key(number + 1, name), more.to_json())
    pass_hours(storage)


@pytest.mark.parametrize("collects", [False, True])
def test_a_pack_that_lies_about_what_is_reused_loses_no_data(collects: bool) -> None:
    storage = storage_of_yesterday()
    sharing(storage)
    put_pack(storage, [lying(marker, base=None, reuses=[]) for marker in truthful(storage)])
    with StateStore(storage) as store:
        # All that may be asked of the pack, in the process that prunes.
        assert all(info.base is None for info in store.states())
        plan = store.plan_retention(KeepLatest(1))
        assert "s0.state" in {state.name for state in plan.removed}
        store.freed_by(["s0.state"])
        store.remove(["s0.state"])
        if collects:
            store.gc()
        for name in ("s1.state", "s2.state"):
            store.verify(name)
    assert any(key.startswith("s0.state/") for key in storage.objects)


def test_a_manifest_that_was_found_by_a_pack_does_not_answer_for_a_prune() -> None:
    """Not even where the manifest was replaced by one that agrees with the pack: then the prune stops."""
    storage = storage_of_yesterday()
    sharing(storage)
    real = Catalog(storage).record(StateKey(3, "s2.state"))
    read: list[CommitRecord] = []

    def manifest(record: CommitRecord) -> list[ObjectEntry]:
        read.append(record)
        return [ObjectEntry(f"{folder}/folder/frozen.bin.zst", 9) for folder in record.reuses]

    shared = SharedObjects(manifest)
    liar = real.model_copy(update={"reuses": ["x3.state"]})
    assert [share.folder for share in shared.of_readable([liar])["s2.state"]] == ["x3.state"]
    assert [share.folder for share in shared.of([real])["s2.state"]] == ["s0.state"]
    shared.of([real.model_copy()])
    assert read == [liar, real], "an equal marker leads to the same manifest"


def test_a_marker_that_is_damaged_stops_a_prune_though_the_pack_has_it() -> None:
    storage = storage_of_yesterday()
    sharing(storage)
    put_pack(storage, truthful(storage))
    key = commit_key(3, "s2.state")
    storage.objects[key] = b"x" * len(storage.objects[key])  # its time stays
    before = {key for key in storage.objects if key.startswith("s0.state/")}
    with StateStore(storage) as store:
        assert len(store.states()) == 50
        with pytest.raises(CorruptStateError):
            store.remove(["s0.state"])
    assert {key for key in storage.objects if key.startswith("s0.state/")} == before
    assert manifest_key("s0.state") in before


# Any pack.


@st.composite
def entries(draw: st.DrawFn, right: list[PackedMarker]) -> list[PackedMarker]:
    """Entries of which those that hold are truthful; any number, in any order, some twice."""
    return [draw(bent(marker)) for marker in draw(st.lists(st.sampled_from(right), max_size=80))]


def bent(marker: PackedMarker) -> st.SearchStrategy[PackedMarker]:
    """A truthful entry, or one that does not hold, whatever it says."""
    liar = lying(marker, files=9)
    contents = st.binary(min_size=1, max_size=1000).filter(lambda content: len(content) != marker.size)
    return st.one_of(
        st.just(marker),
        st.integers(-(10**6), 10**6).filter(bool).map(lambda off: liar._replace(modified=marker.modified + off)),
        contents.map(lambda content: marker._replace(size=len(content), content=content)),
        st.just(liar._replace(sequence=marker.sequence + 10_000)),
        st.just(liar._replace(state="gone.state")),
    )


STORAGE = packed(40)
RIGHT = listed_without_pack(STORAGE)


@settings(max_examples=rounds(100, 2000), deadline=None)
@given(entries(truthful(STORAGE)))
def test_any_pack_lists_what_the_markers_say(markers: list[PackedMarker]) -> None:
    put_pack(STORAGE, markers)
    infos, requests = listed(STORAGE)
    assert infos == RIGHT
    held = set(markers) & set(truthful(STORAGE))
    assert requests == {"list": 1, "get": 2 + 40 - len(held)}


@settings(max_examples=rounds(100, 2000), deadline=None)
@given(st.data())
def test_any_bytes_in_the_place_of_the_pack_change_nothing(data: st.DataObject) -> None:
    whole = seal_pack(truthful(STORAGE))
    at = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=60))
    STORAGE.put(MARKER_PACK, whole[:at] + junk + whole[at + data.draw(st.integers(0, 60)) :])
    assert listed(STORAGE)[0] == RIGHT


def test_a_collection_leaves_the_pack_and_lists_by_it_afterwards() -> None:
    storage = packed()
    watched = WatchedStorage(storage)
    catalog = Catalog(watched)
    collect_and_pack(watched, catalog)
    collect_and_pack(watched, catalog)
    assert MARKER_PACK in storage.objects
    assert watched.calls.count(f"get {MARKER_PACK}") == 1
    watched.calls.clear()
    assert len(catalog.records_to_show(catalog.listing())) == 50
    assert watched.calls == ["list _vault/"]

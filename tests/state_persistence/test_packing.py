"""When prunes and collections write the marker pack, what they put into it, and what that costs."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.errors import StorageError
from statevault.format.keys import COMMITS, MARKER_PACK, StateKey, commit_key, tombstone_key
from statevault.format.marker_pack import PackedMarker
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.collection import collect
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.records import packing as packing_module
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.records.packed_markers import open_pack
from statevault.state_persistence.records.packing import PackingRule
from statevault.storage import Body, LocalStorage, Storage
from tests.cli.run import invoked
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.packs import (
    RULE,
    add_markers,
    collect_and_pack,
    filled,
    listed,
    listed_without_pack,
    lying,
    packed_keys,
    pass_hours,
    put_pack,
    truthful,
)
from tests.state_persistence.storages import (
    FAILURES,
    DictStorage,
    FailingStorage,
    Failure,
    ProcessDiedError,
    TimedStorage,
    WatchedStorage,
)

NEVER = PackingRule(at_least=10**9)


def prune_and_pack(
    storage: Storage, *victims: str, catalog: Catalog | None = None, rule: PackingRule = RULE
) -> Catalog:
    """A prune, of a process of its own if it has no catalog."""
    catalog = catalog or Catalog(storage)
    prune(storage, catalog, victims, by="packer", reason="test", packing=rule)
    return catalog


def that_knows_all(storage: Storage) -> Catalog:
    """The catalog of a process that has read all markers."""
    catalog = Catalog(storage)
    catalog.records(catalog.listing().visible)
    return catalog


def kinds_of(watched: WatchedStorage) -> Counter[str]:
    return Counter(call.partition(" ")[0] for call in watched.calls)


def test_a_collection_packs_all_markers_as_they_are_stored() -> None:
    storage = filled()
    collect_and_pack(storage)
    assert open_pack(storage.objects[MARKER_PACK], where="here").markers == truthful(storage)
    infos, requests = listed(storage)
    assert requests == {"list": 1, "get": 2}
    assert infos == listed_without_pack(storage)


def test_many_states_are_packed_without_being_asked_to() -> None:
    storage = filled(600)
    with StateStore(storage) as store:
        store.gc()
    assert listed(storage)[1] == {"list": 1, "get": 2}
    storage = filled(500)
    with StateStore(storage) as store:
        store.gc()
    assert MARKER_PACK not in storage.objects, "so few are read quickly"


def test_a_pack_takes_a_fraction_of_the_room_of_its_markers() -> None:
    storage = filled(600)
    collect_and_pack(storage)
    assert len(storage.objects[MARKER_PACK]) < sum(marker.size for marker in truthful(storage)) / 8


def test_markers_that_statevault_would_write_differently_are_packed_as_they_are() -> None:
    storage = filled()
    for number in (5, 6):
        key = commit_key(number + 1, f"{number:04}.state")
        storage.objects[key] = storage.objects[key].replace(b'{\n "version": 1,', b'{"later": "field", "version":1,')
    right = truthful(storage)
    catalog = that_knows_all(storage)
    prune_and_pack(storage, catalog=catalog)
    assert len(packed_keys(storage)) == 48, "a prune reads none of them again"
    storage.delete([MARKER_PACK])
    collect_and_pack(storage, catalog)
    assert open_pack(storage.objects[MARKER_PACK], where="here").markers == right


def test_nothing_is_packed_when_most_markers_can_not_be() -> None:
    storage = filled()
    for key in list(storage.objects)[-32:-2]:
        storage.objects[key] = storage.objects[key] + b" "
    catalog = that_knows_all(storage)
    prune_and_pack(storage, catalog=catalog, rule=PackingRule(at_least=40, gain=21))
    assert MARKER_PACK not in storage.objects
    prune_and_pack(storage, catalog=catalog, rule=PackingRule(at_least=40, gain=20))
    assert len(packed_keys(storage)) == 20


def test_a_marker_that_is_replaced_meanwhile_is_left_out() -> None:
    storage = filled()
    key = commit_key(8, "0007.state")

    def replace(call: str) -> None:
        if call == f"get {key}":
            storage.objects[key] = storage.objects[key].replace(b'"step": 7', b'"step": 77')

    collect_and_pack(WatchedStorage(storage, replace))
    assert len(packed_keys(storage)) == 49
    assert StateKey(8, "0007.state") not in packed_keys(storage)


@pytest.mark.parametrize("catalog_is_new", [True, False])
def test_damaged_markers_are_left_out(catalog_is_new: bool) -> None:
    storage = filled()
    storage.objects[commit_key(4, "0003.state")] = b"{"
    storage.objects[commit_key(5, "0004.state")] = b""
    collect_and_pack(storage, None if catalog_is_new else that_knows_all(storage))
    assert {key.state for key in packed_keys(storage)} == {f"{n:04}.state" for n in range(50)} - {
        "0003.state",
        "0004.state",
    }


def test_removed_states_drop_out() -> None:
    storage = filled(60)
    collect_and_pack(storage)
    prune_and_pack(storage, *(f"{number:04}.state" for number in range(1, 11)))
    assert len(packed_keys(storage)) == 60, "the pack that is there does"
    add_markers(storage, 60, 99)
    pass_hours(storage)
    collect_and_pack(storage)
    assert [key.sequence for key in packed_keys(storage)] == [1, *range(12, 101)]


# When.


def test_nothing_is_packed_of_few_states() -> None:
    storage = filled(39)
    collect_and_pack(storage)
    assert MARKER_PACK not in storage.objects


@pytest.mark.parametrize(("more", "is_packed"), [(19, False), (20, True)])
def test_a_pack_is_replaced_when_it_gains_enough(more: int, is_packed: bool) -> None:
    storage = filled()
    collect_and_pack(storage)
    add_markers(storage, 50, 49 + more)
    pass_hours(storage)
    collect_and_pack(storage)
    assert len(packed_keys(storage)) == (50 + more if is_packed else 50)


def test_a_large_pack_is_replaced_when_it_gains_a_share() -> None:
    storage = filled(200)
    collect_and_pack(storage)
    add_markers(storage, 200, 227)
    pass_hours(storage)
    collect_and_pack(storage)
    assert len(packed_keys(storage)) == 200, "28 of 228 is less than an eighth"
    add_markers(storage, 228, 228)
    pass_hours(storage)
    collect_and_pack(storage)
    assert len(packed_keys(storage)) == 229


def test_a_pack_that_was_deleted_or_replaced_by_a_smaller_one_is_written_again() -> None:
    storage = filled()
    collect_and_pack(storage)
    catalog = Catalog(storage)
    assert len(catalog.records_to_show(catalog.listing())) == 50
    collect_and_pack(storage, catalog)
    storage.delete([MARKER_PACK])
    collect_and_pack(storage, catalog)
    assert len(packed_keys(storage)) == 50
    put_pack(storage, truthful(storage)[:30])
    collect_and_pack(storage, catalog)
    assert len(packed_keys(storage)) == 50


@pytest.mark.parametrize("content", [b"damaged", None])
def test_a_pack_that_does_not_hold_is_replaced(content: bytes | None) -> None:
    storage = filled()
    if content is None:
        put_pack(storage, [marker._replace(modified=0) for marker in truthful(storage)])
    else:
        storage.put(MARKER_PACK, content)
    collect_and_pack(storage)
    assert open_pack(storage.objects[MARKER_PACK], where="here").markers == truthful(storage)


def test_a_pack_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = filled(60)
    room = sum(PackedMarker.room(marker.state, marker.size) for marker in truthful(storage)[:45])
    monkeypatch.setattr(packing_module, "MAX_PACK_SIZE", room + PackedMarker.room("", 0))
    collect_and_pack(storage)
    assert packed_keys(storage) == [marker[:2] for marker in truthful(storage)[:45]]
    watched = WatchedStorage(storage)
    collect_and_pack(watched)
    assert "put" not in kinds_of(watched), "another one would hold no more"
    assert kinds_of(watched)["get"] == 2


def test_markers_of_the_last_hour_are_not_packed() -> None:
    storage = filled()
    add_markers(storage, 50, 99)
    pass_hours(storage, 0.99)
    collect_and_pack(storage)
    assert len(packed_keys(storage)) == 50
    pass_hours(storage, 0.02)
    collect_and_pack(storage)
    assert len(packed_keys(storage)) == 100


def test_an_object_of_the_future_makes_no_marker_older() -> None:
    storage = filled()
    storage.times |= {key: datetime.now(UTC) - timedelta(minutes=50) for key in storage.objects}
    storage.times["_vault/probe/tick"] = datetime.now(UTC) + timedelta(days=365)
    collect_and_pack(storage)
    assert MARKER_PACK not in storage.objects


def test_where_a_storage_tells_no_times_nothing_is_packed() -> None:
    plain = DictStorage()
    plain.objects = filled().objects
    collect_and_pack(plain)
    assert MARKER_PACK not in plain.objects


def test_what_was_read_too_early_is_not_packed_by_a_prune() -> None:
    """Two writers put the same marker one after the other, at the same time as far as the storage tells."""
    storage = filled()
    add_markers(storage, 50, 99)
    catalog = that_knows_all(storage)
    key = commit_key(100, "0099.state")
    storage.objects[key] = storage.objects[key].replace(b'"step": 99', b'"step": 11')
    pass_hours(storage)
    prune_and_pack(storage, catalog=catalog)
    assert len(packed_keys(storage)) == 50
    collect_and_pack(storage, catalog)
    assert open_pack(storage.objects[MARKER_PACK], where="here").markers == truthful(storage)
    assert listed(storage)[0][99].metadata == {"step": 11}


def test_a_tombstone_that_a_prune_has_not_seen_hides_its_state_all_the_same() -> None:
    storage = filled()
    collect_and_pack(storage)
    storage.put(tombstone_key(8, "0007.state"), b"{}")
    infos, requests = listed(storage)
    assert "0007.state" not in {info.name for info in infos}
    assert requests == {"list": 1, "get": 2}


# What it costs.


def test_a_prune_packs_what_its_process_has_read() -> None:
    storage = filled()
    watched = WatchedStorage(storage)
    catalog = that_knows_all(watched)
    watched.calls.clear()
    prune_and_pack(watched, "0007.state", catalog=catalog)
    packing = kinds_of(watched)
    assert len(packed_keys(storage)) == 49
    other = filled()
    watched = WatchedStorage(other)
    catalog = that_knows_all(watched)
    watched.calls.clear()
    prune_and_pack(watched, "0007.state", catalog=catalog, rule=NEVER)
    assert packing == kinds_of(watched) + Counter(put=1)


@pytest.mark.parametrize("victims", [(), ("0007.state",)])
@pytest.mark.parametrize("has_pack", [False, True])
def test_a_prune_reads_no_marker_for_the_pack(victims: tuple[str, ...], has_pack: bool) -> None:
    calls = []
    for rule in (RULE, NEVER):
        storage = filled()
        if has_pack:
            put_pack(storage, truthful(storage))
        watched = WatchedStorage(storage)
        prune_and_pack(watched, *victims, rule=rule)
        calls.append(Counter(call for call in watched.calls if call.startswith(f"get {COMMITS}")))
        assert sum(call == f"get {MARKER_PACK}" for call in watched.calls) <= (
            has_pack and rule is RULE and bool(victims)
        )
    assert calls[0] == calls[1]


def test_a_prune_that_has_read_few_markers_leaves_a_pack_of_many_alone() -> None:
    storage = filled(100)
    collect_and_pack(storage)
    pack = storage.objects[MARKER_PACK]
    catalog = Catalog(storage)
    catalog.records(catalog.listing().visible[:60])
    prune_and_pack(storage, catalog=catalog)
    assert storage.objects[MARKER_PACK] == pack


def test_a_collection_without_anything_to_pack_reads_the_pack_and_no_marker() -> None:
    storage = filled()
    collect_and_pack(storage)
    requests = []
    for rule in (RULE, NEVER):
        watched = WatchedStorage(storage)
        collect(watched, Catalog(watched), by="packer", packing=rule)
        requests.append(kinds_of(watched))
    assert requests[0] == requests[1] + Counter(get=1)


def test_what_a_plan_took_from_a_pack_is_not_packed_again() -> None:
    storage = filled()
    put_pack(storage, [lying(marker, files=7) for marker in truthful(storage)])
    add_markers(storage, 50, 99)
    pass_hours(storage)
    catalog = Catalog(storage)
    catalog.records_to_show(catalog.listing())
    prune_and_pack(storage, catalog=catalog)
    assert len(packed_keys(storage)) == 50, "it has read 50 itself: no more than there are"
    collect_and_pack(storage, catalog)
    assert open_pack(storage.objects[MARKER_PACK], where="here").markers == truthful(storage)


# Several at once, and failures.


def test_of_two_packers_the_last_one_stays() -> None:
    storage = filled()
    one, other = that_knows_all(storage), that_knows_all(storage)
    add_markers(storage, 50, 99)
    pass_hours(storage)
    collect_and_pack(storage, one)
    large = storage.objects[MARKER_PACK]
    assert len(packed_keys(storage)) == 100

    class Racing(WatchedStorage):
        """Between the look of the one and its put, the other puts."""

        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            if key == MARKER_PACK:
                storage.put(MARKER_PACK, large)
            return super().put(key, body, create_only=create_only)

    storage.delete([MARKER_PACK])
    prune_and_pack(Racing(storage), catalog=other)
    assert len(packed_keys(storage)) == 50
    assert listed(storage) == (listed_without_pack(storage), Counter(list=1, get=2 + 50))
    collect_and_pack(storage)
    assert len(packed_keys(storage)) == 100


@pytest.mark.parametrize(("collects", "call"), [(True, "put"), (True, "get"), (False, "put")])
def test_a_pack_that_can_not_be_written_is_no_failure(
    collects: bool, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(WatchedStorage):
        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            if key == MARKER_PACK and call == "put":
                raise StorageError("refused", key=key)
            return super().put(key, body, create_only=create_only)

        @override
        def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            if key.startswith(COMMITS) and call == "get":
                raise StorageError("refused", key=key)
            return super().get(key, start, end)

    storage = filled()
    catalog = that_knows_all(storage)
    catalog.forget([StateKey(8, "0007.state")])  # so that a collection reads it
    catalog._storage = Refusing(storage)
    with caplog.at_level(logging.WARNING):
        if collects:
            collect_and_pack(Refusing(storage), catalog)
        else:
            prune_and_pack(Refusing(storage), "0003.state", catalog=catalog)
            assert "0003.state" not in {info.name for info in listed(storage)[0]}
    assert MARKER_PACK not in storage.objects
    assert "were not packed: refused" in caplog.text


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("dies", [False, True], ids=["error", "death"])
def test_a_put_of_the_pack_that_fails_in_any_way_changes_no_listing(failure: Failure, dies: bool) -> None:
    storage = filled()
    put_pack(storage, truthful(storage)[:10])
    right = listed_without_pack(storage)
    calls = WatchedStorage(storage)
    collect_and_pack(calls)
    put_pack(storage, truthful(storage)[:10])
    at = next(number for number, call in enumerate(calls.calls, 1) if call == f"put {MARKER_PACK}")
    failing = FailingStorage(storage, fail_at=at, failure=failure, dies=dies)
    try:
        collect_and_pack(failing)
    except ProcessDiedError:
        assert dies
    assert listed(storage)[0] == right
    failing.land()
    assert listed(storage)[0] == right


# On a disk, by hand.


def test_commands_know_the_pack(tmp_path: Path) -> None:
    with store_with(str(tmp_path), folder=Folder({"own.bin": b"own"})) as store:
        store.save_state(name="0000.state")
        store.save_state(name="0001.state")
    storage = LocalStorage(tmp_path)
    storage.put(MARKER_PACK, b"whatever")
    run = invoked("doctor", str(tmp_path), "--size", "1kB", "--json")
    assert run.code == 0, run.out
    assert run.json["ok"] is True
    assert invoked("gc", str(tmp_path)).code == 0
    assert invoked("rm", str(tmp_path), "0000.state", "--yes").code == 0
    assert invoked("gc", str(tmp_path)).code == 0
    assert storage.get(MARKER_PACK) == b"whatever"
    assert [state["name"] for state in invoked("ls", str(tmp_path), "--json").json] == ["0001.state"]


def test_a_save_beside_a_pack_is_as_ever() -> None:
    storage: TimedStorage = filled()
    collect_and_pack(storage)
    with store_with(storage, folder=Folder({"own.bin": b"more"})) as store:
        store.save_state(name="new.state")
        assert store.names()[-1] == "new.state"
        store.load_state("new.state")
    assert listed(storage)[1] == {"list": 1, "get": 3}

"""How many bytes states need together, and how many go with some: as a count of all objects says, with less reading."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statevault.errors import CorruptStateError, StateNotFoundError, StatePrunedError, StorageError
from statevault.format.keys import StateKey, manifest_key
from statevault.format.manifest import ObjectEntry
from statevault.format.records import CommitRecord, ManifestRef
from statevault.state_persistence import KeepWithinSize, StateStore
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.retention import StoredSizes
from tests.profiles import rounds
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.storages import DictStorage, WatchedStorage

MANIFEST = 7
Needed = dict[str, dict[str, int]]
"""The objects of each state, with their sizes; some of them in the folders of older ones."""


class Manifests:
    """The manifests of states that need these objects, and how often each was read."""

    def __init__(self, needed: Needed) -> None:
        self.needed = needed
        self.reads: list[str] = []
        self.error: Exception | None = None

    def read(self, record: CommitRecord) -> list[ObjectEntry]:
        self.reads.append(record.state)
        if self.error is not None:
            raise self.error
        return [ObjectEntry(key, size) for key, size in self.needed[record.state].items()]


def record(name: str, objects: dict[str, int]) -> CommitRecord:
    own = {key: size for key, size in objects.items() if key.startswith(f"{name}/")}
    reuses = sorted({key.partition("/")[0] for key in objects.keys() - own.keys()})
    return CommitRecord(
        state=name,
        sequence=int(name) + 1,
        created_at=datetime.now(UTC),
        writer="host:1:aa",
        base=reuses[0] if reuses else None,
        reuses=reuses,
        files=1,
        size=1,
        stored_size=1,
        new_size=sum(own.values()),
        components=[],
        manifest=ManifestRef(length=MANIFEST, size=1, digest="0" * 64),
    )


def sizes_of(manifests: Manifests, shared: SharedObjects | None = None) -> StoredSizes:
    records = [record(name, objects) for name, objects in manifests.needed.items()]
    return StoredSizes(records, shared or SharedObjects(manifests.read))


def counted(needed: Needed, names: Iterable[str]) -> int:
    """What `names` need together, by counting every object."""
    objects: dict[str, int] = {}
    for name in names:
        objects |= needed[name] | {f"{name}/manifest": MANIFEST}
    return sum(objects.values())


@st.composite
def stores(draw: st.DrawFn) -> Needed:
    """States that refer to objects of older ones, of which some are gone."""
    needed: Needed = {}
    for number in range(draw(st.integers(0, 8))):
        name = str(number)
        own = {f"{name}/{i}": draw(st.integers(1, 9)) for i in range(draw(st.integers(0, 3)))}
        older = {key: size for objects in needed.values() for key, size in objects.items()}
        reused = draw(st.lists(st.sampled_from(sorted(older)), unique=True)) if older else []
        needed[name] = own | {key: older[key] for key in reused}
    gone = draw(st.sets(st.sampled_from(sorted(needed)))) if needed else set()
    return {name: objects for name, objects in needed.items() if name not in gone}


def some_of(needed: Needed) -> st.SearchStrategy[list[str]]:
    """Some of the states, in any order."""
    return st.lists(st.sampled_from(sorted(needed)), unique=True) if needed else st.just([])


thorough = settings(max_examples=rounds(150, 3000), deadline=None)


@thorough
@given(stores(), st.data())
def test_states_need_together_what_counting_all_objects_finds(needed: Needed, data: st.DataObject) -> None:
    names = data.draw(some_of(needed))
    assert sizes_of(Manifests(needed)).together(names) == counted(needed, names)


@thorough
@given(stores(), st.data())
def test_sizes_grow_as_counting_one_more_each_time_finds(needed: Needed, data: st.DataObject) -> None:
    names = data.draw(some_of(needed))
    grown = list(sizes_of(Manifests(needed)).growing(names))
    assert grown == [counted(needed, names[: count + 1]) for count in range(len(names))]
    assert grown == sorted(grown)


@thorough
@given(stores(), st.data())
def test_what_is_freed_is_what_no_other_state_needs(needed: Needed, data: st.DataObject) -> None:
    names = data.draw(some_of(needed))
    kept = [name for name in needed if name not in names]
    freed = sizes_of(Manifests(needed)).freed([*names, "not-there"])
    assert freed == counted(needed, needed) - counted(needed, kept)


@thorough
@given(stores(), st.data())
def test_what_is_remembered_gives_the_same_answers(needed: Needed, data: st.DataObject) -> None:
    manifests = Manifests(needed)
    shared = SharedObjects(manifests.read)
    for _ in range(3):
        names = data.draw(some_of(needed))
        assert sizes_of(manifests, shared).together(names) == counted(needed, names)
        kept = [name for name in needed if name not in names]
        assert sizes_of(manifests, shared).freed(names) == counted(needed, needed) - counted(needed, kept)
    assert len(manifests.reads) == len(set(manifests.reads))


# What is read for it.


CHAIN: Needed = {
    "0": {"0/model": 100, "0/log": 1},
    "1": {"0/model": 100, "1/log": 2},
    "2": {"0/model": 100, "2/log": 3},
    "3": {"0/model": 100, "3/log": 4},
}


def test_no_manifest_is_read_where_all_that_is_referred_to_counts_as_well() -> None:
    manifests = Manifests(CHAIN)
    assert sizes_of(manifests).together(CHAIN) == 110 + 4 * MANIFEST
    assert sizes_of(manifests).together(["0", "2"]) == 104 + 2 * MANIFEST
    assert manifests.reads == []


def test_only_manifests_that_tell_something_are_read() -> None:
    manifests = Manifests(CHAIN)
    sizes = sizes_of(manifests)
    assert sizes.freed(["2"]) == 3 + MANIFEST
    assert sizes.freed(CHAIN) == 110 + 4 * MANIFEST
    assert manifests.reads == []
    assert sizes.freed(["0", "1"]) == 3 + 2 * MANIFEST
    assert sorted(manifests.reads) == ["2", "3"]


def test_a_manifest_is_read_once_as_long_as_its_state_is_there() -> None:
    manifests = Manifests(CHAIN)
    shared = SharedObjects(manifests.read)
    for _ in range(2):
        assert sizes_of(manifests, shared).together(["3"]) == 104 + MANIFEST
    assert manifests.reads == ["3"]
    shared.forget_others({StateKey(4, "3")})
    sizes_of(manifests, shared).together(["3"])
    assert manifests.reads == ["3"]
    shared.forget_others({StateKey(1, "0"), StateKey(2, "1")})
    sizes_of(manifests, shared).together(["3"])
    assert manifests.reads == ["3", "3"]


def test_states_that_need_the_same_share_what_is_remembered_of_it() -> None:
    shared = SharedObjects(Manifests(CHAIN).read)
    shares = shared.of([record(name, CHAIN[name]) for name in "123"])
    assert shares["1"] == shares["2"] == shares["3"]
    (share,) = shares["1"]
    assert (share.folder, [(entry.key, entry.size) for entry in share.objects]) == ("0", [("0/model", 100)])


def test_growing_reads_little_more_than_is_asked_for() -> None:
    chain: Needed = {"0": {"0/model": 100}}
    chain |= {str(number): {"0/model": 100, f"{number}/log": 1} for number in range(1, 1000)}
    manifests = Manifests(chain)
    growing = sizes_of(manifests).growing(reversed(chain))
    assert next(growing) == 101 + MANIFEST
    assert len(manifests.reads) < 50
    assert sum(1 for _ in growing) == 999
    assert len(manifests.reads) == 999


# What is missing or damaged.


def test_the_size_of_a_state_that_is_not_there_cannot_be_told() -> None:
    with pytest.raises(StateNotFoundError, match="'9'"):
        sizes_of(Manifests(CHAIN)).together(["0", "9"])
    with pytest.raises(StateNotFoundError, match="'9'"):
        list(sizes_of(Manifests(CHAIN)).growing(["9"]))


def test_a_damaged_manifest_is_reported_once_and_counts_what_the_marker_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifests = Manifests(CHAIN)
    manifests.error = CorruptStateError("the manifest of 3 is damaged")
    shared = SharedObjects(manifests.read)
    for _ in range(2):
        assert sizes_of(manifests, shared).together(["3"]) == 4 + MANIFEST
    assert caplog.text.count("the manifest of 3 is damaged") == 1
    with pytest.raises(CorruptStateError):
        shared.of([record("3", CHAIN["3"])])  # as a prune asks: nothing was remembered in its place


def test_a_state_that_was_pruned_meanwhile_shares_nothing() -> None:
    manifests = Manifests(CHAIN)
    manifests.error = StatePrunedError("3 is gone")
    assert sizes_of(manifests).together(["3"]) == 4 + MANIFEST


def test_a_storage_that_fails_is_no_size() -> None:
    manifests = Manifests(CHAIN)
    manifests.error = StorageError("no network")
    shared = SharedObjects(manifests.read)
    with pytest.raises(StorageError, match="no network"):
        sizes_of(manifests, shared).together(["2", "3"])
    manifests.error = None
    assert sizes_of(manifests, shared).together(["2", "3"]) == 107 + 2 * MANIFEST


# In a store.


def stored(storage: DictStorage) -> int:
    """Bytes of all that lies in the folders of states."""
    return sum(len(content) for key, content in storage.objects.items() if not key.startswith("_vault/"))


@pytest.mark.parametrize("seed", range(6))
def test_a_removal_frees_what_was_said(seed: int) -> None:
    source = random.Random(seed)
    storage = DictStorage()
    folder = Folder({f"{number}.bin": source.randbytes(3000) for number in range(8)})
    with store_with(storage, folder=folder) as store:
        for number in range(20):
            for name in source.sample(sorted(folder.files), source.choice([0, 1, 3])):
                folder.files[name] = source.randbytes(3000)
            store.save_state(name=f"{number:02}.state")
            names = store.names()
            if number % 3 == 2:
                victims = source.sample(names, source.randint(1, len(names)))
                expected = store.freed_by(victims)
                before = stored(storage)
                assert store.remove(victims).freed == expected
                assert before - stored(storage) == expected
        for number in range(20, 24):
            folder.files["0.bin"] = source.randbytes(3000)
            store.save_state(name=f"{number:02}.state")
        policy = KeepWithinSize(sum(len(content) for content in folder.files.values()) + 5000)
        plan = store.plan_retention(policy)
        assert plan.removed
        store.remove(info.name for info in plan.removed)
        assert 0 < stored(storage) <= policy.max_bytes


def test_states_that_share_nothing_cost_no_read_of_a_manifest() -> None:
    storage = WatchedStorage(DictStorage())
    folder = Folder()
    with StateStore(storage, incremental=False) as store:
        store.register("folder", folder)
        for number in range(5):
            folder.files = {"a": random.Random(number).randbytes(1000)}
            store.save_state(name=f"{number}.state")
        storage.calls.clear()
        kept = store.plan_retention(KeepWithinSize(3000)).kept
        assert [info.name for info in kept] == ["3.state", "4.state"]
        assert store.freed_by(["0.state", "1.state"]) > 2000
        assert not [call for call in storage.calls if "manifest" in call]


def test_a_store_with_a_damaged_manifest_is_kept_within_its_size(caplog: pytest.LogCaptureFixture) -> None:
    storage = DictStorage()
    folder = Folder({"frozen": random.Random(0).randbytes(2000)})
    with store_with(storage, folder=folder) as store:
        for number in range(4):
            folder.files["log"] = random.Random(number).randbytes(500)
            store.save_state(name=f"{number}.state")
        storage.objects[manifest_key("1.state")] = b"damaged"
    with StateStore(storage) as store:
        plan = store.plan_retention(KeepWithinSize(4000))
        assert [info.name for info in plan.removed] == ["0.state", "1.state"]
        assert store.remove(info.name for info in plan.removed).removed == ("0.state", "1.state")
        assert store.verify("3.state").name == "3.state"
    assert "1.state" in caplog.text

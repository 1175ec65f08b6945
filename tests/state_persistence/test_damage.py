"""Bytes that are flipped, cut, missing or foreign, anywhere: never a wrong load."""

from __future__ import annotations

import random

import pytest

from statevault.errors import (
    CorruptStateError,
    FormatError,
    StateNotFoundError,
    StateVaultError,
    UnsupportedVersionError,
)
from statevault.format.keys import FORMAT_KEY, VAULT
from tests.state_persistence.components import Folder, some_files, store_with
from tests.state_persistence.storages import DictStorage

OLD, NEW = some_files(1), some_files(2)


@pytest.fixture
def storage() -> DictStorage:
    storage = DictStorage()
    folder = Folder(OLD)
    with store_with(storage, folder=folder) as store:
        store.save_state(name="old.state")
        folder.files = dict(NEW)
        store.save_state(name="new.state")
    return storage


def keys_of(storage: DictStorage, state: str) -> list[str]:
    return [key for key in storage.objects if state in key]


def flipped(content: bytes, seed: int) -> bytes:
    damaged = bytearray(content)
    position = random.Random(seed).randrange(len(damaged))
    damaged[position] ^= 1 << random.Random(seed + 1).randrange(8)
    return bytes(damaged)


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing_that_is_loaded(storage: DictStorage) -> None:
    found = 0
    for key in keys_of(storage, "new.state"):
        for seed in range(25):
            damaged = DictStorage()
            damaged.objects = {**storage.objects, key: flipped(storage.objects[key], seed)}
            folder = Folder()
            with store_with(damaged, folder=folder) as store:
                try:
                    store.load_state("new.state")
                except (CorruptStateError, FormatError):
                    found += 1
                    assert folder.loads == 0
                else:
                    # Only what the marker tells people (a time, the writer's name) is not covered by a digest.
                    assert key.startswith(VAULT)
                    assert folder.files == NEW
    assert found > 50


@pytest.mark.parametrize("length", [0, 1, -1])
def test_a_cut_object_anywhere_is_found(storage: DictStorage, length: int) -> None:
    for key in keys_of(storage, "new.state"):
        damaged = DictStorage()
        damaged.objects = {**storage.objects, key: storage.objects[key][:length]}
        folder = Folder()
        with store_with(damaged, folder=folder) as store:
            if damaged.objects == storage.objects or (length == -1 and key.startswith(VAULT)):
                continue  # not cut; only the line feed at the end of a marker
            with pytest.raises(CorruptStateError):
                store.load_state("new.state")
            with pytest.raises(CorruptStateError):
                store.verify("new.state")
            assert folder.loads == 0


def test_a_missing_object_anywhere_is_found(storage: DictStorage) -> None:
    for key in keys_of(storage, "new.state"):
        damaged = DictStorage()
        damaged.objects = {name: content for name, content in storage.objects.items() if name != key}
        with (
            store_with(damaged, folder=Folder()) as store,
            pytest.raises((CorruptStateError, StateNotFoundError), match="new.state"),
        ):
            store.load_state("new.state")


def test_latest_falls_back_to_the_newest_good_state_and_says_so(
    storage: DictStorage, caplog: pytest.LogCaptureFixture
) -> None:
    for key in keys_of(storage, "new.state"):
        damaged = DictStorage()
        damaged.objects = {**storage.objects, key: storage.objects[key][: len(storage.objects[key]) // 2]}
        folder = Folder()
        caplog.clear()
        with store_with(damaged, folder=folder) as store:
            assert store.load_state("latest").name == "old.state"
        assert folder.files == OLD
        assert folder.loads == 1
        assert "new.state" in caplog.text


def test_a_state_asked_for_by_name_never_falls_back(storage: DictStorage) -> None:
    del storage.objects["new.state/folder/weights.bin"]
    with store_with(storage, folder=Folder()) as store, pytest.raises(CorruptStateError, match="weights.bin"):
        store.load_state("new.state")


def test_latest_is_an_error_when_every_state_is_damaged(storage: DictStorage) -> None:
    for key in storage.objects:
        if "manifest" in key:
            storage.objects[key] = b"x"
    with store_with(storage, folder=Folder()) as store, pytest.raises(CorruptStateError, match="all 2 states"):
        store.load_state("latest")


def test_a_damaged_marker_does_not_hide_the_other_states(
    storage: DictStorage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.objects["_vault/commits/000000000002.new.state"] = b"{"
    with store_with(storage, folder=Folder()) as store:
        assert [info.name for info in store.states()] == ["old.state"]
        latest = store.latest()
    assert latest is not None
    assert latest.name == "old.state"
    assert "new.state" in caplog.text


def test_a_damaged_record_stops_a_prune_before_anything_is_deleted(storage: DictStorage) -> None:
    storage.objects["_vault/sessions/third.state"] = b"{"
    before = {key for key in storage.objects if not key.startswith(VAULT)}
    with store_with(storage) as store, pytest.raises(FormatError):
        store.remove(["old.state"])
    assert {key for key in storage.objects if not key.startswith(VAULT)} == before


def test_a_newer_store_is_refused_by_every_operation(storage: DictStorage) -> None:
    storage.objects[FORMAT_KEY] = b'{"format": "statevault", "version": 2}'
    with store_with(storage, folder=Folder(NEW)) as store:
        for operation in (store.states, store.latest, store.save_state, store.load_state, store.verify):
            with pytest.raises(UnsupportedVersionError, match="version 2"):
                operation()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": "zarr", "version": 1}', b"hello"])
def test_a_folder_that_is_something_else_is_refused(content: bytes) -> None:
    storage = DictStorage()
    storage.objects[FORMAT_KEY] = content
    with store_with(storage, folder=Folder(NEW)) as store:
        for operation in (store.states, store.save_state):
            with pytest.raises(FormatError, match="format.json"):
                operation()
    assert storage.objects == {FORMAT_KEY: content}


def test_what_statevault_did_not_write_is_never_touched(storage: DictStorage) -> None:
    storage.objects["my-notes.txt"] = b"mine"
    storage.objects["unknown.state/data.bin"] = b"mine too"
    with store_with(storage, folder=Folder(NEW)) as store:
        store.remove(["old.state", "unknown.state", "my-notes.txt"])
        assert [info.name for info in store.states()] == ["new.state"]
    assert storage.objects["my-notes.txt"] == b"mine"
    assert storage.objects["unknown.state/data.bin"] == b"mine too"


def test_random_damage_of_many_objects_never_loads_something_wrong(storage: DictStorage) -> None:
    for seed in range(150):
        source = random.Random(seed)
        damaged = DictStorage()
        damaged.objects = dict(storage.objects)
        for _ in range(source.randrange(1, 4)):
            key = source.choice(list(damaged.objects))
            content = damaged.objects[key]
            other = damaged.objects[source.choice(list(damaged.objects))]
            damaged.objects[key] = source.choice(
                [content[: source.randrange(len(content) + 1)], content + b"x", other, flipped(content or b"x", seed)]
            )
        folder = Folder()
        with store_with(damaged, folder=folder) as store:
            try:
                store.load_state("latest")
            except StateVaultError:
                assert folder.loads == 0
            else:
                assert folder.files in (OLD, NEW)

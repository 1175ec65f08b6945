"""The main job of the StateStore, on every backend."""

from __future__ import annotations

import os
import random
import signal

import pytest

from statevault.errors import CorruptStateError, StateNotFoundError, StatePrunedError
from statevault.state_persistence import StateStore
from tests.servers import StorageTarget
from tests.state_persistence.components import Folder, some_files

OLD, NEW = some_files(1), some_files(2)


def opened(target: StorageTarget, **folders: Folder) -> StateStore:
    store = StateStore(target.url, storage_options=target.storage_options)
    for name, folder in folders.items():
        store.register(name, folder)
    return store


def test_a_life_of_saving_loading_and_removing(target: StorageTarget) -> None:
    models, data = Folder(OLD), Folder({"x": b"1"})
    with opened(target, models=models, data=data) as store:
        assert store.states() == []
        assert not store.exists()
        with pytest.raises(StateNotFoundError):
            store.load_state("latest")
        store.save_state(name="old.state", metadata={"step": 1})
        models.files = dict(NEW)
        path = store.save_state_async(name="new.state", metadata={"step": 2}).result(300)
    models, data = Folder(), Folder()
    with opened(target, models=models, data=data) as store:
        assert [(info.name, info.metadata) for info in store.states()] == [
            ("old.state", {"step": 1}),
            ("new.state", {"step": 2}),
        ]
        assert store.latest() == store.states()[-1]
        assert store.load_state("latest").path == path
        assert (models.files, data.files) == (NEW, {"x": b"1"})
        store.load_state("old.state", components=["models"])
        assert (models.files, data.loads) == (OLD, 1)
        store.load_state(path)
        assert models.files == NEW
        store.load_state(f"{target.url}/old.state")
        assert models.files == OLD
        assert store.verify("old.state").name == "old.state"
        store.remove(["old.state"])
        with pytest.raises(StatePrunedError):
            store.load_state("old.state")
        assert [info.name for info in store.states()] == ["new.state"]
        assert store.verify("latest").name == "new.state"
        shared = {entry.key for entry in store.open_state().manifest.objects if entry.key.startswith("old.state/")}
        assert shared, "both have files that never change"
        left = target.raw.keys()
        assert {key for key in left if key.startswith("old.state/")} == shared
        store.remove(["new.state"])
        left = target.raw.keys()
    assert not any(key.startswith(("old.state/", "new.state/")) for key in left)


def test_a_users_path_reads_what_was_saved(target: StorageTarget) -> None:
    with opened(target, models=Folder(OLD)) as store:
        path = store.save_state()
        assert (path / "models" / "weights.bin").read_bytes() == OLD["weights.bin"]
        assert store.states()[0].path == path


def test_a_cut_object_is_damage_and_latest_falls_back(target: StorageTarget) -> None:
    folder = Folder(OLD)
    with opened(target, models=folder) as store:
        store.save_state(name="old.state")
        folder.files = dict(NEW)
        store.save_state(name="new.state")
        key = "new.state/models/weights.bin"
        target.raw.put(key, target.raw.get(key)[:-1])
        with pytest.raises(CorruptStateError, match=key):
            store.load_state("new.state")
        assert folder.loads == 0
        assert store.load_state("latest").name == "old.state"
    assert folder.files == OLD


def test_a_file_of_many_chunks_comes_back(target: StorageTarget) -> None:
    source = random.Random(5)
    files = {"random": source.randbytes(21_000_001), "text": b"0123456789" * 700_000, "small": b"x"}
    with opened(target, models=Folder(files)) as store:
        store.save_state()
    folder = Folder()
    with opened(target, models=folder) as store:
        store.load_state()
        info = store.states()[0]
    assert folder.files == files
    assert info.stored_size < info.size


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of what is tested here
def test_a_forked_child_saves_with_the_store_of_its_parent(target: StorageTarget) -> None:
    if target.name == "memory":
        pytest.skip("the memory of a child is its own")
    with opened(target, models=Folder(OLD)) as store:
        store.save_state(name="parent.state")
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            status = 1
            try:
                store.save_state(name="child.state")
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.save_state(name="after.state")
        assert [info.name for info in store.states()] == ["parent.state", "child.state", "after.state"]
        assert store.verify("child.state").files == len(OLD)

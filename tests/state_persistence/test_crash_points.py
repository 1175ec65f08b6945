"""A save (and a prune) that fails at every single storage call, in each way a call can fail, then a reopened store.

Invariants, after each: every visible state loads bit-exactly, every acknowledged save is visible, an error leaves the
old states as they were, the next save works, and two prunes leave nothing that no state needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest

from statevault.errors import CorruptStateError, StateVaultError, StorageError
from statevault.format.keys import VAULT
from statevault.state_persistence import StateStore
from statevault.state_persistence.records.catalog import Catalog
from tests.state_persistence.components import Files, Folder, some_files, store_with
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.storages import FAILURES, DictStorage, FailingStorage, Failure, ProcessDiedError

OLD, NEW, NEXT = some_files(1), some_files(2), some_files(3)


def a_store_with_a_state() -> DictStorage:
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="old.state")
    return storage


def loaded(storage: DictStorage, state: str) -> Files:
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        store.load_state(state)
    return folder.files


def visible_contents(storage: DictStorage) -> dict[str, Files]:
    with StateStore(storage) as store:
        return {info.name: loaded(storage, info.name) for info in store.states()}


def calls_of_a_save() -> int:
    failing = FailingStorage(a_store_with_a_state())
    with store_with(failing, folder=Folder(NEW)) as store:
        store.save_state(name="new.state")
    return len(failing.calls)


def call_numbers() -> Iterator[int]:
    yield from range(1, calls_of_a_save() + 1)


def test_a_save_makes_the_calls_of_the_protocol_in_its_order() -> None:
    failing = FailingStorage(a_store_with_a_state())
    folder = Folder()
    with store_with(failing, folder=folder) as store:
        store.load_state("latest")
        folder.files = dict(NEW)
        failing.calls.clear()
        new = store.save_state().name
    calls = failing.calls
    data = [i for i, call in enumerate(calls) if call.startswith(f"put {new}/") and "manifest" not in call]
    # Those of one stage are made at the same time: far from the storage they cost one round trip.
    stages = [
        ["list _vault/"],
        [f"put _vault/sessions/{new}"],
        ["head _vault/tombstones/000000000001.old.state", "list old.state/"],
        [calls[i] for i in data],
        [f"list {new}/", f"put {new}/manifest.msgpack.zst", "list _vault/ids/"],
        [f"put _vault/commits/000000000002.{new}"],
        [
            f"head _vault/aborts/{new}",
            f"head _vault/tombstones/000000000002.{new}",
            f"delete ['_vault/sessions/{new}']",
        ],
    ]
    made = iter(calls)
    for stage in stages:
        assert sorted(islice(made, len(stage))) == sorted(stage)
    assert list(made) == []
    files = len([name for name, content in NEW.items() if content])
    assert sum(call.startswith(("put", "delete")) for call in calls) <= files + 5
    assert len(data) == files - 1, "the frozen file is not uploaded again"
    # Those of a save without a base, the base's tombstone, and one for each folder that is referred to.
    assert sum(call.startswith(("list", "head")) for call in calls) <= 5 + 1 + 1
    assert not any(call.startswith("get") for call in calls), "what was loaded is known"


@pytest.mark.parametrize("name", ["given.state", None], ids=["given", "from a coarse format"])
def test_a_name_that_others_may_choose_is_looked_at_again_behind_the_session(name: str | None) -> None:
    failing = FailingStorage(a_store_with_a_state())
    with StateStore(failing, "given.state") as store:
        store.register("folder", Folder(NEW))
        store.save_state(name=name)
    after = failing.calls[failing.calls.index("put _vault/sessions/given.state") + 1 :]
    assert after[:2] == ["list _vault/", "list given.state/"]


@pytest.mark.parametrize("failure", FAILURES)
def test_the_process_dies_at_every_call_of_a_save(failure: Failure) -> None:
    for number in call_numbers():
        storage = a_store_with_a_state()
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=True)
        store = store_with(failing, folder=Folder(NEW))
        with pytest.raises(ProcessDiedError):
            store.save_state(name="new.state")
            # Step 7 needs no success: the save may be acknowledged before a death there.
            raise ProcessDiedError
        store._staging.close()
        for landed in (False, True):
            if landed:
                failing.land()
            contents = visible_contents(storage)
            assert contents.pop("old.state") == OLD, f"call {number}: {failing.calls[-1]}"
            assert contents in ({}, {"new.state": NEW}), f"call {number}: {failing.calls[-1]}"
        with store_with(storage, folder=Folder(NEXT)) as reopened:
            reopened.save_state(name="next.state")
            assert reopened.latest() is not None
        assert loaded(storage, "latest") == NEXT
        check_no_garbage(storage)
        assert loaded(storage, "latest") == NEXT


@pytest.mark.parametrize("failure", FAILURES)
def test_an_error_at_every_call_of_a_save(failure: Failure) -> None:
    for number in call_numbers():
        storage = a_store_with_a_state()
        failing = FailingStorage(storage, fail_at=number, failure=failure)
        folder = Folder(NEW)
        with store_with(failing, folder=folder) as store:
            try:
                store.save_state(name="new.state")
                acknowledged = True
            except StateVaultError:
                acknowledged = False
            what = failing.calls[number - 1]
            for landed in (False, True):
                if landed:
                    failing.land()
                contents = visible_contents(storage)
                assert contents.pop("old.state") == OLD, what
                assert contents in ({}, {"new.state": NEW}), what
                assert contents or not acknowledged, what
            folder.files = dict(NEXT)
            store.save_state(name="next.state")  # the same process goes on
        assert loaded(storage, "latest") == NEXT
        check_no_garbage(storage)
        assert loaded(storage, "latest") == NEXT


def test_a_save_that_failed_leaves_no_data_behind() -> None:
    for number in call_numbers():
        storage = a_store_with_a_state()
        before = {key for key in storage.objects if not key.startswith(VAULT)}
        failing = FailingStorage(storage, fail_at=number)
        with store_with(failing, folder=Folder(NEW)) as store, suppress(StateVaultError):
            store.save_state(name="new.state")
        if "new.state" not in visible_contents(storage):
            assert {key for key in storage.objects if not key.startswith(VAULT)} == before
            assert Catalog(storage).listing().sessions == frozenset()


@pytest.mark.parametrize("failure", FAILURES)
def test_the_process_dies_at_every_call_of_a_prune(failure: Failure) -> None:
    number = 0
    while True:
        number += 1
        storage = a_store_with_a_state()
        with store_with(storage, folder=Folder(NEW)) as store:
            store.save_state(name="new.state")
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=True)
        dying = StateStore(failing)
        with suppress(ProcessDiedError):
            dying.remove(["old.state"])
        if len(failing.calls) < number:
            break
        contents = visible_contents(storage)
        assert contents.pop("new.state") == NEW
        assert contents in ({}, {"old.state": OLD}), failing.calls[-1]
        failing.land()
        with StateStore(storage) as store:
            store.remove(["old.state"])
        assert visible_contents(storage) == {"new.state": NEW}
        check_no_garbage(storage)
        assert loaded(storage, "latest") == NEW
    assert number > 8


@pytest.mark.parametrize("dies", [False, True], ids=["error", "death"])
@pytest.mark.parametrize("failure", FAILURES)
def test_an_import_fails_at_every_call(failure: Failure, dies: bool, tmp_path: Path) -> None:
    for name, content in NEW.items():
        (tmp_path / "old" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "old" / name).write_bytes(content)
    number = 0
    while True:
        number += 1
        storage = a_store_with_a_state()
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=dies)
        acknowledged = False
        with suppress(StorageError, ProcessDiedError):
            StateStore(failing).import_folder(tmp_path, name="new.state")
            acknowledged = True
        if len(failing.calls) < number:
            break
        for landed in (False, True):
            if landed:
                failing.land()
            with StateStore(storage) as store:
                names = store.names()
                assert names in (["old.state"], ["old.state", "new.state"]), failing.calls[-1]
                assert len(names) == 2 or not acknowledged, failing.calls[-1]
                for name in names:
                    store.verify(name)
        check_no_garbage(storage)
    assert number > 15


@pytest.mark.parametrize("failure", FAILURES)
def test_an_error_at_every_call_of_a_load_touches_no_component(failure: Failure) -> None:
    storage = a_store_with_a_state()
    number = 0
    while True:
        number += 1
        folder = Folder(NEW)
        failing = FailingStorage(storage, fail_at=number, failure=failure)
        with store_with(failing, folder=folder) as store:
            try:
                store.load_state("latest")
            except StorageError:
                assert folder.loads == 0
                assert folder.files == NEW
            except CorruptStateError as error:
                pytest.fail(f"a failed read was taken for damage: {error}")
        if len(failing.calls) < number:
            break
    assert folder.files == OLD

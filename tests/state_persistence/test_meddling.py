"""Somebody meddles: the folder vanishes, files of others lie in it, two writers take one name, a writer was away."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.errors import (
    FormatError,
    SaveFencedError,
    StateExistsError,
    StateVaultError,
    StorageAccessError,
    StorageError,
    UnsupportedTypeError,
)
from statevault.format.keys import COMMITS, FORMAT_KEY, session_key
from statevault.format.records import SessionRecord
from statevault.state_persistence import StateStore, write_tree
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.publish import commit
from statevault.state_persistence.records.catalog import Catalog
from statevault.storage import Body, ObjectInfo
from tests.state_persistence.components import Folder, some_files, store_with
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.storages import DictStorage, FailingStorage, ProcessDiedError
from tests.state_persistence.test_prune import MeddlingStorage, give_up_everything

OLD, NEW = some_files(1), some_files(2)


def test_a_store_that_was_deleted_under_a_running_agent_is_made_again(tmp_path: Path) -> None:
    with store_with(tmp_path / "states", folder=Folder(OLD)) as store:
        store.save_state(name="a.state")
        shutil.rmtree(tmp_path / "states")
        store.save_state(name="b.state")
    with StateStore(tmp_path / "states") as store:
        assert [info.name for info in store.states()] == ["b.state"]


def test_a_store_that_lost_its_description_is_an_error_and_healed_by_the_next_save() -> None:
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="a.state")
        del storage.objects[FORMAT_KEY]
        for fresh in (store, StateStore(storage)):
            assert fresh.exists()
            for operation in (fresh.states, fresh.load_state, fresh.gc):
                with pytest.raises(FormatError, match="lost _vault/format.json") as caught:
                    operation()
        _, _, line = str(caught.value).partition("save a state: ")
        storage.objects[FORMAT_KEY] = line.encode()
        assert [info.name for info in store.states()] == ["a.state"]
        del storage.objects[FORMAT_KEY]
        store.save_state(name="b.state")
        assert [info.name for info in store.states()] == ["a.state", "b.state"]


def test_no_store_is_made_in_the_folder_of_a_state_with_which_it_would_go(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        state = store.save_state(name="a.state")
        before = sorted(tmp_path.rglob("*"))
        with store_with(state, folder=Folder(NEW)) as inner, pytest.raises(FormatError, match="the folder of a state"):
            inner.save_state()
        assert sorted(tmp_path.rglob("*")) == before
        store.verify("a.state")


@pytest.mark.parametrize("depth", [40, 210, 5000])
def test_metadata_that_could_not_be_read_back_is_refused_at_once(depth: int) -> None:
    nested: object = 1
    for _ in range(depth):
        nested = [nested]
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        with pytest.raises((FormatError, UnsupportedTypeError)):
            store.save_state(metadata={"a": nested})  # type: ignore[dict-item]
        with pytest.raises(UnsupportedTypeError):
            store.save_state(metadata={"a": "\udce9"})
    assert storage.objects == {}


@pytest.mark.long
def test_a_marker_that_would_be_too_large_is_never_put() -> None:
    wide = {"a": [[[[[[[[[[i]]]]]]]]] for i in range(130_000)]}
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        with pytest.raises(FormatError):
            store.save_state(metadata=wide)  # type: ignore[arg-type]
        assert store.states() == []
        store.save_state(metadata={"a": 1})
        assert len(store.states()) == 1


def test_numpy_scalars_are_numbers_in_metadata() -> None:
    numpy = pytest.importorskip("numpy")
    with store_with(DictStorage()) as store:
        store.save_state(metadata={"reward": numpy.float32(1.5), "step": numpy.int64(3)})
        assert store.states()[0].metadata == {"reward": 1.5, "step": 3}


def test_a_link_in_a_local_store_is_not_followed(tmp_path: Path) -> None:
    root, victim = tmp_path / "states", tmp_path / "victim"
    (victim / "folder").mkdir(parents=True)
    (victim / "folder" / "thesis.txt").write_text("mine")
    root.mkdir()
    (root / "a.state").symlink_to(victim)
    with store_with(root, folder=Folder(OLD)) as store, pytest.raises(StorageAccessError, match="symbolic link"):
        store.save_state(name="a.state")
    assert [path.name for path in victim.rglob("*")] == ["folder", "thesis.txt"]


def test_a_root_that_is_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "states").symlink_to(tmp_path / "disk")
    with store_with(tmp_path / "states", folder=Folder(OLD)) as store:
        store.save_state()
        store.verify()


def test_a_folder_that_is_somebodys_own_is_not_taken_for_a_state(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        with pytest.raises(StateExistsError, match="files lie in"):
            store.save_state(name="mine")
        store.remove(["mine"])
        store.save_state(name="other.state")
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == ["thesis.txt"]


def test_the_loser_of_a_name_does_not_touch_the_winners_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a backend takes a create-only put for an ordinary one, and both looked before either put its session."""
    monkeypatch.setattr(commit, "_check_still_free", lambda *_, **__: None)

    class Overwriting(DictStorage):
        armed = True

        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            if key.startswith("best.state/"):
                if self.armed:
                    self.armed = False
                    winners = DictStorage()
                    winners.objects = self.objects
                    with store_with(winners, folder=Folder(NEW)) as winner:
                        # The winner has listed before the loser's session was there.
                        del self.objects[session_key("best.state")]
                        winner.save_state(name="best.state")
                raise StorageError("the loser's connection broke", key=key)
            return super().put(key, body)

    storage = Overwriting()
    with store_with(storage, folder=Folder(OLD)) as loser:
        with pytest.raises(StorageError):
            loser.save_state(name="best.state")
        folder = Folder()
        with store_with(storage, folder=folder) as reader:
            reader.load_state("best.state")
        assert folder.files == NEW


@pytest.mark.parametrize("outcome", ["committed", "failed", "removed"])
@pytest.mark.parametrize("given", [True, False], ids=["given", "coarse format"])
def test_a_writer_that_stood_still_between_its_look_and_its_session_takes_no_name_of_others(
    outcome: str, given: bool
) -> None:
    """The other one's session has come and gone meanwhile, so that the create-only put of this one is not refused."""

    def other(storage: DictStorage, key: str) -> None:
        failing = FailingStorage(storage, fail_at=12 if outcome == "failed" else 0)
        with store_with(failing, folder=Folder(NEW)) as store, suppress(StorageError):
            store.save_state(name="best.state")
            if outcome == "removed":
                store.remove(["best.state"])
        assert bool(Catalog(storage).listing().tombstones) == (outcome != "committed")

    storage = MeddlingStorage("_vault/sessions/", other)
    folder = Folder(OLD)
    with StateStore(storage, "best.state") as store:
        store.register("folder", folder)
        if given:
            with pytest.raises(StateExistsError, match="best"):
                store.save_state(name="best.state")
        else:
            assert store.save_state().name == "best-2.state"
        names = store.names()
        assert ("best.state" in names) == (outcome == "committed")
        if outcome == "committed":
            store.load_state("best.state")
            assert folder.files == NEW
        if not given:
            store.load_state("best-2.state")
            assert folder.files == OLD
    check_no_garbage(storage)


def test_a_folder_that_somebody_begins_to_use_meanwhile_is_left_to_them() -> None:
    taken: list[str] = []

    def put_something(storage: DictStorage, key: str) -> None:
        taken.append(key.removeprefix("_vault/sessions/"))
        storage.put(f"{taken[0]}/thesis.txt", b"mine")

    storage = MeddlingStorage("_vault/sessions/", put_something)
    with store_with(storage, folder=Folder(OLD)) as store:
        path = store.save_state()
        assert path.name != taken[0]
        store.gc()
        store.verify(path.name)
    assert storage.objects[f"{taken[0]}/thesis.txt"] == b"mine"
    assert Catalog(storage).listing().tombstones == ()


@pytest.mark.parametrize("dies", [False, True], ids=["error", "death"])
def test_the_loser_of_a_name_that_fails_at_any_call_leaves_the_winners_state(dies: bool) -> None:
    number = 0
    while True:
        number += 1

        def win(storage: DictStorage, key: str) -> None:
            plain = DictStorage()
            plain.objects = storage.objects
            with store_with(plain, folder=Folder(NEW)) as winner:
                winner.save_state(name="other.state")  # so that the two saves have different places in the order
                winner.save_state(name="best.state")

        storage = MeddlingStorage("_vault/sessions/", win)
        failing = FailingStorage(storage, fail_at=number, dies=dies)
        loser = store_with(failing, folder=Folder(OLD))
        with pytest.raises((StateVaultError, ProcessDiedError)):
            loser.save_state(name="best.state")
        if len(failing.calls) < number:
            break
        if storage.meddle is not None:
            continue  # it failed before the winner came
        check_no_garbage(storage)
        folder = Folder()
        with store_with(storage, folder=folder) as reader:
            reader.load_state("best.state")
        assert folder.files == NEW, failing.calls[number - 1]
    assert number > 4


def test_a_writer_that_was_away_for_days_saves_again_under_a_new_name() -> None:
    storage = MeddlingStorage("_nothing_", give_up_everything)
    real_list = DictStorage.list

    class Away(Folder):
        pass

    def list_after_a_prune(prefix: str = "") -> object:
        if prefix.endswith(".state/") and storage.meddle is not None:
            storage.meddle = None
            give_up_everything(storage, "")
        return real_list(storage, prefix)

    storage.list = list_after_a_prune  # type: ignore[method-assign,assignment]
    with store_with(storage, folder=Away(NEW)) as store:
        path = store.save_state()
        assert [info.name for info in store.states()] == [path.name]
        store.verify()
        assert len(Catalog(storage).listing().tombstones) == 1


def test_a_device_without_a_clock_is_not_stale_at_once() -> None:
    class Modern(DictStorage):
        @override
        def list(self, prefix: str = "") -> object:  # type: ignore[override]
            return (ObjectInfo(info.key, info.size, datetime.now(UTC)) for info in super().list(prefix))

    storage = Modern()
    session = SessionRecord(
        state="a.state", sequence=1, writer="w", base=None, started_at=datetime(1970, 1, 1, tzinfo=UTC)
    )
    storage.put(FORMAT_KEY, b'{"format": "statevault", "version": 1}')
    storage.put(session_key("a.state"), session.to_json())
    prune(storage, Catalog(storage), [], by="p", reason="test", stale_after=timedelta(days=1))
    assert Catalog(storage).listing().sessions == {"a.state"}


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 1, "state": "other", "sequence": 1}'])
def test_a_tombstone_that_is_none_gives_nobodys_folder_away(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="a.state")
        storage.objects["datasets/images.bin"] = b"mine"
        storage.objects["_vault/tombstones/000000000001.datasets"] = content
        store.remove([])
        store.gc()
    assert storage.objects["datasets/images.bin"] == b"mine"
    assert "nothing else says that datasets/ was a state" in caplog.text


def test_files_of_other_tools_in_a_dead_states_folder_do_not_stop_a_prune() -> None:
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="a.state")
        storage.objects["a.state/folder/.tmp-123-abc"] = b"debris of a copy"
        store.remove(["a.state"])
        assert store.states() == []
    assert [key for key in storage.objects if key.startswith("a.state")] == ["a.state/folder/.tmp-123-abc"]


def test_a_failed_fsync_of_the_marker_is_not_an_acknowledged_save() -> None:
    class BadDisk(DictStorage):
        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            size = super().put(key, body, create_only=create_only)
            if key.startswith("_vault/commits/"):
                raise StorageError("fsync: Input/output error", key=key)
            return size

    with store_with(BadDisk(), folder=Folder(OLD)) as store, pytest.raises(StorageError, match="fsync") as caught:
        store.save_state()
    assert "may still become visible" in caught.value.__notes__[0]


def test_an_error_after_the_marker_says_that_the_state_is_there() -> None:
    class Blind(DictStorage):
        @override
        def head(self, key: str) -> ObjectInfo:
            if any(known.startswith(COMMITS) for known in self.objects):
                raise StorageError("no HEAD today", key=key)
            return super().head(key)

    storage = Blind()
    with store_with(storage, folder=Folder(OLD)) as store:
        with pytest.raises(StateVaultError, match="HEAD") as caught:
            store.save_state()
        assert not isinstance(caught.value, SaveFencedError)
        assert "complete and committed" in caught.value.__notes__[0]
        assert len(store.states()) == 1


def test_files_whose_objects_would_be_in_each_others_way_are_both_saved(tmp_path: Path) -> None:
    files = {"index": b"compressible " * 1000, "index.zst/0": b"x", "index.zst/1": b"compressible " * 1000}
    with store_with(tmp_path, folder=Folder(files)) as store:
        store.save_state()
    folder = Folder()
    with store_with(tmp_path, folder=folder) as store:
        store.load_state()
    assert folder.files == files


class Truncating(Folder):
    """Keeps its file open and cuts it when it is being published."""

    path: Path

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        self.path = path / "weights.bin"


class TruncatingTree(Truncating):
    """As above, a file that lies in memory and is read from there."""

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        self.path = path / "weights.tree"
        write_tree(bytes(3_000_000), self.path)


@pytest.mark.parametrize("kind", [Truncating, TruncatingTree])
def test_a_file_that_shrinks_after_the_snapshot_fails_the_save_and_not_the_process(
    tmp_path: Path, kind: type[Truncating]
) -> None:
    component = kind({"weights.bin": bytes(3_000_000)})

    class Cutting(DictStorage):
        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            if key.startswith("_vault/sessions"):
                with component.path.open("r+b") as file:
                    file.truncate(10)
            return super().put(key, body, create_only=create_only)

    with StateStore(Cutting(), staging_dir=tmp_path if kind is Truncating else None) as store:
        store.register("component", component)
        with pytest.raises(UnsupportedTypeError, match="became shorter"):
            store.save_state()

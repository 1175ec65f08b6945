"""The StateStore as its users see it, on a local folder."""

from __future__ import annotations

import enum
import os
import pickle
import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from typing_extensions import override

from statevault.errors import (
    ComponentNotFoundError,
    FormatError,
    InvalidNameError,
    PickleNotAllowedError,
    SaveSupersededError,
    StateExistsError,
    StateNotFoundError,
    StatePrunedError,
    StateVaultError,
    UnsupportedTypeError,
)
from statevault.state_persistence import (
    PersistentStateMixin,
    StateStore,
    load_pickle,
    read_tree,
    save_pickle,
    write_tree,
)
from tests.state_persistence.components import Folder, some_files, store_with
from tests.state_persistence.storages import DictStorage

OLD, NEW = some_files(1), some_files(2)


def test_a_saved_state_is_loaded_by_another_store(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        path = store.save_state()
    folder = Folder()
    with store_with(tmp_path, folder=folder) as store:
        info = store.load_state("latest")
    assert folder.files == OLD
    assert info.path == path


def test_the_path_of_a_local_state_is_a_plain_path(tmp_path: Path) -> None:
    with store_with(tmp_path / "states", folder=Folder(OLD)) as store:
        path = store.save_state()
    assert isinstance(path, os.PathLike)
    assert issubclass(type(path), Path)
    assert path.parent == tmp_path / "states"
    assert path.name.endswith(".state")
    assert (path / "folder" / "weights.bin").read_bytes() == OLD["weights.bin"]


def test_a_state_is_loaded_by_name_path_and_url(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        path = store.save_state(name="old.state")
    for spelling in ("old.state", path, str(path), f"file://{path}", str(path) + "/"):
        folder = Folder()
        with store_with(tmp_path, folder=folder) as store:
            assert store.load_state(spelling).name == "old.state"
        assert folder.files == OLD


def test_a_state_of_another_store_is_loaded_by_its_path(tmp_path: Path) -> None:
    with store_with(tmp_path / "theirs", folder=Folder(OLD)) as store:
        path = store.save_state()
    folder = Folder()
    with store_with(tmp_path / "mine", folder=folder) as store:
        store.load_state(path)
        assert store.states() == []
    assert folder.files == OLD


def test_states_are_listed_oldest_first_whatever_their_names_and_times(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        for name in ("z.state", "a.state", "m.state"):
            store.save_state(name=name)
        os.utime(tmp_path / "_vault" / "commits" / "000000000003.m.state", (0, 0))
        assert [info.name for info in store.states()] == ["z.state", "a.state", "m.state"]
        assert [info.sequence for info in store.states()] == [1, 2, 3]
        latest = store.latest()
    assert latest is not None
    assert latest.name == "m.state"


def test_a_clock_that_jumps_back_does_not_change_the_order(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        store.save_state(name="2030-01-01.state")
        store.save_state(name="1970-01-01.state")
        latest = store.latest()
    assert latest is not None
    assert latest.name == "1970-01-01.state"


def test_info_tells_what_was_saved(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        store.save_state(name="old.state", metadata={"reward": 231.5, "step": 40_000})
        (info,) = store.states()
        assert store.info("old.state") == info
    assert info.files == len(OLD)
    assert info.size == sum(map(len, OLD.values()))
    assert 0 < info.new_size == info.stored_size < info.size
    assert info.metadata == {"reward": 231.5, "step": 40_000}
    assert info.components == ("folder",)
    assert info.base is None
    assert info.created_at.tzinfo is not None


class _Same(str):
    """Equal to nothing but itself."""

    __slots__ = ()
    __hash__ = object.__hash__

    @override
    def __eq__(self, other: object) -> bool:
        return self is other


class _Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"a": object()}, r"metadata\['a'\] is object"),
        ({"a": float("nan")}, r"metadata\['a'\] is nan"),
        ({"a": np.float32("inf")}, r"metadata\['a'\] is inf"),
        ({"a": {1, 2}}, r"metadata\['a'\] is set"),
        ({"a": [0, b"x"]}, r"metadata\['a'\]\[1\] is bytes"),
        ({"a": "\ud800"}, "surrogates"),
        ({"a": 10**5000}, "digits"),
        ({"a": np.datetime64(1, "ns")}, r"numpy\.datetime64"),
        ({"a": np.zeros(1, [("x", "i4")])[0]}, r"numpy\.void"),
        ({"a": np.longdouble(1)}, "longdouble"),
        ({"a": np.ma.masked}, "MaskedConstant"),
        ({1: "a", "1": "b"}, r"metadata has the key 1 \(int\); use text, such as '1'"),
        ({True: 1}, r"the key True \(bool\)"),
        ({None: 1}, r"the key None \(NoneType\)"),
        ({1.5: 1}, r"the key 1\.5 \(float\)"),
        ({np.int64(3): 1}, r"the key .*3.* \(numpy\.int64\)"),
        ({(1, 2): 1}, r"the key \(1, 2\) \(tuple\)"),
        ({"a": [{"b": {2: 3}}]}, r"metadata\['a'\]\[0\]\['b'\] has the key 2 \(int\)"),
        ({_Same("a"): 1, _Same("a"): 2}, "two keys that read 'a'"),
        ([("a", 1), ("a", 2)], "metadata is list"),
    ],
)
def test_metadata_that_is_not_json_is_refused_before_anything_is_saved(
    tmp_path: Path, metadata: dict[str, object], words: str
) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        with pytest.raises(UnsupportedTypeError, match=f"JSON.*{words}"):
            store.save_state(metadata=metadata)  # type: ignore[arg-type]
        assert store.states() == []


def test_metadata_is_read_back_as_it_was_given(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "numpy": [np.float32(1.5), np.bool_(True), np.uint64(2**64 - 1), np.str_("x"), np.array(3)],
        "torch": torch.tensor(2.5),
        "tuple": (1, (2,)),
        "of subclasses": [_Level.LOW, _Same("x")],
        "mappings": MappingProxyType({"x": OrderedDict(y=None)}),
        "numbers": [2**2000, -0.0, 5e-324],
        "": "\x00\u2028",
    }
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        store.save_state(metadata=given)
    (info,) = StateStore(tmp_path).states()
    assert repr(info.metadata) == repr(
        {
            "numpy": [1.5, True, 2**64 - 1, "x", 3],
            "torch": 2.5,
            "tuple": [1, [2]],
            "of subclasses": [1, "x"],
            "mappings": {"x": {"y": None}},
            "numbers": [2**2000, -0.0, 5e-324],
            "": "\x00\u2028",
        }
    )


@pytest.mark.parametrize("levels", [31, 5000])
def test_metadata_that_is_nested_too_deep_is_refused(tmp_path: Path, levels: int) -> None:
    nested: object = 1
    for _ in range(levels + 1):
        nested = [nested]
    with store_with(tmp_path) as store, pytest.raises(FormatError, match="32 levels"):
        store.save_state(metadata={"a": nested})  # type: ignore[dict-item]


def test_absurd_metadata_is_refused(tmp_path: Path) -> None:
    with store_with(tmp_path) as store, pytest.raises(FormatError, match="bytes"):
        store.save_state(metadata={"a": "x" * 5_000_000})


def test_a_component_is_registered_once(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder()) as store:
        with pytest.raises(KeyError, match="folder"):
            store.register("folder", Folder())
        with pytest.raises(InvalidNameError):
            store.register("a/b", Folder())


def test_a_name_is_never_used_twice(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        store.save_state(name="once.state")
        with pytest.raises(StateExistsError, match="once"):
            store.save_state(name="once.state")
        store.save_state(name="newer.state")
        store.remove(["once.state"])
        with pytest.raises(StateExistsError, match="once"):
            store.save_state(name="once.state")


def test_a_coarse_name_format_gets_suffixes(tmp_path: Path) -> None:
    store = StateStore(tmp_path, "run.state")
    store.register("folder", Folder(OLD))
    names = [store.save_state().name for _ in range(3)]
    with StateStore(tmp_path, "run.state") as again:
        names.append(again.save_state().name)
    assert names == ["run.state", "run-2.state", "run-3.state", "run-4.state"]


@pytest.mark.parametrize("name_format", ["a/b", "", "%Y %m", "../x.state"])
def test_a_bad_name_format_is_refused_at_once(tmp_path: Path, name_format: str) -> None:
    with pytest.raises(InvalidNameError):
        StateStore(tmp_path, name_format)


def test_loading_from_an_empty_store_says_so(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder()) as store:
        assert store.states() == []
        assert store.latest() is None
        with pytest.raises(StateNotFoundError, match="none"):
            store.load_state("latest")
        with pytest.raises(FileNotFoundError, match=r"nope\.state"):
            store.load_state("nope.state")
    assert list(tmp_path.iterdir()) == []


def test_a_removed_state_is_known_to_have_been_pruned(tmp_path: Path) -> None:
    with StateStore(tmp_path, incremental=False) as store:
        store.register("folder", Folder(OLD))
        store.save_state(name="old.state")
        store.save_state(name="new.state")
        result = store.remove(["old.state"])
        assert result.removed == ("old.state",)
        assert result.freed > 0
        with pytest.raises(StatePrunedError, match=r"old\.state"):
            store.load_state("old.state")
        assert [info.name for info in store.states()] == ["new.state"]
    assert not (tmp_path / "old.state").exists()


def test_only_the_components_that_are_asked_for_are_loaded(tmp_path: Path) -> None:
    with store_with(tmp_path, a=Folder(OLD), b=Folder(NEW)) as store:
        store.save_state()
    a, b = Folder(), Folder()
    with store_with(tmp_path, a=a, b=b) as store:
        store.load_state("latest", components=["b"])
    assert (a.loads, b.loads) == (0, 1)
    assert b.files == NEW


def test_a_component_that_the_state_lacks_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    with store_with(tmp_path, a=Folder(OLD)) as store:
        store.save_state()
    a = Folder()
    with store_with(tmp_path, a=a, b=Folder()) as store:
        with pytest.raises(ComponentNotFoundError, match="'b'.*components="):
            store.load_state("latest")
        with pytest.raises(KeyError):
            store.load_state("latest", components=["b"])
        with pytest.raises(ComponentNotFoundError, match="registered as 'c'"):
            store.load_state("latest", components=["c"])
    assert a.loads == 0


def test_a_component_that_the_store_lacks_is_named(tmp_path: Path) -> None:
    with store_with(tmp_path, a=Folder(OLD), b=Folder(NEW)) as store:
        store.save_state()
    a = Folder()
    with store_with(tmp_path, a=a) as store:
        with pytest.raises(ComponentNotFoundError, match="'b'.*not registered"):
            store.load_state("latest")
        assert a.loads == 0
        store.load_state("latest", components=["a"])
    assert a.files == OLD


def test_components_with_strange_files_come_back(tmp_path: Path) -> None:
    files = {
        "with space.txt": b"1",
        "ünï/漢字": b"2",
        "a%2Fb": b"3",
        ".hidden": b"4",
        "x.zst": b"z" * 5000,
        "x": b"z" * 5000,
        "*?[#": b"5",
        "long" * 60: b"6",
        "d/" * 30 + "deep": b"7",
    }
    with store_with(tmp_path, folder=Folder(files)) as store:
        store.save_state()
    folder = Folder()
    with store_with(tmp_path, folder=folder) as store:
        store.load_state()
    assert folder.files == files


class Single(PersistentStateMixin):
    """Writes one file beside its path, as clocks do, and an empty folder."""

    found: tuple[bytes, bool] | None = None

    @override
    def save_state(self, path: Path) -> None:
        path.with_suffix(".tree").write_bytes(b"t")
        (path / "cache" / "empty").mkdir(parents=True)

    @override
    def load_state(self, path: Path) -> None:
        self.found = (path.with_suffix(".tree").read_bytes(), (path / "cache" / "empty").is_dir())


def test_files_beside_the_path_and_empty_folders_come_back(tmp_path: Path) -> None:
    with store_with(tmp_path) as store:
        store.register("time", Single())
        store.register("stateless", PersistentStateMixin())
        store.save_state()
    single = Single()
    with store_with(tmp_path) as store:
        store.register("time", single)
        store.register("stateless", PersistentStateMixin())
        store.load_state()
    assert single.found == (b"t", True)


class Leaving(PersistentStateMixin):
    """Leaves some empty folders (``.`` for its path) and files, and looks for a file at load."""

    def __init__(self, folders: tuple[str, ...] = (), files: tuple[str, ...] = (), sought: str | None = None) -> None:
        self.folders, self.files, self.sought = folders, files, sought
        self.found: list[str] = []

    @override
    def save_state(self, path: Path) -> None:
        for folder in self.folders:
            (path / folder).mkdir(parents=True)
        for file in self.files:
            (path.parent / (path.name + file)).write_text("x")

    @override
    def load_state(self, path: Path) -> None:
        self.found = sorted(found.relative_to(path.parent).as_posix() for found in path.parent.rglob("*"))
        if self.sought is not None:
            (path.parent / (path.name + self.sought)).read_text()


@pytest.mark.parametrize(
    ("component", "found"),
    [
        (Leaving(), []),
        (Leaving(folders=(".",)), ["it"]),
        (Leaving(folders=("a/b", "c")), ["it", "it/a", "it/a/b", "it/c"]),
        (Leaving(files=("",)), ["it"]),
        (Leaving(files=(".tree",)), ["it.tree"]),
        (Leaving(folders=(".",), files=("/x", ".txt")), ["it", "it.txt", "it/x"]),
    ],
)
def test_a_component_finds_what_it_left(tmp_path: Path, component: Leaving, found: list[str]) -> None:
    store = StateStore(tmp_path)
    store.register("it", component)
    store.save_state()
    component.found = ["not loaded"]
    store.load_state()
    assert component.found == found


@pytest.mark.parametrize(
    ("component", "words"),
    [
        (Leaving(sought=""), "looks for 'it', but in the state 'one.state' its save_state left nothing"),
        (Leaving(sought=".tree"), "looks for 'it.tree', but in the state 'one.state' its save_state left nothing"),
        (Leaving(folders=(".",), sought="/a/b"), "looks for 'it/a/b', but .* left it: save the file always"),
        (Leaving(files=tuple("123456"), sought="7"), "looks for 'it7', but .* left it1, it2, it3, it4, it5, …: save"),
    ],
)
def test_a_file_that_a_component_did_not_save_is_named_by_its_path_in_the_state(
    tmp_path: Path, component: Leaving, words: str
) -> None:
    store = StateStore(tmp_path / "store")
    store.register("it", component)
    store.save_state(name="one.state")
    with pytest.raises(FileNotFoundError, match=f"the component 'it' {words}") as caught:
        store.load_state()
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_file_that_is_missing_elsewhere_is_the_components_own_error(tmp_path: Path) -> None:
    component = Leaving()
    component.load_state = lambda path: (tmp_path / "config.json").read_text()  # type: ignore[method-assign,assignment]
    store = StateStore(tmp_path / "store")
    store.register("it", component)
    store.save_state()
    with pytest.raises(FileNotFoundError, match=r"config\.json") as caught:
        store.load_state()
    assert caught.value.filename == str(tmp_path / "config.json")
    assert "while loading the component 'it'" in caught.value.__notes__[0]


class Breaking(PersistentStateMixin):
    """Fails when it is saved."""

    @override
    def save_state(self, path: Path) -> None:
        raise RuntimeError("broken sensor")


def test_a_component_that_fails_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with store_with(tmp_path / "states", folder=Folder(OLD)) as store:
        store.register("broken", Breaking())
        with pytest.raises(RuntimeError, match="sensor") as caught:
            store.save_state()
        assert caught.value.__notes__ == ["while saving the component 'broken'"]
        assert store.states() == []
    assert not (tmp_path / "states").exists()


class Linking(PersistentStateMixin):
    """Writes a link."""

    @override
    def save_state(self, path: Path) -> None:
        path.symlink_to("/etc/passwd")


def test_links_are_not_followed(tmp_path: Path) -> None:
    with store_with(tmp_path, link=Linking()) as store, pytest.raises(UnsupportedTypeError, match="link"):  # type: ignore[arg-type]
        store.save_state()


class Pickling(PersistentStateMixin):
    """Saves a value that needs pickle, by one of the two ways."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.value: object = threading.Lock
        self.loaded: object = None

    @override
    def save_state(self, path: Path) -> None:
        if self.how == "pickle":
            save_pickle(self.value, path)
        else:
            write_tree({"value": self.value}, path)

    @override
    def load_state(self, path: Path) -> None:
        self.loaded = load_pickle(path) if self.how == "pickle" else read_tree(path)["value"]


@pytest.mark.parametrize("how", ["pickle", "tree"])
def test_pickles_need_the_stores_consent_both_ways(tmp_path: Path, how: str) -> None:
    with store_with(tmp_path) as store:
        store.register("p", Pickling(how))
        with pytest.raises((PickleNotAllowedError, UnsupportedTypeError), match="allow_pickle"):
            store.save_state()
    with StateStore(tmp_path, allow_pickle=True) as store:
        store.register("p", Pickling(how))
        store.save_state()
        assert [file.holds_pickle for file in store.open_state().manifest.files] == [True]
    pickling = Pickling(how)
    with store_with(tmp_path) as store:
        store.register("p", pickling)
        with pytest.raises(PickleNotAllowedError, match="allow_pickle=True"):
            store.load_state()
        assert pickling.loaded is None
    with StateStore(tmp_path, allow_pickle=True) as store:
        store.register("p", pickling)
        store.load_state()
    assert pickling.loaded is threading.Lock


class Threading(Pickling):
    """Saves and loads in threads of its own, which inherit no context."""

    @override
    def save_state(self, path: Path) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(super().save_state, path).result()

    @override
    def load_state(self, path: Path) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(super().load_state, path).result()


@pytest.mark.parametrize("how", ["pickle", "tree"])
def test_threads_of_a_component_need_consent_as_well(tmp_path: Path, how: str) -> None:
    with store_with(tmp_path) as store:
        store.register("p", Threading(how))
        with pytest.raises((PickleNotAllowedError, UnsupportedTypeError), match="allow_pickle"):
            store.save_state()
    component = Threading(how)
    with StateStore(tmp_path, allow_pickle=True) as store:
        store.register("p", component)
        store.save_state()
        assert [file.needs_allow_pickle for file in store.open_state().manifest.files] == [True]
        store.load_state()
    assert component.loaded is threading.Lock


class SavingItself(Folder):
    """Calls its own store from within."""

    store: StateStore

    @override
    def save_state(self, path: Path) -> None:
        self.store.save_state()


def test_a_component_that_saves_its_own_store_is_told_so(tmp_path: Path) -> None:
    component = SavingItself()
    with store_with(tmp_path, component=component) as store:
        component.store = store
        with pytest.raises(StateVaultError, match="its own store"):
            store.save_state()


def test_latest_looks_again_when_states_are_pruned_meanwhile() -> None:
    class Busy(DictStorage):
        rounds = 0

        @override
        def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            if key.startswith("_vault/commits/") and self.rounds > 0:
                self.rounds -= 1
                with store_with(self, folder=Folder(NEW)) as other:
                    other.save_state()
                    other.remove([key.rpartition(".")[0].partition(".")[2] + ".state"])
            return super().get(key, start, end)

    storage = Busy()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="first.state")
    folder = Folder()
    storage.rounds = 1
    with store_with(storage, folder=folder) as store:
        assert store.load_state("latest").sequence == 2
        assert folder.files == NEW


def test_remove_takes_states_of_this_store_only(tmp_path: Path) -> None:
    with store_with(tmp_path / "theirs", folder=Folder(OLD)) as theirs:
        foreign = theirs.save_state(name="a.state")
    with store_with(tmp_path / "mine", folder=Folder(OLD)) as store:
        mine = store.save_state(name="a.state")
        store.save_state(name="b.state")
        with pytest.raises(StateNotFoundError, match="theirs"):
            store.remove([foreign])
        with pytest.raises(TypeError, match="several"):
            store.remove("a.state")
        with pytest.raises(InvalidNameError, match="latest"):
            store.save_state(name="latest")
        assert store.remove([mine]).removed == ("a.state",)


class Dumping(Pickling):
    """Pickles by itself, without asking anybody."""

    @override
    def save_state(self, path: Path) -> None:
        path.write_bytes(pickle.dumps({"a": 1}))

    @override
    def load_state(self, path: Path) -> None:
        self.loaded = pickle.loads(path.read_bytes())


def test_a_component_that_pickles_by_itself_is_marked_and_not_held_back(tmp_path: Path) -> None:
    dumping = Dumping("itself")
    with store_with(tmp_path) as store:
        store.register("d", dumping)
        store.save_state()
        (file,) = store.open_state().manifest.files
        assert file.holds_pickle
        assert not file.needs_allow_pickle
        store.load_state()
    assert dumping.loaded == {"a": 1}


def test_options_of_one_protocol_are_not_given_to_another(tmp_path: Path) -> None:
    with store_with(tmp_path / "theirs", folder=Folder(OLD)) as theirs:
        path = theirs.save_state()
    folder = Folder()
    with StateStore("memory://mine", storage_options={"skip_instance_cache": True}) as store:
        store.register("folder", folder)
        store.load_state(str(path))
    assert folder.files == OLD


class SlowStorage(DictStorage):
    """Waits before the first data object of each save."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go_on = threading.Event()

    @override
    def put(self, key: str, body: object, *, create_only: bool = False) -> int:
        if not key.startswith("_vault/"):
            self.reached.set()
            assert self.go_on.wait(300)
        return super().put(key, body, create_only=create_only)  # type: ignore[arg-type]


def test_latest_prefers_a_state_that_was_saved_before_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        store.save_state(name="crashed-1.state", metadata={"exit": "error: KeyError: 'a'"})
        assert store.load_state("latest").name == "crashed-1.state"
        store.save_state(name="good.state")
        store.save_state(name="crashed-2.state", metadata={"exit": "error: KeyError: 'b'"})
        assert store.load_state("latest").name == "good.state"
        assert "crashed-2.state was saved after an error: KeyError" in caplog.text
        assert store.load_state("crashed-2.state").name == "crashed-2.state"
        store.save_state(name="clean.state", metadata={"exit": "clean"})
        assert store.load_state("latest").name == "clean.state"


def test_what_changes_after_an_async_save_is_not_in_it() -> None:
    storage = SlowStorage()
    folder = Folder(OLD)
    with store_with(storage, folder=folder) as store:
        future = store.save_state_async()
        folder.files = dict(NEW)
        assert not future.done()
        storage.go_on.set()
        name = future.result(300).name
        store.load_state(name)
    assert folder.files == OLD


def test_one_publish_runs_and_the_newest_snapshot_waits() -> None:
    storage = SlowStorage()
    folder = Folder({"n": b"1"})
    with store_with(storage, folder=folder) as store:
        first = store.save_state_async(name="first.state")
        assert storage.reached.wait(300)
        second = store.save_state_async(name="second.state")
        folder.files = {"n": b"3"}
        third = store.save_state_async(name="third.state")
        with pytest.raises(SaveSupersededError):
            second.result(300)
        storage.go_on.set()
        assert [first.result(300).name, third.result(300).name] == ["first.state", "third.state"]
        assert [info.name for info in store.states()] == ["first.state", "third.state"]
        store.load_state("third.state")
    assert folder.files == {"n": b"3"}


def test_a_save_that_somebody_waits_for_is_not_replaced() -> None:
    storage = SlowStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state_async(name="first.state")
        assert storage.reached.wait(300)
        waited: list[str] = []
        thread = threading.Thread(target=lambda: waited.append(store.save_state(name="sync.state").name))
        thread.start()
        while not store._publisher._waiting:  # until it is in the queue
            thread.join(0.01)
        last = store.save_state_async(name="last.state")
        storage.go_on.set()
        assert last.result(300).name == "last.state"
        thread.join(300)
        assert waited == ["sync.state"]
        assert [info.name for info in store.states()] == ["first.state", "sync.state", "last.state"]


def test_closing_waits_for_the_publish_and_refuses_new_saves() -> None:
    storage = SlowStorage()
    store = store_with(storage, folder=Folder(OLD))
    future = store.save_state_async()
    threading.Timer(0.2, storage.go_on.set).start()
    store.close()
    assert future.done()
    assert not isinstance(future.exception(), CancelledError)
    with pytest.raises(StateVaultError, match="closed"):
        store.save_state()


def test_errors_survive_pickling(tmp_path: Path) -> None:
    with store_with(tmp_path) as store, pytest.raises(StateNotFoundError) as caught:
        store.load_state("no.state")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))


def test_what_can_be_no_component_is_refused(tmp_path: Path) -> None:
    class Half:
        def save_state(self, path: Path) -> None:
            pass

    class Whole(Half):
        def load_state(self, path: Path) -> None:
            pass

    with StateStore(tmp_path) as store:
        with pytest.raises(InvalidNameError, match="a str, which None is not"):
            store.register(None, Whole())  # type: ignore[arg-type]
        for component, lacking in ((Half(), "load_state"), (object(), "save_state"), (None, "save_state")):
            with pytest.raises(TypeError, match=f"'part' can't be a component: .* has no {lacking}"):
                store.register("part", component)  # type: ignore[arg-type]
        store.register("part", Whole())


def test_components_are_several(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store:
        store.save_state()
        with pytest.raises(TypeError, match=r"components=\['part'\]"):
            store.load_state(components="part")


def test_where_no_store_is_no_store_is_called_empty(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store, pytest.raises(StateNotFoundError, match="there is no store") as caught:
        store.load_state("./nope")
    assert "empty" not in str(caught.value)

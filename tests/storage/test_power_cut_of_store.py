"""A power cut while a store on a local disk saves, gives up, and removes states: what a fresh store finds after it.

After each recorded call to the operating system, everything that the disk may hold is made as a folder and opened.
Invariants: every visible state is the one that was saved, bit by bit; a save that was acknowledged is visible unless
its removal has begun; a removed state stays removed; the next save works; and two prunes leave nothing that no state
needs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from statevault.errors import StateVaultError, StorageError
from statevault.format.keys import VAULT
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.collection import collect
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.records.catalog import Catalog
from statevault.storage import LocalStorage
from statevault.worker_pool import WorkerPool
from tests.profiles import rounds
from tests.state_persistence.components import Files, Folder, store_with
from tests.state_persistence.garbage import check_no_garbage
from tests.storage.power_cut import KINDS, Disk, Kind, Tree, folder_in_memory, materialized
from tests.storage.recording_calls import Event, KilledError, NoFsync, RecordingCalls

MOST = rounds(short=4, long=40)  # ways that are looked at after a call, where there are more
EVERY = rounds(short=5, long=1)  # after each so many calls
EVERY_AFTER_A_KILL = rounds(short=2, long=1)
FROZEN = b"never changes" * 100


@dataclass(frozen=True, slots=True)
class Expected:
    """What was asked of the store, and answered, up to some moment.

    Attributes:
        begun: States whose save has begun.
        saved: States whose save was acknowledged.
        failed: States whose save has failed.
        removing: States whose removal has begun.
        removed: States whose removal was acknowledged.
        newest: A state that was seen, and for the sake of which the others are removed.
    """

    begun: frozenset[str] = frozenset()
    saved: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    removing: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    newest: str | None = None


def content(name: str) -> Files:
    """The files of a state: one is the same for all states, one in a folder of its own, one empty."""
    source = random.Random(name)
    return {"frozen": FROZEN, "weights": source.randbytes(100), "deep/step": name.encode(), "empty": b""}


class RecordedStore:
    """A store whose saves and removals are written down."""

    def __init__(self, base: Path) -> None:
        self.calls = RecordingCalls(base)
        self._root = base / "store"
        self._expected = Expected()
        self._folder = Folder()
        self._store = self._open()
        self.calls.mark(self._expected)

    def save(self, name: str) -> None:
        self._folder.files = content(name)
        self._expect(begun=self._expected.begun | {name})
        try:
            self._store.save_state(name=f"{name}.state")
        except StorageError:
            self._expect(failed=self._expected.failed | {name})
            raise
        self._expect(saved=self._expected.saved | {name})

    def remove(self, *names: str) -> None:
        self._expect(removing=self._expected.removing | set(names))
        self._store.remove([f"{name}.state" for name in names])
        self._expect(removed=self._expected.removed | set(names))

    def keep_newest(self) -> None:
        """Remove what is older than the newest state, whether or not its save was acknowledged."""
        *older, newest = (name.removesuffix(".state") for name in self._store.names())
        self._expect(newest=newest)
        self.remove(*older)

    def collect(self) -> None:
        """Delete also the tombstones of what is gone; they are not old, but who has written them is dead."""
        for _ in range(2):
            with closing(LocalStorage(self._root, calls=self.calls)) as storage:
                collect(storage, Catalog(storage), by="test", stale_after=timedelta(0), records_live=timedelta(0))

    @property
    def newest(self) -> str | None:
        return self._expected.newest

    def restart(self) -> None:
        """Another process goes on."""
        self.calls.killed_at = self.calls.killed_after = None
        self._store._staging.close()
        self._store = self._open()

    def close(self) -> None:
        self._store.close()

    def _open(self) -> StateStore:
        return store_with(LocalStorage(self._root, calls=self.calls), folder=self._folder)

    def _expect(self, **changes: Any) -> None:
        self._expected = replace(self._expected, **changes)
        self.calls.mark(self._expected)


def check(tree: Tree, expected: Expected, *, prunes_suffice: bool) -> None:
    """What a power cut left is a store in which nothing is lost that was promised."""
    with materialized(tree) as folder, closing(LocalStorage(folder / "store", calls=NoFsync())) as storage:
        visible = visible_contents(storage)
        for name, files in visible.items():
            assert files == content(name), f"{name} is damaged"
        missing = expected.saved - expected.removing - visible.keys()
        assert not missing, f"acknowledged, and lost: {missing}"
        assert visible.keys() <= expected.begun - expected.failed
        back = expected.removed & visible.keys()
        assert not back, f"removed, and back: {back}"
        if expected.newest not in {None, *visible}:
            assert expected.removing <= visible.keys(), f"removed for the sake of {expected.newest}, which is lost"
        with store_with(storage, folder=Folder(content("after"))) as store:
            store.save_state(name="after.state")
        for _ in range(2):
            prune(storage, Catalog(storage), [], by="test", reason="test", stale_after=timedelta(0))
        pruned = data_in(storage)
        check_no_garbage(storage)
        assert data_in(storage) == pruned or not prunes_suffice, "two prunes left what a collection finds"
        assert visible_contents(storage) == visible | {"after": content("after")}
        debris = {str(path.relative_to(storage.root)) for path in storage.root.rglob("*") if path.is_file()}
        assert debris == {info.key for info in storage.list()}, "debris is left"


def visible_contents(storage: LocalStorage) -> dict[str, Files]:
    contents = {}
    folder = Folder()
    with closing(LocalStorage(storage.root, calls=NoFsync())) as again, store_with(again, folder=folder) as store:
        for info in store.states():
            store.load_state(info.name)
            contents[info.name.removesuffix(".state")] = folder.files
    return contents


def data_in(storage: LocalStorage) -> set[str]:
    return {info.key for info in storage.list() if not info.key.startswith(VAULT)}


def check_all(
    disk: Disk, events: Sequence[Event], *, begin: int = 0, every: int = EVERY, prunes_suffice: bool = True
) -> int:
    """Cut the power after recorded calls from some number on; returns how many different disks that left."""
    source = random.Random(0)
    expected = Expected()
    checked = set()
    for number, event in enumerate(events):
        if event.call == "mark":
            assert isinstance(event.mark, Expected)
            expected = event.mark
        else:
            disk.apply(event)
        if number >= begin and (number % every == 0 or number == len(events) - 1):
            for tree in disk.crashes(most=MOST, source=source):
                key = (expected, hash(frozenset(tree.items())))
                if key not in checked:
                    checked.add(key)
                    with in_one_thread():
                        check(tree, expected, prunes_suffice=prunes_suffice)
    print(f"{len(events)} events, {len(checked)} different disks")
    return len(checked)


@contextmanager
def in_one_thread() -> Iterator[None]:
    """What is handed to pools is done at once: starting threads takes most of the time of a check."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerPool, "_has_thread", lambda pool: False)
        yield


def live(store: RecordedStore) -> None:
    """Full and incremental saves, one that fails, and removals of what later states refer to."""
    store.save("a")
    store.save("b")
    store.calls.full_at = "weights"
    with pytest.raises(StorageError):
        store.save("c")
    store.calls.full_at = None
    store.remove("a")
    store.save("d")
    store.remove("b", "d")
    store.save("e")
    store.collect()


@pytest.fixture
def store() -> Iterator[RecordedStore]:
    with folder_in_memory() as folder, closing(RecordedStore(folder)) as store:
        yield store


def test_a_store_keeps_what_it_promised(store: RecordedStore) -> None:
    live(store)
    assert check_all(Disk(), store.calls.events) > 100


@pytest.mark.parametrize("without", KINDS)
def test_it_is_noticed_when_a_kind_of_fsync_is_left_out(store: RecordedStore, without: Kind) -> None:
    live(store)
    with pytest.raises((AssertionError, StateVaultError)):
        check_all(Disk(without=without), store.calls.events)


@pytest.mark.parametrize("follows", ["remove", "collect"])
def test_a_removal_is_killed_and_another_process_goes_on(follows: str) -> None:
    """What the second one relies on, since it has seen it, does not vanish in a power cut."""

    def begin(store: RecordedStore) -> None:
        for name in ("a", "b"):
            store.save(name)

    def go_on(store: RecordedStore) -> None:
        if follows == "remove":
            store.remove("a")
        else:
            store.collect()

    killed = check_all_killed(begin, lambda store: store.remove("a"), go_on)
    assert killed > 8


def test_a_save_is_killed_and_another_process_removes_what_is_older() -> None:
    """A marker that is seen, and not yet on the medium, costs no other state its life."""
    newest = set()

    def go_on(store: RecordedStore) -> None:
        store.keep_newest()
        newest.add(store.newest)

    check_all_killed(lambda store: store.save("a"), lambda store: store.save("b"), go_on)
    assert newest == {"a", "b"}


def check_all_killed(
    begin: Callable[[RecordedStore], None],
    killed: Callable[[RecordedStore], None],
    go_on: Callable[[RecordedStore], None],
) -> int:
    """Kill a process after each change of a name, and cut the power while another one goes on."""
    for number in itertools.count(1):
        with folder_in_memory() as folder, closing(RecordedStore(folder)) as store, in_one_thread():
            begin(store)
            store.calls.killed_after = number
            try:
                killed(store)
            except KilledError:
                pass
            else:
                return number - 1
            restart = len(store.calls.events)
            store.restart()
            go_on(store)
        # What the first one deleted may come back, and a prune does not look for it again. A collection does.
        check_all(Disk(), store.calls.events, begin=restart, every=EVERY_AFTER_A_KILL, prunes_suffice=False)
    raise AssertionError

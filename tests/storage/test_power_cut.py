"""A power cut between any two calls to the operating system, with everything that it may leave of a local disk.

Every put and delete of a :class:`LocalStorage` is recorded. After each recorded call, what a disk that promises only
what POSIX promises may hold is made as a folder and opened anew: what was put and answered is there, bit by bit; what
was deleted and answered is gone; of what was under way all or nothing is there.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from statevault.errors import StorageError
from statevault.storage import LocalStorage
from tests.profiles import rounds
from tests.storage.power_cut import KINDS, Disk, Kind, Tree, folder_in_memory, materialized
from tests.storage.recording_calls import Event, KilledError, NoFsync, RecordingCalls

MOST = rounds(short=64, long=500)  # ways that are looked at, where there are more
KEYS = ["a/1", "a/2", "a/b/1", "a/b/2", "c/d/e/1", "c/d/2", "3"]
Allowed = dict[str, set[bytes | None]]
"""For each key what may lie there: None for nothing."""


class Recorded:
    """A storage whose puts and deletes are written down, with what may be seen after each, also by several threads."""

    def __init__(self, base: Path) -> None:
        self.calls = RecordingCalls(base)
        self.storage = LocalStorage(base / "above/store", calls=self.calls)
        self._allowed: Allowed = {}
        self._lock = threading.Lock()

    def put(self, key: str, body: bytes, *, create_only: bool = False) -> None:
        with self._under_way({key: body}):
            self.storage.put(key, body, create_only=create_only)

    def delete(self, *keys: str) -> None:
        with self._under_way(dict.fromkeys(keys)):
            self.storage.delete(keys)

    def settle(self) -> None:
        """What is seen now is what is there."""
        self.storage.settle()
        found = seen(self.storage)
        self._expect({key: {found.get(key)} for key in self._allowed})

    def restart(self) -> None:
        """Another process goes on."""
        self.calls.killed_at = None
        self.storage = LocalStorage(self.storage.root, calls=self.calls)

    @contextmanager
    def _under_way(self, changes: dict[str, bytes | None]) -> Iterator[None]:
        self._expect({key: {*self._allowed.get(key, {None}), body} for key, body in changes.items()})
        yield
        self._expect({key: {body} for key, body in changes.items()})

    def _expect(self, allowed: Allowed) -> None:
        with self._lock:
            self._allowed |= allowed
            self.calls.mark(dict(self._allowed))


def seen(storage: LocalStorage) -> dict[str, bytes]:
    return {info.key: storage.get(info.key) for info in storage.list()}


def check(tree: Tree, allowed: Allowed) -> None:
    """What a power cut left is what may be seen, and the storage goes on with it."""
    with materialized(tree) as folder, closing(LocalStorage(folder / "above/store", calls=NoFsync())) as storage:
        found = seen(storage)
        for key in found.keys() | allowed.keys():
            assert found.get(key) in allowed.get(key, {None}), f"{key}: {found.get(key)!r} of {tree}"
        storage.put("zz/after", b"after")
        storage.delete(["zz/after"])
        assert seen(storage) == found
        # Nothing is left of what was under way.
        assert {str(path.relative_to(storage.root)) for path in storage.root.rglob("*") if path.is_file()} == set(found)


def check_all(disk: Disk, events: Sequence[Event]) -> int:
    """Cut the power after each recorded call; returns how many different disks that left."""
    source = random.Random(0)
    allowed: Allowed = {}
    checked: set[tuple[int, int]] = set()
    marks = 0
    for event in events:
        if event.call == "mark":
            assert isinstance(event.mark, dict)
            allowed = event.mark
            marks += 1
        else:
            disk.apply(event)
        for tree in disk.crashes(most=MOST, source=source):
            key = (marks, hash(frozenset(tree.items())))
            if key not in checked:
                checked.add(key)
                check(tree, allowed)
    print(f"{len(events)} events, {len(checked)} different disks")
    return len(checked)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture
def recorded(folder: Path) -> Recorded:
    return Recorded(folder)


def puts_and_deletes(recorded: Recorded) -> None:
    """New folders, old ones, names that are taken, folders that go and come again."""
    recorded.put("a/b/1", b"first")
    recorded.put("a/b/2", b"second")
    recorded.put("a/b/2", b"another second")
    recorded.put("c/only", b"once", create_only=True)
    recorded.put("c/only", b"once", create_only=True)
    recorded.delete("a/b/1", "c/only")
    recorded.delete("a/b/2")
    recorded.put("a/b/3", b"third")
    recorded.put("d/e/f/4", b"")
    recorded.put("a/5", b"fifth")
    recorded.delete("a/b/3", "d/e/f/4")


def test_what_was_answered_survives_and_what_was_under_way_is_whole_or_not_there(recorded: Recorded) -> None:
    puts_and_deletes(recorded)
    assert check_all(Disk(), recorded.calls.events) > 100


@pytest.mark.parametrize("without", KINDS)
def test_it_is_noticed_when_a_kind_of_fsync_is_left_out(recorded: Recorded, without: Kind) -> None:
    puts_and_deletes(recorded)
    with pytest.raises(AssertionError, match=" of {"):
        check_all(Disk(without=without), recorded.calls.events)


@pytest.mark.parametrize("seed", range(rounds(short=6, long=60)))
def test_any_order_of_puts_and_deletes(recorded: Recorded, seed: int) -> None:
    use(recorded, random.Random(seed), KEYS, times=8)
    check_all(Disk(), recorded.calls.events)


@pytest.mark.parametrize("seed", range(rounds(short=3, long=30)))
def test_puts_and_deletes_at_the_same_time(recorded: Recorded, seed: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        keys = [[f"{key}-{thread}" for key in KEYS[:4]] for thread in range(3)]
        list(pool.map(lambda own: use(recorded, random.Random(f"{seed} {own}"), own, times=4), keys))
    check_all(Disk(), recorded.calls.events)


@pytest.mark.parametrize("follows", ["put", "delete", "settle"])
def test_a_process_is_killed_at_any_call_and_another_one_goes_on(follows: str) -> None:
    """What the second one was answered holds, also where it came across what the first one had not finished."""
    for number in itertools.count(1):
        with folder_in_memory() as folder:
            recorded = Recorded(folder)
            for key in ("a/1", "c/1", "c/2"):
                recorded.put(key, b"first")
            recorded.calls.killed_at = recorded.calls.calls + number
            try:
                recorded.put("a/b/c/2", b"second", create_only=True)
                recorded.delete("c/1")
            except KilledError:
                pass
            else:
                break
            recorded.restart()
            match follows:
                case "put":
                    recorded.put("a/b/c/2", b"second", create_only=True)
                    recorded.put("c/1", b"again")
                case "delete":
                    recorded.delete("c/1", "a/b/c/2")
                case "settle":
                    recorded.settle()
        check_all(Disk(), recorded.calls.events)
    assert number > 10


@pytest.mark.parametrize("made_anew", [False, True])
def test_an_fsync_of_a_removed_folder_brings_nothing_onto_the_medium_that_has_its_name(
    folder: Path, *, made_anew: bool
) -> None:
    """As another thread's delete may come between the opening of a folder and its fsync."""
    calls = RecordingCalls(folder)
    path = str(folder / "a")
    calls.mkdir(path)
    descriptor = os.open(path, os.O_RDONLY)
    calls.rmdir(path)
    if made_anew:
        calls.mkdir(path)
        os.close(calls.create(f"{path}/new"))
    calls.fsync(descriptor, path)
    os.close(descriptor)
    disk = Disk()
    for event in calls.events:
        disk.apply(event)
    left = list(disk.crashes(most=MOST, source=random.Random(0)))
    assert {} in left
    assert {"a": None} in left
    assert ({"a": None, "a/new": b""} in left) is made_anew


@pytest.mark.parametrize("does", ["put", "delete"])
def test_what_succeeds_after_a_failed_fsync_has_been_written_again(does: str) -> None:
    """The kernel tells of a failed write once; the next fsync succeeds, and what was lost stays lost."""
    for number in itertools.count(1):
        with folder_in_memory() as folder:
            recorded = Recorded(folder)
            recorded.put("a/1", b"first")
            recorded.calls.failing_fsync = recorded.calls.fsyncs + number
            for _ in range(2):
                with suppress(StorageError):
                    if does == "put":
                        recorded.put("a/b/c/2", b"second", create_only=True)
                        recorded.put("a/1", b"again")
                    else:
                        recorded.delete("a/1")
            if recorded.calls.fsyncs < recorded.calls.failing_fsync:
                break
            for key in ("a/b/c/3", "c/4"):
                with suppress(StorageError):
                    recorded.put(key, b"later")
        check_all(Disk(), recorded.calls.events)
    assert number > (4 if does == "put" else 1)


def use(recorded: Recorded, source: random.Random, keys: Sequence[str], *, times: int) -> None:
    for number in range(times):
        if source.random() < 0.4:
            recorded.delete(*source.sample(keys, source.randint(1, len(keys) // 2)))
        else:
            recorded.put(source.choice(keys), f"number {number}".encode())

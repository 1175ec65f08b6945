"""Saves and loads where the system gives no threads, or little memory: with fewer, or an error that says why."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec.asyn
import pytest
import zstandard

from statevault.codecs import compress_chunk, compression, decompress_chunk
from statevault.errors import StateVaultError, StorageError
from statevault.process_limits import naming_limits, scarce
from statevault.state_persistence import StateStore
from statevault.storage import open_storage
from statevault.storage.event_loop import event_loop
from statevault.storage.os_errors import storage_error
from statevault.storage.redaction import Secrets
from statevault.storage.s3.errors import translated
from tests.profiles import rounds
from tests.servers import Servers, StorageTarget
from tests.state_persistence.components import Folder, some_files

FILES = some_files(1) | {f"small/{number}": str(number).encode() for number in range(40)}


class Starts:
    """Counts the threads that are started, and refuses some as the system does.

    Attributes:
        made: How many were asked for.
    """

    def __init__(self, refuses: Callable[[int], bool]) -> None:
        self.made = 0
        self._refuses = refuses
        self._start = threading.Thread.start

    def __call__(self, thread: threading.Thread) -> None:
        self.made += 1
        if self._refuses(self.made):
            raise RuntimeError("can't start new thread")
        self._start(thread)


@contextmanager
def starts(refuses: Callable[[int], bool]) -> Iterator[Starts]:
    counted = Starts(refuses)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: counted(thread))  # noqa: PLW0108 - bound to a thread
        yield counted


def a_store(target: StorageTarget, folder: Folder) -> StateStore:
    store = StateStore(target.url, storage_options=target.storage_options)
    store.register("folder", folder)
    return store


def save(target: StorageTarget) -> None:
    with a_store(target, Folder(FILES)) as store:
        store.save_state(name="second")


def save_in_the_background(target: StorageTarget) -> None:
    with a_store(target, Folder(FILES)) as store:
        store.save_state_async(metadata={"saved": True}).result()


def load(target: StorageTarget) -> None:
    folder = Folder()
    with a_store(target, folder) as store:
        store.load_state("first")
    assert folder.files == FILES


def verify(target: StorageTarget) -> None:
    with a_store(target, Folder()) as store:
        store.verify("first")


def remove(target: StorageTarget) -> None:
    with a_store(target, Folder()) as store:
        store.remove(["other"])


OPERATIONS = [save, save_in_the_background, load, verify, remove]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("backend", ["local", "moto"])
@pytest.mark.parametrize("from_then_on", [False, True], ids=["one", "all after it"])
def test_whichever_thread_is_refused_everything_goes_on(
    servers: Servers, backend: str, operation: Callable[[StorageTarget], None], from_then_on: bool
) -> None:
    asked_for, number = 1, 1
    while number <= asked_for:
        target = servers.target(backend)
        with a_store(target, Folder(FILES)) as store:
            store.save_state(name="first")
            store.save_state(name="other")
        with starts(lambda count, refused=number: count == refused or (from_then_on and count > refused)) as counted:  # type: ignore[misc]
            operation(target)
        # The others are of the same pools.
        asked_for = min(counted.made, rounds(short=5, long=12))
        number += 1
        load(target)
    assert number > 2


def test_a_storage_that_had_no_thread_for_its_event_loop_has_one_when_there_is(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = servers.target("fake-gcs")
    before = fsspec.asyn.loop[0], fsspec.asyn.iothread[0]
    fsspec.asyn.loop[0], fsspec.asyn.iothread[0] = None, None
    try:
        with (
            starts(lambda count: True),
            pytest.raises(StorageError, match=r"(ulimit|no limits of its own)"),
        ):
            open_storage(target.url, target.storage_options)
        event_loop()
        open_storage(target.url, target.storage_options).close()
    finally:
        fsspec.asyn.loop[0], fsspec.asyn.iothread[0] = before


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
@pytest.mark.parametrize("megabytes", [400, 200, 100, 60, 10, 2, 0])
def test_a_limit_leaves_fewer_threads_and_no_half_of_a_state(tmp_path: Path, limit: str, megabytes: int) -> None:
    with StateStore(tmp_path) as store:
        store.register("folder", Folder(FILES))
        store.save_state(name="first")
    command = [sys.executable, "-m", "tests.state_persistence.run_limited", str(tmp_path), limit, str(megabytes)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if megabytes >= 60:  # with less, anything may fail, an import or the component itself
        assert run.stdout == "saved\nloaded\n", run.stderr
    with StateStore(tmp_path) as store:
        assert ({"first", "second"} if "saved" in run.stdout else {"first"}) <= set(store.names())
        for name in store.names():
            store.verify(name)


def test_a_lack_of_memory_is_no_network_that_is_down() -> None:
    """botocore has one word for all that can go wrong while a request is sent, which is tried again for long."""
    pytest.importorskip("botocore")
    from botocore.exceptions import HTTPClientError

    try:
        try:
            raise MemoryError
        except MemoryError as inner:
            raise HTTPClientError(error=inner) from None
    except HTTPClientError as error:
        error.__suppress_context__ = False
        failure = translated(error, url="s3://b", key="k", what="Can't write k", secrets=Secrets({}))
    assert not failure.transient
    assert "no memory is left" in str(failure)
    failure = storage_error(OSError(12, "Cannot allocate memory"), url="file:///x", key="k", what="Can't write k")
    assert "no memory is left" in str(failure)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (MemoryError(), MemoryError, "saving: no memory is left"),
        (OSError(12, "Cannot allocate memory"), MemoryError, "saving: no memory is left"),
        (RuntimeError("can't start new thread"), StateVaultError, "saving: no thread can be started"),
        (RuntimeError("can't allocate lock"), StateVaultError, "saving: no thread can be started"),
        (RuntimeError("something else"), RuntimeError, "something else"),
        (MemoryError("a component's own words"), MemoryError, "a component's own words"),
        (OSError(28, "No space left"), OSError, "No space left"),
        (StorageError("Can't write: no memory is left"), StorageError, "Can't write"),
    ],
)
def test_errors_that_come_of_limits_name_them(error: Exception, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told), naming_limits("saving"):
        raise error


def test_what_is_no_lack_is_none() -> None:
    assert scarce(ValueError("no memory")) == ""


def test_a_chunk_that_finds_no_memory_is_not_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfMemory:
        def decompress(self, *args: object, **kwargs: object) -> bytes:
            raise zstandard.ZstdError("decompression error: Allocation error : not enough memory")

    frame = compress_chunk(b"x" * 1000)
    monkeypatch.setattr(compression._contexts, "decompressor", OutOfMemory())
    with pytest.raises(MemoryError):
        decompress_chunk(frame, size=1000)

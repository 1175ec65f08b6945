"""The local disk: what survives a crash, and what happens when the disk says no."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    StorageFullError,
    StoreNotFoundError,
)
from statevault.storage import LocalStorage
from statevault.storage.file_calls import FileCalls


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Recorder(FileCalls):
    """Does what it is told, writes it down, and fails where a test says so."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.failures: dict[str, int] = {}

    def _note(self, call: str, path: str) -> None:
        name = os.path.relpath(path, self.root)
        if ".tmp-" in name:
            name = f"{name.rpartition('/')[0]}/TMP".lstrip("/")
        self.calls.append(f"{call} {name}")
        for what, number in self.failures.items():
            if f"{call} {name}".startswith(what):
                raise OSError(number, os.strerror(number), path)

    @override
    def mkdir(self, path: str) -> None:
        super().mkdir(path)
        self._note("mkdir", path)

    @override
    def create(self, path: str) -> int:
        descriptor = super().create(path)
        self._note("create", path)
        return descriptor

    @override
    def write(self, descriptor: int, data: memoryview) -> int:
        # Short writes are allowed: a disk that is nearly full does them.
        written = super().write(descriptor, data[:3])
        self._note("write", str(self.root / "-"))
        return written

    @override
    def fsync(self, descriptor: int, path: str) -> None:
        self._note("fsync", path)
        super().fsync(descriptor, path)

    @override
    def link(self, source: str, target: str) -> None:
        self._note("link", target)
        super().link(source, target)

    @override
    def replace(self, source: str, target: str) -> None:
        self._note("replace", target)
        super().replace(source, target)

    @override
    def unlink(self, path: str) -> None:
        self._note("unlink", path)
        super().unlink(path)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "store")


@pytest.fixture
def recorded(recorder: Recorder) -> LocalStorage:
    return LocalStorage(recorder.root, calls=recorder)


def test_bytes_are_on_the_medium_before_the_name_and_the_name_before_the_put_returns(
    recorded: LocalStorage, recorder: Recorder
) -> None:
    recorded.put("a/b/key", b"12345")
    root_up = [call for call in recorder.calls if call.startswith("fsync ..")]
    calls = [call for call in recorder.calls if call not in root_up]
    assert calls == [
        "mkdir .",
        "mkdir a",
        "mkdir a/b",
        "create a/b/TMP",
        "write -",
        "write -",
        "fsync a/b/TMP",
        "replace a/b/key",
        "fsync a/b",
        "fsync a",
        "fsync .",
    ]
    assert root_up[0] == "fsync .."  # The root is new as well.


def test_folders_that_are_known_to_be_durable_are_not_synced_again(recorded: LocalStorage, recorder: Recorder) -> None:
    recorded.put("a/b/key", b"1")
    recorder.calls.clear()
    recorded.put("a/b/other", b"1")
    assert recorder.calls == ["create a/b/TMP", "write -", "fsync a/b/TMP", "replace a/b/other", "fsync a/b"]


def test_a_folder_that_somebody_else_made_is_synced_all_the_same(recorded: LocalStorage, recorder: Recorder) -> None:
    recorded.put("a/key", b"1")
    (recorder.root / "a/new").mkdir()
    recorder.calls.clear()
    recorded.put("a/new/key", b"1")
    assert recorder.calls[-2:] == ["fsync a/new", "fsync a"]


def test_a_folder_that_was_removed_and_made_again_is_synced_again(recorded: LocalStorage, recorder: Recorder) -> None:
    recorded.put("a/b/key", b"1")
    recorded.delete(["a/b/key"])
    recorder.calls.clear()
    recorded.put("a/b/key", b"1")
    assert [call for call in recorder.calls if call.startswith("fsync")][1:4] == ["fsync a/b", "fsync a", "fsync ."]


def test_create_only_links_and_then_drops_the_temporary_name(recorded: LocalStorage, recorder: Recorder) -> None:
    recorded.put("key", b"1", create_only=True)
    assert recorder.calls[:6] == [
        "mkdir .",
        "create TMP",
        "write -",
        "fsync TMP",
        "link key",
        "unlink TMP",
    ]
    assert recorder.calls[6] == "fsync ."


@pytest.mark.parametrize("failing", ["fsync TMP", "fsync .", "write", "replace"])
def test_a_put_whose_disk_fails_fails(recorded: LocalStorage, recorder: Recorder, failing: str) -> None:
    recorder.root.mkdir()
    recorder.failures[failing] = errno.EIO
    with pytest.raises(StorageError, match="key") as caught:
        recorded.put("key", b"12345")
    assert caught.value.key == "key"
    assert not [name for name in names_in(recorder.root) if name.startswith(".tmp-")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_to_be_full(recorded: LocalStorage, recorder: Recorder, number: int) -> None:
    recorder.failures["write"] = number
    with pytest.raises(StorageFullError, match="Free some space") as caught:
        recorded.put("a/key", b"12345")
    assert not caught.value.transient
    assert list(recorded.list()) == []
    assert not [path for path in recorder.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_read_only_folder_is_said_to_be_one(recorded: LocalStorage, recorder: Recorder, number: int) -> None:
    recorder.failures["create"] = number
    with pytest.raises(StorageAccessError, match="Make the folder writable") as caught:
        recorded.put("a/key", b"12345")
    assert str(recorder.root) in str(caught.value)


def test_a_busy_disk_is_worth_another_try(recorded: LocalStorage, recorder: Recorder) -> None:
    recorder.failures["create"] = errno.EMFILE
    with pytest.raises(StorageError) as caught:
        recorded.put("a/key", b"12345")
    assert caught.value.transient


def test_without_hard_links_create_only_still_refuses_what_it_sees(recorded: LocalStorage, recorder: Recorder) -> None:
    recorder.failures["link"] = errno.EOPNOTSUPP
    recorded.put("key", b"1", create_only=True)
    recorded.put("key", b"1", create_only=True)
    with pytest.raises(ObjectExistsError):
        recorded.put("key", b"2", create_only=True)
    assert recorded.get("key") == b"1"
    assert names_in(recorder.root) == ["key"]


def test_a_disk_that_really_is_full_leaves_nothing_behind(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from statevault.errors import StorageFullError
        from statevault.storage import LocalStorage

        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        storage = LocalStorage(sys.argv[1])
        try:
            storage.put("folder/key", bytes(2 << 20))
        except StorageFullError:
            sys.exit(0 if list(storage.list()) == [] else "something is listed")
        sys.exit("no error")
    """
    _run(script, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write here")
def test_a_folder_of_somebody_else_is_an_access_error(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    script = """
        import os, sys
        from statevault.errors import StorageAccessError
        from statevault.storage import LocalStorage

        os.setuid(65534)
        try:
            LocalStorage(sys.argv[1]).put("folder/key", b"x")
        except StorageAccessError as error:
            sys.exit(0 if sys.argv[1] in str(error) else str(error))
        sys.exit("no error")
    """
    _run(script, store)


def test_a_put_that_is_under_way_at_exit_writes_nothing(tmp_path: Path) -> None:
    script = """
        import sys
        from statevault.storage import LocalStorage

        def body():
            yield b"half"
            sys.exit(0)

        LocalStorage(sys.argv[1]).put("key", body())
    """
    _run(script, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_must_be_is_named(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("a", b"x")
    with pytest.raises(StorageError, match="A file lies where a folder is needed"):
        storage.put("a/b", b"x")
    storage.put("folder/key", b"x")
    with pytest.raises(StorageError, match="A file lies where a folder is needed"):
        storage.put("folder", b"x")


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreNotFoundError, match="is a file"):
        LocalStorage(tmp_path / "file")


def test_delete_removes_folders_that_became_empty_but_not_the_root(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for key in ("a/b/c/1", "a/b/2", "x"):
        storage.put(key, b"x")
    storage.delete(["a/b/c/1"])
    assert names_in(tmp_path / "a/b") == ["2"]
    storage.delete(["a/b/2", "x"])
    assert names_in(tmp_path) == []


def test_delete_leaves_folders_alone(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("folder/key", b"x")
    storage.delete(["folder"])
    assert storage.get("folder/key") == b"x"


def test_debris_of_a_crash_goes_with_its_folder_once_it_is_old(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for folder in ("old", "young"):
        storage.put(f"{folder}/key", b"x")
        (tmp_path / folder / ".tmp-1-2").write_bytes(b"torn")
    week_ago = time.time() - 7 * 24 * 3600
    os.utime(tmp_path / "old/.tmp-1-2", (week_ago, week_ago))
    assert [info.key for info in storage.list()] == ["old/key", "young/key"]
    storage.delete(["old/key", "young/key"])
    assert names_in(tmp_path) == ["young"]


def test_puts_and_deletes_in_one_folder_do_not_hinder_each_other(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)

    def churn(name: str) -> None:
        for _ in range(150):
            storage.put(f"deep/er/{name}", b"x")
            assert storage.get(f"deep/er/{name}") == b"x"
            storage.delete([f"deep/er/{name}"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, "abcd"))
    assert names_in(tmp_path) == []


def test_list_goes_on_while_files_vanish(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for number in range(6):
        storage.put(f"{number}/key", b"x")
    listing = storage.list()
    assert next(listing).key == "0/key"
    storage.delete([f"{number}/key" for number in range(1, 5)])
    assert [info.key for info in listing] == ["5/key"]


def test_one_of_many_processes_wins_a_create_only_put(tmp_path: Path) -> None:
    script = """
        import os, sys
        from statevault.errors import ObjectExistsError
        from statevault.storage import LocalStorage

        storage = LocalStorage(sys.argv[1])
        for number in range(40):
            try:
                storage.put(f"{number}", b"%d" % os.getpid(), create_only=True)
                print(number)
            except ObjectExistsError:
                pass
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    won = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(won, key=int) == [str(number) for number in range(40)]


def test_links_and_other_things_that_are_no_files_are_not_listed_as_objects(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("key", b"x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert [info.key for info in storage.list()] == ["key"]
    with pytest.raises(ObjectNotFoundError):
        storage.head("pipe")


def test_a_body_is_written_as_it_comes(tmp_path: Path) -> None:
    """Bounded memory: the second part is made only when the first one is in the file."""
    storage = LocalStorage(tmp_path)

    def body() -> Iterator[bytes]:
        yield b"first"
        (unfinished,) = tmp_path.iterdir()
        assert unfinished.read_bytes() == b"first"
        yield b"second"

    assert storage.put("key", body()) == 11


def test_two_threads_make_the_same_new_folder(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    barrier = threading.Barrier(4)

    def put(number: int) -> None:
        for turn in range(30):
            barrier.wait()
            storage.put(f"{turn}/a/b/{number}", b"x")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(4)))
    assert len(list(storage.list())) == 120


def _run(script: str, root: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(script), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

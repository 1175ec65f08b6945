"""The local disk: what survives a crash, and what happens when the disk says no."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import signal
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
from statevault.storage.local.file_calls import FileCalls
from statevault.storage.os_errors import storage_error
from tests.state_persistence.components import Folder, store_with

DEBRIS = f".tmp-1-{0:016x}"
WEEK_S = 7 * 24 * 3600


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
            if what in {call, f"{call} {name}"}:
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

    @override
    def rmdir(self, path: str) -> None:
        super().rmdir(path)
        self._note("rmdir", path)


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


def test_a_folder_that_somebody_else_removed_and_made_again_is_synced_again(
    recorded: LocalStorage, recorder: Recorder
) -> None:
    """Filesystems give the inode number of a removed folder to the next one that is made."""
    recorded.put("a/b/key", b"1")
    for _ in range(3):
        shutil.rmtree(recorder.root / "a/b")
        (recorder.root / "a/b").mkdir()
        recorder.calls.clear()
        recorded.put("a/b/key", b"1")
        assert recorder.calls[-2:] == ["fsync a/b", "fsync a"]


def open_files(below: Path) -> int:
    """How many files and folders this process holds open there; elsewhere others may open and close some."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += link.readlink().is_relative_to(below)
    return count


def test_however_many_folders_are_used_few_are_held_open(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for number in range(200):
        storage.put(f"{number}/key", b"x")
    assert 0 < open_files(tmp_path) <= 128
    storage.close()
    assert open_files(tmp_path) == 0


def test_a_storage_that_is_forgotten_holds_nothing_open(tmp_path: Path) -> None:
    storages = [LocalStorage(tmp_path / f"{number}") for number in range(20)]
    for storage in storages:
        storage.put("a/key", b"x")
    assert open_files(tmp_path) > 0
    del storage, storages
    gc.collect()
    assert open_files(tmp_path) == 0


def test_a_root_that_is_a_link_is_synced_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/store")
    (tmp_path / "elsewhere/store").mkdir()
    recorder = Recorder(tmp_path)
    LocalStorage(tmp_path / "link", calls=recorder).put("key", b"1")
    assert recorder.calls[-1 - len(tmp_path.parents) - 2 :][:3] == ["fsync link", "fsync elsewhere", "fsync ."]


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


def test_bytes_that_failed_to_reach_the_medium_are_written_again(recorded: LocalStorage, recorder: Recorder) -> None:
    recorder.failures["fsync a/TMP"] = errno.EIO
    with pytest.raises(StorageError):
        recorded.put("a/key", b"123")
    recorder.failures.clear()
    recorder.calls.clear()
    recorded.put("a/key", b"123")
    assert recorder.calls[:4] == ["create a/TMP", "write -", "fsync a/TMP", "replace a/key"]


@pytest.mark.parametrize("create_only", [False, True])
def test_a_name_that_failed_to_reach_the_medium_is_written_again(
    recorded: LocalStorage, recorder: Recorder, create_only: bool
) -> None:
    recorder.failures["fsync a"] = errno.EIO
    with pytest.raises(StorageError):
        recorded.put("a/key", b"123", create_only=create_only)
    recorder.failures.clear()
    recorder.calls.clear()
    recorded.put("a/key", b"123", create_only=create_only)
    named = recorder.calls.index("replace a/key")
    assert "fsync a" in recorder.calls[named:]


def test_a_failed_fsync_far_above_is_not_forgotten(recorded: LocalStorage, recorder: Recorder) -> None:
    recorder.root.mkdir()
    recorder.failures["fsync .."] = errno.EIO
    with pytest.raises(StorageError):
        recorded.put("a/key", b"1")
    recorder.failures.clear()
    with pytest.raises(StorageError, match="failed before"):
        recorded.put("a/key", b"1")


def test_a_folder_whose_name_a_failed_fsync_lost_is_not_believed_to_be_safe_until_it_is_made_again(
    recorded: LocalStorage, recorder: Recorder
) -> None:
    """The kernel tells of a failed write once; the next fsync succeeds and has written nothing."""
    recorded.put("old/key", b"1")
    recorder.failures["fsync ."] = errno.EIO
    for _ in range(2):
        with pytest.raises(StorageError):
            recorded.put("a/b/key", b"1")
    recorder.failures.clear()
    with pytest.raises(StorageError, match=r"failed before.*check the disk.*/store/a\)"):
        recorded.put("a/b/other", b"1")
    recorded.put("old/other", b"1")  # known to be safe before
    recorded.put("new/key", b"1")  # its name is written only now
    recorded.delete(["a/b/key", "a/b/other"])
    recorder.calls.clear()
    recorded.put("a/b/key", b"1")
    assert recorder.calls[-3:] == ["fsync a/b", "fsync a", "fsync ."]


def test_an_object_whose_name_may_get_lost_is_not_taken_for_a_lost_answer(
    recorded: LocalStorage, recorder: Recorder
) -> None:
    """Callers look for the object after a transient error: it is there, but perhaps not on the medium."""
    recorded.put("a/other", b"1")
    for failing in ("fsync a", "create a/TMP"):
        recorder.failures = {failing: errno.EAGAIN}
        with pytest.raises(StorageError) as caught:
            recorded.put("a/key", b"1")
        assert not caught.value.transient
    recorder.failures.clear()
    recorded.put("a/key", b"1")
    recorder.failures["create a/TMP"] = errno.EAGAIN
    with pytest.raises(StorageError) as caught:
        recorded.put("a/key", b"1")
    assert caught.value.transient


def test_a_marker_whose_fsync_failed_is_put_again_before_the_save_is_acknowledged(
    recorded: LocalStorage, recorder: Recorder
) -> None:
    with store_with(recorded, folder=Folder({"file": b"1"})) as store:
        store.save_state(name="old.state")
        recorder.failures["fsync _vault/commits"] = errno.EAGAIN
        with pytest.raises(StorageError):
            store.save_state(name="new.state")


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


@pytest.mark.parametrize(
    "number",
    [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES, errno.EIO, errno.EINVAL, 524],
)
def test_without_hard_links_create_only_still_refuses_what_it_sees(
    recorded: LocalStorage, recorder: Recorder, number: int
) -> None:
    recorder.failures["link"] = number
    recorded.put("key", b"1", create_only=True)
    recorded.put("key", b"1", create_only=True)
    with pytest.raises(ObjectExistsError):
        recorded.put("key", b"2", create_only=True)
    assert recorded.get("key") == b"1"
    assert names_in(recorder.root) == ["key"]


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ENOENT]
)
def test_a_link_that_fails_for_another_reason_is_no_sign_of_a_disk_without_links(
    recorded: LocalStorage, recorder: Recorder, number: int
) -> None:
    recorder.failures["link"] = number
    with pytest.raises(StorageError):
        recorded.put("key", b"1", create_only=True)
    assert not [call for call in recorder.calls if call.startswith("replace")]
    assert names_in(recorder.root) == []


def test_without_hard_links_a_disk_that_fails_tells_its_own_error(recorded: LocalStorage, recorder: Recorder) -> None:
    recorder.failures = {"link": 524, "replace": errno.ENOSPC}
    with pytest.raises(StorageFullError):
        recorded.put("key", b"1", create_only=True)
    assert names_in(recorder.root) == []


class LinkedAndFailed(FileCalls):
    """Makes a link, and loses the answer, as a network mount can."""

    @override
    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO), source, None, target)


def test_a_link_that_was_made_although_it_failed_is_a_success(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store", calls=LinkedAndFailed())
    storage.put("key", b"1", create_only=True)
    assert storage.get("key") == b"1"
    assert names_in(tmp_path / "store") == ["key"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, 524])
def test_a_disk_without_fsync_for_folders_keeps_objects(
    recorded: LocalStorage, recorder: Recorder, number: int
) -> None:
    recorder.failures = {"fsync .": number, "fsync a": number}
    recorded.put("a/key", b"1")
    recorded.delete(["a/key"])
    assert list(recorded.list()) == []


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


def leave_debris(folder: Path, name: str = DEBRIS, *, age_s: float = WEEK_S) -> Path:
    """What a killed process leaves: an unfinished file that nobody has locked."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"torn")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_what_killed_writers_left_goes_with_the_delete_that_follows_a_listing(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for folder in ("dead", "alive"):
        storage.put(f"{folder}/key", b"x")
        leave_debris(tmp_path / folder)
        leave_debris(tmp_path / folder / "only/debris")
    assert [info.key for info in storage.list()] == ["alive/key", "dead/key"]
    storage.delete(["dead/key"])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["alive", "alive/key"]


def test_listing_removes_nothing(tmp_path: Path) -> None:
    debris = leave_debris(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    storage = LocalStorage(tmp_path)
    assert list(storage.list()) == list(storage.list("empty/")) == []
    assert debris.exists()
    assert (tmp_path / "empty").is_dir()


def test_a_folder_without_objects_goes_only_if_it_was_asked_for(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for name in ("dead.state/deep/er", "of somebody"):
        (tmp_path / name).mkdir(parents=True)
    assert list(storage.list()) == []
    storage.delete([])
    assert names_in(tmp_path) == ["dead.state", "of somebody"]
    assert list(storage.list("dead.state/")) == []
    storage.delete([])
    assert names_in(tmp_path) == ["of somebody"]


@pytest.mark.parametrize("name", [".tmp-1-2", ".tmp-mine", f".tmp-1-{0:016x}.bak"])
def test_a_file_that_is_not_named_as_statevault_names_them_is_left_alone(tmp_path: Path, name: str) -> None:
    storage = LocalStorage(tmp_path)
    path = leave_debris(tmp_path / "a", name)
    assert list(storage.list()) == []
    storage.delete(["a/key"])
    assert path.exists()


def test_an_unfinished_file_that_was_written_to_just_now_is_left_alone(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    path = leave_debris(tmp_path / "a", age_s=60)
    assert list(storage.list()) == []
    storage.delete([])
    assert path.exists()


def test_an_unfinished_file_of_a_put_that_still_runs_is_left_alone_however_old_it_looks(tmp_path: Path) -> None:
    sweeping = LocalStorage(tmp_path)

    def body() -> Iterator[bytes]:
        yield b"first"
        (unfinished,) = tmp_path.iterdir()
        os.utime(unfinished, (0, 0))
        assert list(sweeping.list()) == []
        sweeping.delete([])
        assert unfinished.exists()
        yield b"second"

    LocalStorage(tmp_path).put("key", body())
    assert sweeping.get("key") == b"firstsecond"


def test_the_unfinished_file_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from statevault.storage import LocalStorage

        def body():
            yield b"half"
            os.kill(os.getpid(), signal.SIGKILL)

        LocalStorage(sys.argv[1]).put("folder/key", body())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    assert subprocess.run(command, timeout=600, check=False).returncode == -signal.SIGKILL
    (debris,) = (tmp_path / "folder").iterdir()
    os.utime(debris, (0, 0))
    storage = LocalStorage(tmp_path)
    assert list(storage.list("folder/")) == []
    storage.delete([])
    assert names_in(tmp_path) == []


def test_a_delete_returns_when_the_medium_has_forgotten_the_names(recorded: LocalStorage, recorder: Recorder) -> None:
    for key in ("a/1", "a/2", "a/3", "b/c/1", "b/c/2"):
        recorded.put(key, b"x")
    recorder.calls.clear()
    recorded.delete(["a/1", "b/c/1", "a/2", "b/c/2"])
    # Once for each folder that is left, and not for those that have gone with all that was in them.
    assert recorder.calls == [
        "unlink a/1",
        "unlink b/c/1",
        "unlink a/2",
        "unlink b/c/2",
        "rmdir b/c",
        "rmdir b",
        "fsync .",
        "fsync a",
    ]


def test_a_delete_that_finds_nothing_makes_sure_that_it_stays_so(recorded: LocalStorage, recorder: Recorder) -> None:
    recorded.put("a/1", b"x")
    recorded.put("a/2", b"x")
    (recorder.root / "a/1").unlink()  # by a process that was killed before its fsync
    recorder.calls.clear()
    recorded.delete(["a/1", "gone/with/all/1"])
    assert recorder.calls == ["unlink a/1", "unlink gone/with/all/1", "fsync .", "fsync a"]


def test_a_delete_whose_disk_fails_fails(recorded: LocalStorage, recorder: Recorder) -> None:
    recorded.put("a/1", b"x")
    recorded.put("a/2", b"x")
    recorder.failures["fsync a"] = errno.EIO
    with pytest.raises(StorageError, match="Can't make sure that a/1"):
        recorded.delete(["a/1"])
    recorder.failures.clear()
    with pytest.raises(StorageError, match="may bring it back"):
        recorded.delete(["a/1"])
    recorded.delete(["a/2"])
    recorded.put("a/1", b"x")
    recorded.delete(["a/1"])


def test_settling_syncs_the_folders_that_a_listing_goes_through(recorded: LocalStorage, recorder: Recorder) -> None:
    recorded.settle()
    assert recorder.calls == []  # There is nothing yet.
    for key in ("a/b/1", "a/c/1", "d/1"):
        recorded.put(key, b"x")
    recorder.calls.clear()
    recorded.settle("a/")
    assert sorted(set(recorder.calls)) == ["fsync .", "fsync a", "fsync a/b", "fsync a/c"]
    recorder.failures["fsync a/c"] = errno.EIO
    with pytest.raises(StorageError, match="Can't make sure that all of a"):
        recorded.settle("a/")


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
    won = [line for process in processes for line in process.communicate(timeout=600)[0].split()]
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
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("linked", ["_vault/commits", "_vault/commits/000000000001.a.state"])
def test_a_listing_does_not_pass_over_a_link(tmp_path: Path, linked: str) -> None:
    """As other tools make them of files: a store whose records are links must not look empty."""
    storage = LocalStorage(tmp_path / "store")
    storage.put("_vault/commits/000000000001.a.state", b"x")
    (tmp_path / "store" / linked).rename(tmp_path / "moved")
    (tmp_path / "store" / linked).symlink_to(tmp_path / "moved")
    with pytest.raises(StorageAccessError, match="symbolic link"):
        list(storage.list("_vault/"))


@pytest.mark.parametrize(("what", "how"), [("Can't read a", "readable"), ("Can't write a", "writable")])
def test_a_refusal_says_what_to_make_of_the_folder(what: str, how: str) -> None:
    error = storage_error(PermissionError(errno.EACCES, "Permission denied"), url="", key="a", what=what)
    assert f"Make the folder {how} for" in str(error)

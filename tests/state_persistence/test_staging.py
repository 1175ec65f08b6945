"""Staging folders: in memory when they fit, swept when their process is gone, never taken from a living one."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from statevault.codecs import write_tree
from statevault.codecs.tree.held import holding
from statevault.errors import StagingSpaceError
from statevault.state_persistence import StateStore
from statevault.state_persistence.snapshot.staging import Staging
from tests.state_persistence.components import Folder, some_files, store_with

HOLD = """
import sys, time
from pathlib import Path
from statevault.state_persistence.snapshot.staging import Staging
staging = Staging(Path(sys.argv[1]))
folder = staging.make(Path(sys.argv[1]))
(folder / "half-written").write_bytes(b"x" * 1000)
print(folder, flush=True)
time.sleep(60)
"""


@contextmanager
def a_dead_and_a_living_holder(root: Path) -> Iterator[tuple[Path, Path]]:
    """Two processes that stage, one of which is killed, the other when the block ends: what they have staged."""
    killed, left = holder(root)
    living, held = holder(root)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        yield left, held
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()


def holder(root: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    with a_dead_and_a_living_holder(tmp_path) as (left, held):
        staging = Staging(tmp_path)
        staging.make(tmp_path)
        assert not left.parent.exists()
        assert (held / "half-written").exists()
        staging.close()
    Staging(tmp_path).make(tmp_path)
    assert not held.parent.exists()


def test_a_folder_without_a_lock_is_swept_if_its_process_is_gone(tmp_path: Path) -> None:
    """Whoever cleans folders for temporary files may remove the lock of a living process."""
    older, earlier = tmp_path / "1-0123abcd", tmp_path / "99999-ffffffff"
    with a_dead_and_a_living_holder(tmp_path) as (left, held):
        for folder in (older, earlier):
            folder.mkdir()
            (folder / "half-written").write_bytes(b"x")
        earlier.chmod(0o500)
        for path in (left, held):
            path.parent.with_suffix(".lock").unlink()
        staging = Staging(tmp_path)
        mine = staging.make(tmp_path)
        assert not any(folder.exists() for folder in (left.parent, older, earlier))
        assert (held / "half-written").exists()
        mine.parent.with_suffix(".lock").unlink()
        other = Staging(tmp_path)
        other.make(tmp_path)
        assert mine.exists()
        assert (held / "half-written").exists()
        staging.close()
        other.close()
    Staging(tmp_path).make(tmp_path)
    assert not held.parent.exists()


def test_what_is_no_staging_folder_is_not_swept(tmp_path: Path) -> None:
    mine = tmp_path / "elsewhere"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    root = tmp_path / "root"
    root.mkdir()
    (root / "1-0123abcd").symlink_to(mine)
    (root / "2-0123abcd").write_text("a file")
    (root / "3-0123abcd.old").mkdir()
    (root / "notes").mkdir()
    Staging(root).make(root)
    assert (mine / "thesis.txt").exists()
    assert {"1-0123abcd", "2-0123abcd", "3-0123abcd.old", "notes"} <= {path.name for path in root.iterdir()}


def test_a_folder_is_swept_where_there_is_no_room_to_make_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fills it is perhaps what is left there."""
    (root,) = Staging(tmp_path).roots(0)
    killed, left = holder(root)
    killed.kill()
    killed.communicate()
    monkeypatch.setattr("statevault.state_persistence.snapshot.staging._room", lambda _: 0 if left.exists() else 2**30)
    assert Staging(tmp_path).roots(1000) == [root]
    assert not left.parent.exists()


def test_a_small_state_is_staged_in_memory(tmp_path: Path) -> None:
    root = Staging().roots(1000)[0]
    if Path("/dev/shm").is_dir():
        assert root.is_relative_to("/dev/shm")
    assert [root.parent for root in Staging(tmp_path).roots(1000)] == [tmp_path]


def test_a_state_that_fits_nowhere_is_refused_before_it_is_written() -> None:
    with pytest.raises(StagingSpaceError, match="staging_dir="):
        Staging().roots(2**60)


def test_what_does_not_fit_is_told_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statevault.state_persistence.snapshot.staging._room", lambda root: 500_000)
    with pytest.raises(StagingSpaceError, match=r"files of 0\.9 MB and .* \(free: 0\.5 MB in"):
        Staging(tmp_path).roots(900_000)


def test_nothing_is_left_after_saves_and_loads(tmp_path: Path) -> None:
    staging_dir = tmp_path / "staging"
    store = StateStore(tmp_path / "states", staging_dir=staging_dir)
    store.register("folder", Folder(some_files(1)))
    store.save_state()
    store.load_state()
    (own,) = [path for path in staging_dir.glob("*/*") if path.is_dir()]
    assert list(own.iterdir()) == []
    store.close()
    assert list(staging_dir.glob("*/*")) == []


def hold(staging: Staging, root: Path, size: int) -> int:
    """Let a tree of so many bytes be held, and give the memory back; how much of it lies ready then."""
    folder = staging.make(root)
    trees = staging.holder(folder)
    with holding(trees):
        write_tree(np.zeros(size, np.uint8), folder / "model", held=True)
    trees.release()
    staging.remove(folder)
    return staging.holder(folder)._memory.spare_size


def test_a_store_that_nobody_closes_leaves_nothing_either(tmp_path: Path) -> None:
    staging_dir = tmp_path / "staging"
    for number in range(3):
        store = StateStore(tmp_path / "states", staging_dir=staging_dir)
        store.register("folder", Folder(some_files(number)))
        store.save_state()
        store.load_state()
        assert len(list(staging_dir.glob("*/*.lock"))) == 1
        del store
        gc.collect()
        assert list(staging_dir.glob("*/*")) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder in memory here")
def test_the_memory_of_a_snapshot_is_kept_for_the_next_one_as_long_as_there_is_plenty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = Staging()
    root = staging.roots(4 << 20)[0]
    assert hold(staging, root, 4 << 20) > 4 << 20
    assert root in staging.roots(4 << 20)
    assert staging.holder(root)._memory.spare_size > 4 << 20
    monkeypatch.setattr("statevault.state_persistence.snapshot.staging.available_memory", lambda: 100 << 20)
    with suppress(StagingSpaceError):
        staging.roots(4 << 20)
    assert staging.holder(root)._memory.spare_size == 0
    staging.close()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder in memory here")
def test_a_closed_store_keeps_no_memory() -> None:
    staging = Staging()
    assert hold(staging, staging.roots(4 << 20)[0], 4 << 20) > 4 << 20
    staging.close()
    assert staging.holder(Path("/dev/shm/x"))._memory.spare_size == 0


def test_who_stages_on_disk_has_little_copied_in_memory(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    root = staging.roots(0)[0]
    assert hold(staging, root, 100 << 20) == 0
    assert hold(staging, root, 4 << 20) > 4 << 20
    staging.close()


def test_a_forked_child_has_folders_of_its_own(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    mine = staging.make(tmp_path)
    child = os.fork()
    if child == 0:
        theirs = staging.make(tmp_path)
        ok = theirs.parent != mine.parent and mine.exists()
        staging.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mine.exists()
    staging.close()


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(StagingSpaceError, match="belongs"):
        Staging(tmp_path / "link").make(tmp_path / "link")


def test_a_full_staging_disk_is_one_clear_error_and_the_next_save_works(tmp_path: Path) -> None:
    class Huge(Folder):
        full = True

        def save_state(self, path: Path) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().save_state(path)

    huge = Huge(some_files(1))
    with store_with(tmp_path, huge=huge) as store:
        with pytest.raises(StagingSpaceError, match="staging_dir="):
            store.save_state()
        huge.full = False
        store.save_state()
        assert len(store.states()) == 1


def test_locks_and_folders_of_others_in_the_staging_folder_are_left_alone(tmp_path: Path) -> None:
    for folder in (tmp_path, *Staging(tmp_path).roots(0)):
        folder.mkdir(exist_ok=True)
        (folder / "uv.lock").write_text("mine")
        (folder / "uv").mkdir()
        (folder / "uv" / "thesis.txt").write_text("mine")
    store = StateStore(tmp_path / "states", staging_dir=tmp_path)
    store.register("folder", Folder(some_files(1)))
    store.save_state()
    store.close()
    assert len(list(tmp_path.rglob("thesis.txt"))) == len(list(tmp_path.rglob("uv.lock"))) == 2


def test_a_folder_that_a_component_made_read_only_is_removed(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    folder = staging.make(staging.roots(0)[0])
    (folder / "locked" / "deep").mkdir(parents=True)
    (folder / "locked" / "file").write_text("x")
    (folder / "locked").chmod(0o500)
    staging.remove(folder)
    assert not folder.exists()


def test_several_threads_share_the_folder_of_their_process(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    root = staging.roots(0)[0]
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: staging.make(root), range(16)))
    assert len({folder.parent for folder in folders}) == 1
    staging.close()
    assert list(root.iterdir()) == []

"""Files that are written over what earlier ones have left."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from statevault.codecs import read_tree, spare_files, write_tree
from statevault.codecs.spare_files import SpareFiles, open_to_write, reusing

MIB = 1024**2


@pytest.fixture
def folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


class Snapshots:
    """Writes into one folder after the other, as a store does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spares = SpareFiles(folder)
        self.number = 0

    def write(self, **values: object) -> Path:
        self.number += 1
        path = self.folder / str(self.number)
        path.mkdir()
        with reusing(self.spares):
            for name, value in values.items():
                write_tree(value, path / name)
        return path

    def discard(self, path: Path) -> None:
        self.spares.recycle(path)
        shutil.rmtree(path)


@pytest.fixture
def snapshots(folder: Path) -> Iterator[Snapshots]:
    snapshots = Snapshots(folder)
    yield snapshots
    snapshots.spares.clear()


def noise(size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def mapped_files(folder: Path) -> int:
    """How many files below a folder this process has mapped."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_the_pages_of_a_file_that_has_served_are_used_again(snapshots: Snapshots) -> None:
    inodes = []
    for seed in range(4):
        value = noise(3 * MIB, seed)
        path = snapshots.write(model=value)
        assert np.array_equal(read_tree(path / "model"), value)
        inodes.append((path / "model").stat().st_ino)
        snapshots.discard(path)
    assert len(set(inodes)) == 1
    assert snapshots.spares.size > 3 * MIB


def test_any_sequence_of_sizes_is_read_as_it_was_written(snapshots: Snapshots) -> None:
    """Also two snapshots at a time: one is published, one waits."""
    source = random.Random(0)
    waiting: list[tuple[Path, dict[str, NDArray[np.uint8]]]] = []
    for number in range(60):
        sizes = [source.choice([0, 100, MIB, MIB + 1, 1_200_000, 1_500_000, 4 * MIB]) for _ in range(3)]
        values = {f"file{index}": noise(size, number) for index, size in enumerate(sizes)}
        waiting.append((snapshots.write(**values), values))
        while len(waiting) > source.choice([0, 1, 2]):
            path, expected = waiting.pop(0)
            for name, value in expected.items():
                assert np.array_equal(read_tree(path / name), value)
            snapshots.discard(path)


def test_what_is_kept_is_no_larger_than_the_last_snapshot(snapshots: Snapshots) -> None:
    first, second = snapshots.write(model=noise(8 * MIB)), snapshots.write(model=noise(2 * MIB))
    snapshots.discard(first)
    assert snapshots.spares.size > 8 * MIB
    snapshots.discard(second)
    assert 2 * MIB < snapshots.spares.size < 3 * MIB
    assert sum(path.stat().st_size for path in snapshots.folder.rglob("*") if path.is_file()) == snapshots.spares.size


def test_a_snapshot_of_small_files_frees_what_was_kept(snapshots: Snapshots) -> None:
    snapshots.discard(snapshots.write(model=noise(2 * MIB)))
    snapshots.discard(snapshots.write(counters={"steps": 1}))
    assert snapshots.spares.size == 0


def test_files_of_others_are_not_used_again(snapshots: Snapshots) -> None:
    """Whoever wrote them may write into them still."""
    path = snapshots.write(model=noise(2 * MIB))
    (path / "other").write_bytes(bytes(2 * MIB))
    os.link(path / "model", path / "link")
    snapshots.discard(path)
    assert snapshots.spares.size == 0


def test_all_is_given_back(snapshots: Snapshots) -> None:
    for seed in range(3):
        path = snapshots.write(model=noise(2 * MIB, seed))
        if seed < 2:
            snapshots.discard(path)
    assert mapped_files(snapshots.folder) == 1
    snapshots.spares.clear()
    assert mapped_files(snapshots.folder) == 0
    assert list((snapshots.folder / "spare").iterdir()) == []
    assert np.array_equal(read_tree(path / "model"), noise(2 * MIB, 2))


def test_a_file_that_its_writer_removes_is_not_mapped_for_ever(snapshots: Snapshots) -> None:
    for seed in range(3):
        path = snapshots.write(model=noise(2 * MIB, seed))
        if seed == 2:
            (path / "model").unlink()
        snapshots.discard(path)
    assert mapped_files(snapshots.folder) == 0


def test_a_write_that_fails_in_the_middle_keeps_nothing(snapshots: Snapshots) -> None:
    for seed in range(2):
        snapshots.discard(snapshots.write(model=noise(2 * MIB, seed)))
    size = snapshots.spares.size
    path = snapshots.folder / "failing"
    path.mkdir()
    with reusing(snapshots.spares), pytest.raises(RuntimeError), open_to_write(path / "model", size) as write:
        write(bytes(MIB))
        raise RuntimeError
    del write
    assert mapped_files(snapshots.folder) == 0
    snapshots.discard(path)
    assert snapshots.spares.size == 0


def test_only_so_many_files_are_kept_open(snapshots: Snapshots) -> None:
    """Each costs a descriptor, of which a process has few."""
    for _ in range(2):
        before = open_files()
        snapshots.discard(snapshots.write(**{f"file{number}": bytes(MIB) for number in range(40)}))
        assert open_files() <= before + 32
        assert mapped_files(snapshots.folder) == len(list((snapshots.folder / "spare").iterdir())) == 32


def test_what_can_not_be_mapped_is_not_kept(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    path = snapshots.write(model=noise(2 * MIB))
    with monkeypatch.context() as patch:
        patch.setattr(spare_files, "_mapped", fail)
        snapshots.discard(path)
    assert snapshots.spares.size == 0
    assert sum(path.stat().st_size for path in snapshots.folder.rglob("*") if path.is_file()) == 0


def test_a_spare_file_that_is_lost_or_can_not_be_mapped_again_is_done_without(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.discard(snapshots.write(model=noise(2 * MIB)))
    next((snapshots.folder / "spare").iterdir()).unlink()
    path = snapshots.write(model=noise(2 * MIB, 1))
    assert np.array_equal(read_tree(path / "model"), noise(2 * MIB, 1))
    snapshots.discard(path)

    def fail(path: Path) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(spare_files, "_mapped", fail)
        path = snapshots.write(model=noise(2 * MIB - 5000, 2))
    assert np.array_equal(read_tree(path / "model"), noise(2 * MIB - 5000, 2))
    assert (path / "model").stat().st_size < 2 * MIB


def test_files_elsewhere_are_written_as_ever(snapshots: Snapshots, tmp_path: Path) -> None:
    """As those of a component that keeps something for itself, perhaps on another disk."""
    for seed in range(2):
        path = snapshots.write(model=noise(2 * MIB, seed))
        with reusing(snapshots.spares):
            write_tree(noise(2 * MIB, seed + 10), tmp_path / "cache")
        assert not snapshots.spares.wrote(tmp_path / "cache")
        assert snapshots.spares.wrote(path / "model")
        snapshots.discard(path)
        assert np.array_equal(read_tree(tmp_path / "cache"), noise(2 * MIB, seed + 10))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of what is tested here
def test_a_child_writes_over_nothing_of_its_parents(snapshots: Snapshots) -> None:
    snapshots.discard(snapshots.write(model=noise(2 * MIB)))
    before = snapshots.spares.size
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(snapshots.spares.size != before or not snapshots.write(model=noise(2 * MIB)).exists())
            status += int(snapshots.spares.size != before)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list((snapshots.folder / "spare").iterdir())) == 1


def test_outside_of_a_snapshot_nothing_is_used_again(snapshots: Snapshots) -> None:
    snapshots.discard(snapshots.write(model=noise(2 * MIB)))
    before = snapshots.spares.size
    write_tree(noise(2 * MIB), snapshots.folder / "other")
    assert snapshots.spares.size == before

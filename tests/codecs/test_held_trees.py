"""Tree files that a snapshot holds in memory are the files that would have been written, byte for byte."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from statevault.codecs import Unchanging, holds_pickle, read_tree, real_files, segment_boundaries, write_tree
from statevault.codecs.snapshot_memory import SnapshotMemory
from statevault.codecs.tree.held import HeldTrees, holding
from statevault.codecs.tree.held_tree import HeldTree
from statevault.codecs.tree.stubs import is_stub
from statevault.errors import FormatError, UnsupportedTypeError

MIB = 1024**2


def noise(size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.fixture
def memory() -> SnapshotMemory:
    return SnapshotMemory(lambda: 1 << 40)


@pytest.fixture
def trees(tmp_path: Path, memory: SnapshotMemory) -> HeldTrees:
    return HeldTrees(tmp_path, memory)


def held(value: object, path: Path, trees: HeldTrees) -> HeldTree:
    with holding(trees):
        write_tree(value, path, held=True)
    tree = trees.find(path)
    assert tree is not None
    return tree


def written(value: object, path: Path) -> bytes:
    write_tree(value, path)
    return path.read_bytes()


values = st.lists(
    st.builds(
        lambda size, unchanging, seed: Unchanging(noise(size, seed)) if unchanging else noise(size, seed),
        st.sampled_from([0, 1, 511, 512, 513, 640, 4096, 70_000, 600_001]),
        st.booleans(),
        st.integers(0, 5),
    ),
    max_size=8,
)


@given(values, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_range_of_it_is_that_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, values: list[object], source: object
) -> None:
    folder = tmp_path_factory.mktemp("held")
    value = [*values, noise(MIB), b"x" * 700, "text"]
    tree = held(value, folder / "held", HeldTrees(folder, SnapshotMemory(lambda: 1 << 40)))
    expected = written(value, folder / "file")
    assert tree.size == len(expected)
    assert tree.boundaries == segment_boundaries(folder / "file")
    assert bytes(tree.view(0, tree.size)) == expected
    for _ in range(20):
        start = source.randrange(tree.size)  # type: ignore[attr-defined]
        stop = source.randrange(start + 1, tree.size + 1)  # type: ignore[attr-defined]
        assert bytes(tree.view(start, stop)) == tree.read(start, stop - start) == expected[start:stop]


def test_what_may_change_is_copied_and_what_can_not_is_shared(tmp_path: Path, trees: HeldTrees) -> None:
    changing, unchanging = noise(MIB, 1), noise(4 * MIB, 2)
    value = {"changing": changing, "unchanging": Unchanging(unchanging)}
    expected = written(value, tmp_path / "file")
    tree = held(value, tmp_path / "held", trees)
    assert MIB < trees.copied < MIB + 4096
    changing[:] = 0
    assert bytes(tree.view(0, tree.size)) == expected
    shared = tree.boundaries[1]
    assert np.shares_memory(np.frombuffer(tree.view(shared, shared + 4 * MIB), np.uint8), unchanging)
    assert not tree.is_own(shared, shared + 1)
    assert not tree.is_own(0, tree.size)
    assert tree.is_own(0, shared)


def test_a_tree_of_tensors_lies_in_one_piece(tmp_path: Path, trees: HeldTrees) -> None:
    tree = held({str(i): torch.randn(1000, 100) for i in range(5)}, tmp_path / "held", trees)
    whole = tree.view(0, tree.size)
    assert tree.is_own(0, tree.size)
    assert np.shares_memory(np.frombuffer(whole, np.uint8), np.frombuffer(tree.view(0, 100), np.uint8))


def test_digests_are_remembered_for_parts_of_what_never_changes(tmp_path: Path, trees: HeldTrees) -> None:
    unchanging = Unchanging(noise(2 * MIB + 1))
    tree = held([noise(1000), unchanging, noise(MIB)], tmp_path / "held", trees)
    _, begin, behind = tree.boundaries
    assert behind - begin == 2 * MIB + 64
    for start, stop in [(begin, begin + MIB), (begin + MIB, behind), (begin, behind - 63), (begin, behind)]:
        assert tree.known_digests(start, stop) == (unchanging.digests, (start - begin, stop - start))
    for start, stop in [(0, begin), (begin, behind + 64), (begin, behind - 1), (behind, tree.size)]:
        assert tree.known_digests(start, stop) is None


def test_it_is_read_like_a_file_while_it_is_held(tmp_path: Path, trees: HeldTrees) -> None:
    value = {"a": noise(MIB, 1), "b": Unchanging(noise(MIB, 2)), "c": [1, "two"]}
    tree = held(value, tmp_path / "held", trees)
    (tmp_path / "held").rename(tmp_path / "other")
    shutil.copy(tmp_path / "other", tmp_path / "copy")
    assert trees.find(tmp_path / "other") is tree
    assert trees.find(tmp_path / "copy") is tree
    for mapped in (False, True):
        again = read_tree(tmp_path / "copy", mapped=mapped)
        assert np.array_equal(again["a"], noise(MIB, 1))
        assert np.array_equal(again["b"], noise(MIB, 2))
        assert again["c"] == [1, "two"]
        again["a"][:] = 0
    assert np.array_equal(read_tree(tmp_path / "copy")["a"], noise(MIB, 1))


def test_when_the_save_is_over_nobody_takes_what_stood_for_it_for_the_file(
    tmp_path: Path, trees: HeldTrees, memory: SnapshotMemory
) -> None:
    held(noise(MIB), tmp_path / "held", trees)
    trees.release()
    with pytest.raises(FormatError, match="held in memory for a save or a load, which is over"):
        read_tree(tmp_path / "held")
    with pytest.raises(UnsupportedTypeError, match="earlier save.*without held=True"):
        HeldTrees(tmp_path, memory).find(tmp_path / "held")


def test_small_files_files_elsewhere_and_files_of_nobody_are_written(tmp_path: Path, trees: HeldTrees) -> None:
    inside, outside = tmp_path / "state", tmp_path / "other"
    inside.mkdir()
    outside.mkdir()
    trees = HeldTrees(inside, SnapshotMemory(lambda: 1 << 40))
    with holding(trees):
        write_tree(noise(1000), inside / "small", held=True)
        write_tree(noise(MIB), outside / "elsewhere", held=True)
        write_tree(noise(MIB), inside / "plain")
        thread = threading.Thread(target=write_tree, args=(noise(MIB), inside / "thread"), kwargs={"held": True})
        thread.start()
        thread.join()
    write_tree(noise(MIB), inside / "after", held=True)
    for path in (inside / "small", outside / "elsewhere", inside / "plain", inside / "thread", inside / "after"):
        assert path.stat().st_size >= 1000
        assert trees.find(path) is None
        assert read_tree(path) is not None
    assert trees.copied == 0


def test_files_that_look_a_bit_like_a_stub_are_files(tmp_path: Path, trees: HeldTrees) -> None:
    stub = held(noise(MIB), tmp_path / "held", trees).stub
    for data in (b"", stub[:-1], stub + b"x", b"x" * len(stub)):
        (tmp_path / "file").write_bytes(data)
        assert trees.find(tmp_path / "file") is None


def test_memory_is_written_over_by_the_next_snapshot(tmp_path: Path, memory: SnapshotMemory) -> None:
    for seed in range(4):
        trees = HeldTrees(tmp_path, memory)
        tree = held({"a": noise(3 * MIB, seed), "b": bytes(100)}, tmp_path / f"held{seed}", trees)
        assert memory.spare_size == 0
        assert bytes(tree.view(0, tree.size)) == written({"a": noise(3 * MIB, seed), "b": bytes(100)}, tmp_path / "f")
        trees.release()
        assert memory.spare_size == 4 * MIB
    assert tree.is_released


def test_padding_in_memory_that_has_served_is_zero(tmp_path: Path, memory: SnapshotMemory) -> None:
    block = memory.take(4 * MIB)
    assert block is not None
    block[:] = b"\xff" * len(block)
    memory.give_back([block])
    value = [noise(MIB + 1), noise(MIB + 5), noise(MIB + 3)]
    tree = held(value, tmp_path / "held", HeldTrees(tmp_path, memory))
    assert bytes(tree.view(0, tree.size)) == written(value, tmp_path / "file")


def test_without_room_the_file_is_written(tmp_path: Path) -> None:
    trees = HeldTrees(tmp_path, SnapshotMemory(lambda: 0))
    with holding(trees):
        write_tree(noise(MIB), tmp_path / "model", held=True)
    assert trees.find(tmp_path / "model") is None
    assert np.array_equal(read_tree(tmp_path / "model"), noise(MIB))


def test_only_so_much_is_copied_but_more_is_shared(tmp_path: Path, memory: SnapshotMemory) -> None:
    trees = HeldTrees(tmp_path, memory, most_copied=3 * MIB)
    with holding(trees):
        for number in range(3):
            write_tree(noise(2 * MIB), tmp_path / f"copied{number}", held=True)
            write_tree(Unchanging(noise(8 * MIB)), tmp_path / f"shared{number}", held=True)
    found = {path.name for path in tmp_path.iterdir() if trees.find(path) is not None}
    assert found == {"copied0", "shared0", "shared1", "shared2"}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of what is tested here
def test_a_child_does_not_change_what_its_parent_holds(tmp_path: Path, memory: SnapshotMemory) -> None:
    trees = HeldTrees(tmp_path, memory)
    tree = held(noise(2 * MIB), tmp_path / "held", trees)
    before = bytes(tree.view(0, tree.size))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            trees.release()
            again = HeldTrees(tmp_path, memory)
            held(noise(2 * MIB, 1), tmp_path / "child", again)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(tree.view(0, tree.size)) == before


def test_who_packs_a_stub_and_removes_it_is_refused(tmp_path: Path, trees: HeldTrees) -> None:
    """The archive would hold 24 bytes instead of the tree."""
    held(noise(MIB), tmp_path / "member", trees)
    trees.check_complete()
    with holding(trees):
        write_tree(noise(MIB), tmp_path / "other", held=True)
    shutil.make_archive(str(tmp_path / "packed"), "tar", tmp_path, "other")
    (tmp_path / "other").unlink()
    for path in tmp_path.iterdir():
        trees.find(path)
    with pytest.raises(UnsupportedTypeError, match=r"'other' was held in memory .* within real_files\(\)"):
        trees.check_complete()


@pytest.mark.parametrize("again", [noise(MIB), noise(10)])
def test_a_tree_that_is_written_anew_or_renamed_is_not_missed(
    tmp_path: Path, trees: HeldTrees, again: NDArray[np.uint8]
) -> None:
    with holding(trees):
        write_tree(noise(MIB), tmp_path / "renamed", held=True)
        write_tree(noise(MIB, 1), tmp_path / "twice", held=True)
        (tmp_path / "twice").unlink()
        write_tree(again, tmp_path / "twice", held=True)
    (tmp_path / "renamed").rename(tmp_path / "name")
    for path in tmp_path.iterdir():
        trees.find(path)
    trees.check_complete()
    assert np.array_equal(read_tree(tmp_path / "twice"), again)


def test_real_files_are_written_where_somebody_asks_for_them(tmp_path: Path, trees: HeldTrees) -> None:
    with holding(trees):
        with real_files():
            write_tree(noise(MIB), tmp_path / "file", held=True)
        write_tree(noise(MIB), tmp_path / "held", held=True)
    assert trees.find(tmp_path / "file") is None
    assert trees.find(tmp_path / "held") is not None


def test_no_stub_is_left_where_a_path_leads_out_of_the_snapshot(tmp_path: Path, memory: SnapshotMemory) -> None:
    folder, outside = tmp_path / "state", tmp_path / "keep"
    folder.mkdir()
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    with holding(HeldTrees(folder, memory)):
        write_tree(noise(MIB), folder / ".." / "keep" / "a.tree", held=True)
        write_tree(noise(MIB), folder / "link" / "b.tree", held=True)
    assert [path.stat().st_size > MIB for path in outside.iterdir()] == [True, True]


def test_what_is_asked_of_a_file_is_answered_for_a_stub(tmp_path: Path, trees: HeldTrees) -> None:
    with holding(trees):
        write_tree([noise(MIB), {1}.__len__], tmp_path / "held", allow_pickle=True, held=True)
    write_tree([noise(MIB), {1}.__len__], tmp_path / "file", allow_pickle=True)
    assert holds_pickle(tmp_path / "held") is holds_pickle(tmp_path / "file") is True
    assert segment_boundaries(tmp_path / "held") == segment_boundaries(tmp_path / "file")
    assert is_stub(tmp_path / "held")
    assert not is_stub(tmp_path / "file")


def test_a_tree_that_was_given_back_can_not_be_read(tmp_path: Path, trees: HeldTrees) -> None:
    tree = held(noise(MIB), tmp_path / "held", trees)
    trees.release()
    with pytest.raises(FormatError, match="a save, which is over"):
        tree.view(0, 100)


@pytest.mark.parametrize(
    "value", [[1, 2], torch.zeros(3), np.ma.masked_array([1, 2], [False, True]), np.array([object()])]
)
def test_only_arrays_of_numbers_are_unchanging(tmp_path: Path, value: object) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"\['x'\]"):
        write_tree({"x": Unchanging(value)}, tmp_path / "file")  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_unchanging_array_is_stored_as_what_it_is(tmp_path: Path, order: str) -> None:
    array = np.asarray(np.arange(600.0).reshape(20, 30), order=order)  # type: ignore[call-overload]
    for value in (array, array[::2, ::-1], array[:0], np.array(3.0)):
        write_tree(Unchanging(value), tmp_path / "wrapped")
        write_tree(value, tmp_path / "bare")
        assert (tmp_path / "wrapped").read_bytes() == (tmp_path / "bare").read_bytes()

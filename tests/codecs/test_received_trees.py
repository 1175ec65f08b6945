"""Tree files that are received into memory read as the files that they stand for."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from statevault.codecs import digest, holds_pickle, read_tree, segment_boundaries, write_tree
from statevault.codecs.tree.received import ReceivedTree
from statevault.codecs.tree.stubs import is_stub
from statevault.errors import CorruptStateError, FormatError, PickleNotAllowedError, StateVaultError

MIB = 1024**2


def noise(size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def received(content: bytes, path: Path) -> ReceivedTree:
    tree = ReceivedTree(len(content))
    tree.memory[:] = content
    tree.complete(lambda memory: digest(memory) == digest(content))
    path.write_bytes(tree.stub)
    return tree


def received_tree(value: object, folder: Path, *, allow_pickle: bool = False) -> ReceivedTree:
    """``folder / "tree"``, and ``folder / "file"`` beside it, which is a real one."""
    write_tree(value, folder / "file", allow_pickle=allow_pickle)
    return received((folder / "file").read_bytes(), folder / "tree")


@pytest.mark.parametrize("mapped", [False, True])
def test_it_reads_as_the_file_does(tmp_path: Path, mapped: bool) -> None:
    shared = torch.randn(60_000)
    value = {
        "large": noise(MIB),
        "small": noise(10),
        "tensor": torch.randn(300, 200, dtype=torch.bfloat16),
        "views": [shared, shared[5:]],
        "empty": np.zeros(0),
        "text": "x" * 100_000,
        "bytes": b"x" * 100_000,
    }
    tree = received_tree(value, tmp_path)
    got, expected = read_tree(tmp_path / "tree", mapped=mapped), read_tree(tmp_path / "file", mapped=mapped)
    for name in ("large", "small", "empty"):
        assert np.array_equal(got[name], expected[name])
        assert got[name].flags.writeable
    assert torch.equal(got["tensor"], expected["tensor"])
    got["views"][0][5] = 7.0
    assert got["views"][1][0] == 7.0
    assert (got["text"], got["bytes"]) == (value["text"], value["bytes"])
    memory = np.frombuffer(tree.memory, np.uint8)
    assert np.shares_memory(got["large"], memory) is mapped
    assert not np.shares_memory(got["small"], memory)


def test_it_is_cut_and_looked_at_as_the_file_is(tmp_path: Path) -> None:
    tree = received_tree([noise(MIB), noise(70_000)], tmp_path)
    assert is_stub(tmp_path / "tree")
    assert segment_boundaries(tmp_path / "tree") == segment_boundaries(tmp_path / "file")
    assert not holds_pickle(tmp_path / "tree")
    tree.release()
    tree = received_tree([noise(MIB), object], tmp_path, allow_pickle=True)
    assert holds_pickle(tmp_path / "tree")
    with pytest.raises(PickleNotAllowedError):
        read_tree(tmp_path / "tree")


def test_it_can_be_read_again_unless_what_it_gave_out_was_changed(tmp_path: Path) -> None:
    tree = received_tree(noise(MIB), tmp_path)
    own = read_tree(tmp_path / "tree")
    own[:] = 0  # nobody else's
    first = read_tree(tmp_path / "tree", mapped=True)
    second = read_tree(tmp_path / "tree", mapped=True)
    assert np.array_equal(second, noise(MIB))
    second[:] = 0  # nobody else's, as with a file
    assert np.array_equal(first, noise(MIB))
    first[0] += 1
    for mapped in (False, True):
        with pytest.raises(FormatError, match=r"tree: somebody has read the file with mapped=True and has changed"):
            read_tree(tmp_path / "tree", mapped=mapped)
    first[0] -= 1
    assert np.array_equal(read_tree(tmp_path / "tree"), noise(MIB))
    tree.release()


def test_a_read_under_way_is_neither_changed_nor_cut_off(tmp_path: Path) -> None:
    tree = received_tree(noise(MIB), tmp_path)
    with tree.reading(mapped=False) as source:
        mapped = read_tree(tmp_path / "tree", mapped=True)
        mapped[:] = 0
        assert bytes(source.read(0, source.size)) == (tmp_path / "file").read_bytes()
        tree.release()
        assert bytes(source.read(0, source.size)) == (tmp_path / "file").read_bytes()
        forgotten = tree.memory[:]
    assert not any(forgotten)
    with pytest.raises(FormatError, match="a load, which is over"), tree.reading(mapped=False):
        pass


def test_a_child_process_keeps_nothing_of_it(tmp_path: Path) -> None:
    tree = received_tree(noise(MIB), tmp_path)
    ours = tree.memory[:]
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(FormatError):
            status = 2 if any(ours) else 0
            read_tree(tmp_path / "tree")
            status = 3
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(read_tree(tmp_path / "tree"), noise(MIB))
    tree.release()


def test_memory_that_is_locked_is_released_as_well() -> None:
    code = """
import ctypes, sys
from statevault.codecs.tree.received import ReceivedTree
MCL_FUTURE = 2
try:
    assert ctypes.CDLL(None).mlockall(MCL_FUTURE) == 0
    tree = ReceivedTree(2**20)
except (AssertionError, OSError):
    sys.exit(77)
tree.release()
"""
    status = subprocess.run([sys.executable, "-c", code], check=False).returncode
    if status == 77:
        pytest.skip("this user may not lock so much memory")
    assert status == 0


def test_what_was_read_outlives_it_and_nothing_else_does(tmp_path: Path) -> None:
    tree = received_tree({"large": noise(MIB), "small": noise(100)}, tmp_path)
    memory = weakref.ref(tree.memory.obj)
    value = read_tree(tmp_path / "tree", mapped=True)
    tree.release()
    with pytest.raises(FormatError, match="held in memory for a save or a load, which is over"):
        read_tree(tmp_path / "tree")
    value["large"][:] += 1
    assert np.array_equal(value["large"], noise(MIB) + np.uint8(1))
    small = value["small"]
    del value
    gc.collect()
    assert memory() is None
    assert np.array_equal(small, noise(100))


def test_what_nobody_has_read_is_given_back_at_once(tmp_path: Path) -> None:
    tree = received_tree(noise(MIB), tmp_path)
    read_tree(tmp_path / "tree")  # which copies
    forgotten = tree.memory[:]
    tree.release()
    tree.release()
    assert not any(forgotten)  # what is not there reads as zeros


def test_a_stub_that_is_moved_or_copied_stands_for_it_as_well(tmp_path: Path) -> None:
    tree = received_tree(noise(MIB), tmp_path)
    shutil.copy(tmp_path / "tree", tmp_path / "copy")
    (tmp_path / "tree").rename(tmp_path / "moved")
    for name in ("copy", "moved"):
        assert np.array_equal(read_tree(tmp_path / name), noise(MIB))
    tree.release()


def test_what_is_no_tree_fails_as_a_file_does(tmp_path: Path) -> None:
    write_tree(noise(MIB), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for content in (b"x" * MIB, whole[:-1], whole + b"x", whole[:20], whole[:10] + b"?" + whole[11:]):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises((FormatError, CorruptStateError)) as of_file:
            read_tree(tmp_path / "file")
        tree = received(content, tmp_path / "tree")
        with pytest.raises(StateVaultError) as of_tree:
            read_tree(tmp_path / "tree", mapped=True)
        assert type(of_tree.value) is type(of_file.value)
        tree.release()

"""Tree files on disk: replacing, reading, boundaries, flags."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from statevault.codecs import (
    decode_tree,
    digest,
    encode_tree,
    holds_pickle,
    pickle_policy,
    read_tree,
    save_pickle,
    segment_boundaries,
    write_tree,
)
from statevault.errors import CorruptStateError, FormatError
from tests.codecs.corpus import ARRAYS, PLAIN_VALUES, training_state
from tests.codecs.same import assert_same


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("value", [training_state(), ARRAYS, PLAIN_VALUES, [np.zeros(50_000), bytes(200_000)]])
def test_a_file_comes_back(tmp_path: Path, value: Any, mapped: bool) -> None:
    write_tree(value, tmp_path / "x.tree")
    assert_same(read_tree(tmp_path / "x.tree", mapped=mapped), value)


def test_the_file_is_what_encode_tree_makes(tmp_path: Path) -> None:
    write_tree(training_state(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"".join(encode_tree(training_state()))


def test_paths_may_be_strings(tmp_path: Path) -> None:
    write_tree([1], f"{tmp_path}/x")
    assert read_tree(f"{tmp_path}/x") == [1]


def test_an_existing_file_survives_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "x.tree"
    write_tree("old", path)
    with pytest.raises(TypeError):
        write_tree(object(), path)
    assert read_tree(path) == "old"
    write_tree("new", path)
    assert read_tree(path) == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tree"]


def test_a_reader_with_a_mapping_does_not_see_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "x.tree"
    write_tree(np.zeros(100_000), path)
    old = read_tree(path, mapped=True)
    write_tree(np.ones(100_000), path)
    assert (old == 0).all()


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_tree(1, tmp_path / "no" / "x")
    with pytest.raises(FileNotFoundError):
        read_tree(tmp_path / "no")


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.tree"
    path.write_bytes(b"hello")
    with pytest.raises(FormatError, match=r"policy\.tree"):
        read_tree(path)
    write_tree(torch.zeros(1000), path)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CorruptStateError, match=r"policy\.tree"):
        read_tree(path)


def test_segments_begin_at_the_boundaries(tmp_path: Path) -> None:
    path = tmp_path / "x"
    arrays = [np.full(600 + i, i, dtype="u1") for i in range(5)]
    write_tree({"a": arrays, "small": np.zeros(3)}, path)
    boundaries = segment_boundaries(path)
    data = path.read_bytes()
    assert boundaries is not None
    assert all(offset % 64 == 0 for offset in boundaries)
    assert [data[offset : offset + 600] for offset in boundaries] == [bytes([i]) * 600 for i in range(5)]
    assert segment_boundaries(data[:300]) == boundaries
    assert segment_boundaries(memoryview(data)) == boundaries


def test_growth_of_the_structure_leaves_the_pieces_between_boundaries_alone() -> None:
    tensors = [torch.full((n,), float(n)) for n in (1000, 777, 5000, 150)]

    def pieces(tree: Any) -> set[bytes]:
        data = b"".join(encode_tree(tree))
        cuts = segment_boundaries(data)
        assert cuts is not None
        return {digest(data[a:b]) for a, b in zip(cuts, [*cuts[1:], len(data)], strict=True)}

    before = pieces({"t": tensors})
    after = pieces({"more": ["x" * 300] * 77, "t": [*tensors, torch.zeros(900)], "n": 2})
    assert before < after
    assert len(after) == len(before) + 1


def test_other_files_have_no_boundaries(tmp_path: Path) -> None:
    path = tmp_path / "x"
    good = b"".join(encode_tree(torch.zeros(1000)))
    for data in (b"", b"\x89SVTREE\n", b"text", good[:-1], good + b"x", good[:12] + b"\xff" * 20 + good[32:]):
        path.write_bytes(data)
        assert segment_boundaries(path) is None
    assert segment_boundaries(b"".join(encode_tree([1, 2]))) == []


def test_files_with_pickles_are_told_apart(tmp_path: Path) -> None:
    write_tree([1], tmp_path / "plain.tree")
    write_tree([Path], tmp_path / "odd.tree", allow_pickle=True)
    save_pickle([1], tmp_path / "p.pkl")
    torch.save({"a": torch.zeros(3)}, tmp_path / "m.pt")
    (tmp_path / "t.txt").write_text("text")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "b").write_bytes(b"\x80\x04 no pickle")
    (tmp_path / "z").write_bytes(b"PK\x03\x04 no archive")
    found = {entry.name for entry in tmp_path.iterdir() if holds_pickle(entry)}
    assert found == {"odd.tree", "p.pkl", "m.pt"}


def test_a_policy_records_the_files_with_pickles(tmp_path: Path) -> None:
    with pickle_policy(allowed=True) as policy:
        write_tree([1], tmp_path / "plain.tree")
        write_tree([Path], tmp_path / "odd.tree")
    assert policy.written == {tmp_path / "odd.tree"}


def test_decoding_copies(tmp_path: Path) -> None:
    data = bytearray(b"".join(encode_tree(np.zeros(1000, "u1"))))
    loaded = decode_tree(data)
    data[:] = b"\xff" * len(data)
    assert (loaded == 0).all()


LIGHT = """
import sys
import statevault.codecs as codecs
codecs.decode_tree(b"".join(codecs.encode_tree({"a": [1, (2, b"x" * 5000)]})))
heavy = {"numpy", "torch", "pydantic", "fsspec"} & set(sys.modules)
assert not heavy, heavy
"""


def test_numpy_and_torch_are_imported_only_when_needed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, timeout=600)
    write_tree(np.zeros(5), tmp_path / "x")
    code = (
        f"import sys, statevault.codecs as c; c.read_tree({str(tmp_path / 'x')!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_public_names_are_there_and_sorted() -> None:
    from statevault import codecs

    assert sorted(codecs.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)) == codecs.__all__
    assert all(hasattr(codecs, name) for name in codecs.__all__)


def test_a_tree_file_is_smaller_than_pickle_or_close() -> None:
    state = training_state()
    assert encode_tree(state).size < len(pickle.dumps(state, protocol=5)) * 1.1

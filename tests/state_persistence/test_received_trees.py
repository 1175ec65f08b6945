"""Large trees are received into memory when a state is loaded: the same values, and nothing of them in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typing_extensions import override

from statevault.codecs.tree.stubs import is_stub
from statevault.errors import CorruptStateError, StateVaultError
from statevault.format.manifest import ENCODING_PLAIN, ENCODING_ZSTD, Chunk, FileEntry
from statevault.state_persistence import PersistentStateMixin, StateStore, read_tree, write_tree
from statevault.state_persistence.restore.reads import Piece, Read, place_of, plan_reads
from statevault.state_persistence.snapshot import staging as staging_module
from tests.state_persistence.storages import DictStorage

MIB = 1024**2


class Arrays(PersistentStateMixin):
    """Arrays in a tree that may be held, and a small file beside it."""

    def __init__(self, *arrays: NDArray[Any], mapped: bool = True) -> None:
        self.arrays = list(arrays)
        self.mapped = mapped
        self.looked: Callable[[Path], object] = lambda path: None
        self.loads = 0

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        write_tree(self.arrays, path / "arrays.tree", held=True)
        (path / "note.txt").write_text("small")

    @override
    def load_state(self, path: Path) -> None:
        self.loads += 1
        self.looked(path)
        self.arrays = [array.copy() for array in read_tree(path / "arrays.tree", mapped=self.mapped)]
        assert (path / "note.txt").read_text() == "small"


def noise(seed: int, size: int = 3 * MIB) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def saved(storage: DictStorage, component: PersistentStateMixin, **options: bool) -> str:
    with StateStore(storage, **options) as store:  # type: ignore[arg-type]
        store.register("arrays", component)
        return store.save_state().name


def load(storage: DictStorage, component: PersistentStateMixin, name: str = "latest") -> None:
    with StateStore(storage) as store:
        store.register("arrays", component)
        store.load_state(name)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_large_tree_needs_no_room_in_a_folder(mapped: bool) -> None:
    storage, new = DictStorage(), Arrays(mapped=mapped)
    saved(storage, Arrays(noise(0), np.zeros(2 * MIB, np.uint8), noise(1, 10)))
    sizes = {}
    new.looked = lambda path: sizes.update({file.name: file.stat().st_size for file in path.iterdir()})
    load(storage, new)
    assert sizes["arrays.tree"] < 100
    assert sizes["note.txt"] == 5
    assert all(map(np.array_equal, new.arrays, [noise(0), np.zeros(2 * MIB, np.uint8), noise(1, 10)]))


def test_only_what_was_saved_for_it_is_received_into_memory() -> None:
    class Real(Arrays):
        @override
        def save_state(self, path: Path) -> None:
            path.mkdir()
            write_tree(self.arrays, path / "arrays.tree")
            (path / "note.txt").write_text("small")

    storage, new = DictStorage(), Arrays()
    saved(storage, Real(noise(0)))
    stubs = []
    new.looked = lambda path: stubs.append(is_stub(path / "arrays.tree"))
    load(storage, new)
    assert stubs == [False]
    assert np.array_equal(new.arrays[0], noise(0))
    with StateStore(storage) as store:
        assert [file.may_be_held for file in store.open_state().manifest.files] == [False, False]


def test_a_copy_of_the_state_may_be_held_as_well_and_an_export_is_real(tmp_path: Path) -> None:
    storage, other = DictStorage(), DictStorage()
    name = saved(storage, Arrays(noise(0)))
    with StateStore(storage) as store, StateStore(other) as copies:
        store.copy_states(copies)
        assert {file.path: file.may_be_held for file in copies.open_state().manifest.files} == {
            "arrays/arrays.tree": True,
            "arrays/note.txt": False,
        }
        reader = store.open_state(name)
        reader.restore(reader.manifest.files, lambda file: tmp_path / file.path)
    assert np.array_equal(read_tree(tmp_path / "arrays" / "arrays.tree")[0], noise(0))


@pytest.mark.parametrize("short", ["of memory", "for one of two"])
def test_where_memory_is_short_it_is_written_into_a_folder(monkeypatch: pytest.MonkeyPatch, short: str) -> None:
    storage, first, second = DictStorage(), Arrays(noise(0)), Arrays(noise(1))
    with StateStore(storage) as store:
        store.register("first", first)
        store.register("second", second)
        store.save_state()
        room = {"of memory": 2 * MIB, "for one of two": 5 * MIB}[short]
        monkeypatch.setattr(staging_module, "available_memory", lambda: 2 * room)
        stubs = []
        for component in (first, second):
            component.looked = lambda path: stubs.append(is_stub(path / "arrays.tree"))
            component.arrays = []
        store.load_state()
    assert stubs == [short == "for one of two", False]
    assert np.array_equal(first.arrays[0], noise(0))
    assert np.array_equal(second.arrays[0], noise(1))


def test_whoever_stages_on_a_disk_holds_little_in_memory(tmp_path: Path) -> None:
    storage, small, large = DictStorage(), Arrays(noise(0)), Arrays(noise(1, 70 * MIB))
    with StateStore(storage) as store:
        store.register("large", large)
        store.register("small", small)
        store.save_state()
    stubs = []
    with StateStore(storage, staging_dir=tmp_path) as store:
        for name, component in (("large", large), ("small", small)):
            component.looked = lambda path: stubs.append(is_stub(path / "arrays.tree"))
            store.register(name, component)
        store.load_state()
    assert stubs == [False, True]


@pytest.mark.parametrize("place", [0, 1000, 2 * MIB, -1])
def test_a_damaged_byte_is_found_before_a_component_is_touched(place: int) -> None:
    storage, new = DictStorage(), Arrays()
    saved(storage, Arrays(noise(0)))
    (key,) = (key for key in storage.objects if "arrays.tree" in key)
    damaged = bytearray(storage.objects[key])
    damaged[place] ^= 1
    storage.objects[key] = bytes(damaged)
    with pytest.raises(CorruptStateError):
        load(storage, new)
    assert new.loads == 0


def test_nothing_is_held_when_the_load_is_over(tmp_path: Path) -> None:
    storage, new = DictStorage(), Arrays()
    saved(storage, Arrays(noise(0)))
    new.looked = lambda path: shutil.copy(path / "arrays.tree", tmp_path / "kept.tree")
    load(storage, new)
    with pytest.raises(StateVaultError, match="which is over"):
        read_tree(tmp_path / "kept.tree")


def test_a_damaged_state_leaves_the_memory_to_the_next_older_one() -> None:
    storage, component = DictStorage(), Arrays(noise(0, 128 * MIB))
    with StateStore(storage, incremental=False) as store:
        store.register("arrays", component)
        store.save_state(name="old.state")
        store.save_state(name="new.state")
    damaged = bytearray(storage.objects["new.state/arrays/arrays.tree"])
    damaged[-1] ^= 1
    storage.objects["new.state/arrays/arrays.tree"] = bytes(damaged)
    del damaged
    with StateStore(storage) as store:
        store.register("arrays", component)
        component.arrays = []
        anonymous = []
        component.looked = lambda path: anonymous.append(resident_anonymous())
        before = resident_anonymous()
        store.load_state()
    assert np.array_equal(component.arrays[0], noise(0, 128 * MIB))
    # Of one state, and what threads and the allocator take beside it; not of both.
    assert anonymous[0] - before < 224 * MIB


def resident_anonymous() -> int:
    """Bytes of memory of this process that no file backs."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def made(size: int, kind: str, seed: int) -> NDArray[Any]:
    if kind == "floats":
        return np.random.default_rng(seed).normal(size=size // 4).astype(np.float32)
    return noise(seed, size) if kind == "noise" else np.zeros(size, np.uint8)


sizes = st.sampled_from([0, 100, 70_000, MIB, MIB + 1, 2 * MIB + 77])
kinds = st.sampled_from(["noise", "zeros", "floats"])


@given(
    st.lists(st.tuples(sizes, kinds, st.integers(0, 2)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3 * MIB), st.integers(1, 70_000)), max_size=4),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_whatever_is_saved_in_whatever_chunks_comes_back(
    parts: list[tuple[int, str, int]], changes: list[tuple[int, int, int]], shrink: bool, mapped: bool
) -> None:
    """Chunks that are plain, compressed and shuffled, of this state and of the one before, in any order."""
    arrays = [made(size, kind, seed) for size, kind, seed in parts]
    storage, component = DictStorage(), Arrays(*arrays)
    with StateStore(storage, shrink=shrink) as store:
        store.register("arrays", component)
        store.save_state(name="first.state")
        first = [array.copy() for array in component.arrays]
        for number, start, length in changes:
            flat = component.arrays[number % len(arrays)].view(np.uint8)
            flat[start : start + length] ^= 255
        store.save_state(name="second.state")
        second = [array.copy() for array in component.arrays]
        for name, expected in (("first.state", first), ("second.state", second)):
            component.arrays, component.mapped = [], mapped
            store.load_state(name)
            assert len(component.arrays) == len(expected)
            for got, wanted in zip(component.arrays, expected, strict=True):
                assert got.dtype == wanted.dtype
                assert got.tobytes() == wanted.tobytes()


def piece(offset: int, at: int, size: int, *, path: str = "a", encoding: int = ENCODING_PLAIN) -> Piece:
    return Piece(path, offset, Chunk(0, at, size, size, bytes(32), encoding))


MEMORY = {"a": memoryview(bytearray(range(100))), "b": memoryview(bytearray(100))}


def test_what_comes_in_the_order_of_the_file_is_received_in_place() -> None:
    place = place_of(Read(0, 50, 80, [piece(10, 50, 20), piece(30, 70, 10)]), MEMORY)
    assert place is not None
    assert bytes(place) == bytes(range(10, 40))


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(10, 50, 20), piece(30, 71, 10)],  # something else lies in between, which is not of this place
        [piece(10, 50, 20), piece(40, 70, 10)],  # what belongs in between lies elsewhere
        [piece(30, 50, 10), piece(10, 60, 20)],  # in another order
        [piece(10, 50, 20), piece(30, 50, 20)],  # the same bytes, in two places
        [piece(10, 50, 20), piece(30, 70, 10, path="b")],
        [piece(10, 50, 20), piece(30, 70, 10, encoding=ENCODING_ZSTD)],
        [piece(10, 50, 20, path="elsewhere")],
    ],
)
def test_what_does_not_is_received_elsewhere(pieces: list[Piece]) -> None:
    assert place_of(Read(0, 50, 100, pieces), MEMORY) is None


def test_each_byte_is_asked_for_once() -> None:
    chunks = [Chunk(0, at, 10, 10, bytes(32), ENCODING_PLAIN) for at in (0, 10, 20, 500_000)]
    file = FileEntry(0, "a", 40, 0, chunks)
    assert [(read.start, read.end, len(read.pieces)) for read in plan_reads([file])] == [
        (0, 30, 3),
        (500_000, 500_010, 1),
    ]

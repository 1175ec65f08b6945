"""What a buffer shares with the states it was saved in: their memory, their digests, their bytes in the store."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from statevault.codecs import Unchanging, decode_tree, encode_tree
from statevault.codecs.snapshot_memory import SnapshotMemory
from statevault.codecs.tree import held
from statevault.codecs.tree.held import HeldTrees, holding
from statevault.data.columns import Column
from statevault.data.impls import RandomReplacementBuffer, SequentialBuffer
from statevault.state_persistence import PersistentStateMixin, StateStore, read_tree
from tests.state_persistence.storages import DictStorage

MIB = 1024**2
KIB = 1024
ROW = 1000


def row(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, ROW, dtype=np.uint8)


def pieces(column: Column) -> list[Unchanging]:
    rows = [segment["rows"] for segment in column.record()["segments"]]
    return [piece for each in rows for piece in (each if isinstance(each, list) else [each])]


def column_of(count: int) -> Column:
    column = Column(max_rows=100_000)
    column.extend([row(seed) for seed in range(count)])
    return column


def test_what_was_saved_of_a_segment_that_grows_stays_a_piece() -> None:
    column = column_of(100)
    (first,) = pieces(column)
    column.extend([row(seed) for seed in range(100, 300)])
    again, second = pieces(column)
    assert again.digests is first.digests
    assert np.shares_memory(again.array, first.array)
    assert np.array_equal(np.concatenate([again.array, second.array]), np.stack([row(seed) for seed in range(300)]))


def test_nothing_new_makes_no_new_piece() -> None:
    column = column_of(100)
    (first,) = pieces(column)
    (again,) = pieces(column)
    assert again.digests is first.digests


def test_few_rows_become_part_of_the_next_piece() -> None:
    """However often a segment is saved while it grows, it has no more pieces than its bytes are worth."""
    column = column_of(0)
    for number in range(1000):
        column.append(row(number))
        found = pieces(column)
    sizes = [piece.array.nbytes for piece in found]
    assert sum(sizes) == 1000 * ROW
    assert len(sizes) <= 1000 * ROW // (64 * KIB) + 1
    assert all(size >= 64 * KIB for size in sizes[:-1])


def test_a_replaced_row_makes_only_its_piece_unknown() -> None:
    column = column_of(100)
    for end in (200, 300):
        before = pieces(column)
        column.extend([row(seed) for seed in range(end - 100, end)])
    before = pieces(column)
    for piece in before:
        piece.digests[0, 10] = b"known"
    column.replace(150, row(1000))
    after = pieces(column)
    assert [a.digests is b.digests for a, b in zip(after, before, strict=True)] == [True, False, True]
    assert after[1].digests == {}
    assert before[1].digests == {(0, 10): b"known"}
    assert np.array_equal(before[1].array[50], row(150))
    assert np.array_equal(after[1].array[50], row(1000))
    column.replace(299, row(1001))
    assert pieces(column)[2].digests == {}


def test_a_loaded_column_saves_the_same_pieces_and_grows_on() -> None:
    column = column_of(100)
    for end in (200, 300):
        pieces(column)
        column.extend([row(seed) for seed in range(end - 100, end)])
    record = column.record()
    loaded = Column(max_rows=100_000)
    loaded.restore(decode_tree(b"".join(encode_tree(record))))
    assert [piece.array.tobytes() for piece in pieces(loaded)] == [piece.array.tobytes() for piece in pieces(column)]
    loaded.extend([row(seed) for seed in range(300, 500)])
    assert len(pieces(loaded)) == 4
    assert len(loaded.record()["segments"]) == 1
    assert np.array_equal(np.stack(loaded.items()), np.stack([row(seed) for seed in range(500)]))


def test_values_of_another_kind_leave_the_pieces_of_the_segment_before() -> None:
    column = column_of(300)
    first = pieces(column)
    column.append(np.zeros(3))
    again = pieces(column)
    assert again[0].digests is first[0].digests
    assert again[0].array.tobytes() == first[0].array.tobytes()


class Part(PersistentStateMixin):
    """A buffer in a store."""

    def __init__(self, buffer: SequentialBuffer[Any] | RandomReplacementBuffer[Any]) -> None:
        self.buffer = buffer

    @override
    def save_state(self, path: Path) -> None:
        self.buffer.save_state(path)

    @override
    def load_state(self, path: Path) -> None:
        self.buffer.load_state(path)


@pytest.mark.parametrize("count", [10, 100, 1000, 3000])
def test_a_save_sends_what_was_added_and_little_more(tmp_path: Path, count: int) -> None:
    buffer: SequentialBuffer[Any] = SequentialBuffer(max_size=100_000)
    buffer.extend([row(seed) for seed in range(5_000)])
    with StateStore(tmp_path / "states") as store:
        store.register("buffer", Part(buffer))
        store.save_state()
        for number in range(5):
            buffer.extend([row(10_000 + number * count + seed) for seed in range(count)])
            info = store.info(store.save_state().name)
            # Again: the structure of the file, and pieces of less than 64 KiB at the end of the last two segments.
            assert count * ROW < info.new_size < 1.01 * count * ROW + 2 * 64 * KIB + 16 * KIB
        loaded: SequentialBuffer[Any] = SequentialBuffer(max_size=100_000)
    with StateStore(tmp_path / "states") as store:
        store.register("buffer", Part(loaded))
        store.load_state()
        assert np.array_equal(np.stack(loaded.get_data()), np.stack(buffer.get_data()))
        store.save_state()
        assert store.info("latest").new_size < 64 * KIB


def test_snapshots_share_the_memory_of_a_buffer(tmp_path: Path) -> None:
    buffer: SequentialBuffer[Any] = SequentialBuffer(max_size=100_000)
    buffer.extend([row(seed) for seed in range(20_000)])
    trees = HeldTrees(tmp_path, SnapshotMemory(lambda: 1 << 40))
    with holding(trees):
        buffer.save_state(tmp_path / "buffer")
    assert trees.copied < 20 * KIB
    assert len(read_tree(tmp_path / "buffer.tree")["columns"][0]["segments"]) == 20


def test_who_changes_a_tensor_that_was_handed_out_damages_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is forbidden, but torch can't enforce it; and the digest of a chunk is taken long before it is sent."""
    buffer: SequentialBuffer[Any] = SequentialBuffer(max_size=10_000)
    buffer.extend([torch.full((ROW,), float(seed)) for seed in range(2000)])
    handed_out = buffer.get_data()
    with StateStore(tmp_path / "states") as store:
        store.register("buffer", Part(buffer))
        put, count = store._storage.put, 0

        def meddling(*args: Any, **options: Any) -> int:
            nonlocal count
            count += 1
            for tensor in handed_out:
                tensor.add_(1)
            return put(*args, **options)

        monkeypatch.setattr(store._storage, "put", meddling)
        for number in range(3):
            buffer.add(torch.full((ROW,), float(number)))
            store.save_state()
        assert count > 6
        monkeypatch.undo()
        for info in store.states():
            store.verify(info.name)
        store.load_state()


@settings(max_examples=25, stateful_step_count=30, deadline=None)
class BuffersAndStates(RuleBasedStateMachine):
    """Any use of a buffer between saves: each state holds exactly what the buffer held then."""

    def __init__(self) -> None:
        super().__init__()
        self.source = random.Random(0)
        self.number = 0
        self.states: list[tuple[str, list[bytes]]] = []

    @initialize(replacing=st.booleans(), size=st.sampled_from([50, 700, 3000]))
    def begin(self, replacing: bool, size: int) -> None:
        self.replacing, self.size = replacing, size
        # Small trees too.
        self.held_from = patch.object(held, "_LARGE", 1)
        self.held_from.start()
        self.buffer = self.new_buffer()
        self.store = StateStore(DictStorage())
        self.part = Part(self.buffer)
        self.store.register("buffer", self.part)

    def new_buffer(self) -> Any:
        if self.replacing:
            return RandomReplacementBuffer(max_size=self.size, replace_probability=0.3, seed=0)
        return SequentialBuffer(max_size=self.size)

    def content(self) -> list[bytes]:
        return [np.asarray(value).tobytes() for value in self.part.buffer.get_data()]

    @rule(count=st.sampled_from([1, 7, 100, 600]))
    def add(self, count: int) -> None:
        self.part.buffer.extend([row(self.number + i) for i in range(count)])
        self.number += count

    @rule()
    def save(self) -> None:
        self.states.append((self.store.save_state().name, self.content()))

    @rule()
    def save_while_it_changes(self) -> None:
        content = self.content()
        saved = self.store.save_state_async()
        self.add(100)
        self.states.append((saved.result().name, content))

    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        if self.states:
            name, content = data.draw(st.sampled_from(self.states))
            if data.draw(st.booleans()):
                self.part.buffer = self.new_buffer()
            self.store.load_state(name)
            assert self.content() == content

    @invariant()
    def the_newest_state_is_whole(self) -> None:
        if self.states:
            self.store.verify(self.states[-1][0])

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.held_from.stop()
            for name, content in self.states:
                self.part.buffer = self.new_buffer()
                self.store.load_state(name)
                assert self.content() == content
            self.store.close()


TestBuffersAndStates = BuffersAndStates.TestCase

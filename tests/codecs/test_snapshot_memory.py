"""Memory that has served is used again, and not more of it is kept than is of use."""

from __future__ import annotations

import mmap
import random

import pytest

from statevault.codecs.snapshot_memory import SnapshotMemory

MIB = 1024**2
PLENTY = 1 << 40


def test_a_block_that_has_served_is_given_again() -> None:
    memory = SnapshotMemory(lambda: PLENTY)
    block = memory.take(5 * MIB)
    assert block is not None
    block[:4] = b"mark"
    memory.give_back([block])
    assert memory.spare_size == len(block)
    again = memory.take(5 * MIB - 1000)
    assert again is block
    assert again[:4] == b"mark"
    assert memory.spare_size == 0


@pytest.mark.parametrize("size", [3 * MIB, 9 * MIB])
def test_a_block_of_quite_another_size_is_not(size: int) -> None:
    memory = SnapshotMemory(lambda: PLENTY)
    block = memory.take(8 * MIB)
    assert block is not None
    memory.give_back([block])
    other = memory.take(size)
    assert other is not None
    assert other is not block
    assert len(other) >= size


def test_of_what_was_before_only_as_much_is_kept_as_the_last_snapshot_took() -> None:
    memory = SnapshotMemory(lambda: PLENTY)
    large, small = memory.take(32 * MIB), memory.take(4 * MIB)
    assert large is not None
    assert small is not None
    memory.give_back([large])
    assert memory.spare_size == 32 * MIB
    memory.give_back([small])
    assert memory.spare_size == 4 * MIB
    assert large.closed
    memory.give_back([])
    assert memory.spare_size == 0
    assert small.closed


def short_of_memory(spare: int) -> tuple[SnapshotMemory, mmap.mmap]:
    """With a block that lies ready, when the operating system has nothing more to give."""
    available = PLENTY
    memory = SnapshotMemory(lambda: available)
    block = memory.take(spare)
    assert block is not None
    memory.give_back([block])
    available = 0
    return memory, block


def test_where_there_is_no_room_spares_go_first_and_then_nothing_is_given() -> None:
    memory, block = short_of_memory(8 * MIB)
    assert memory.take(16 * MIB) is None
    assert block.closed
    assert memory.spare_size == 0


def test_many_blocks_together_take_half_of_the_memory_at_most() -> None:
    taken: list[int] = []
    memory = SnapshotMemory(lambda: 160 * MIB - sum(taken))
    while (block := memory.take(10 * MIB)) is not None:
        taken.append(len(block))
    assert sum(taken) == 80 * MIB


def test_what_lies_ready_needs_no_room() -> None:
    memory, block = short_of_memory(8 * MIB)
    assert memory.take(8 * MIB) is block


def test_a_block_that_somebody_looks_at_is_closed_later() -> None:
    memory = SnapshotMemory(lambda: PLENTY)
    block = memory.take(8 * MIB)
    assert block is not None
    view = memoryview(block)
    memory.give_back([block])
    memory.clear()
    assert memory.spare_size == 0
    assert view[0] == 0


def test_a_limit_of_the_process_is_no_error() -> None:
    memory = SnapshotMemory(lambda: 1 << 62)
    assert memory.take(1 << 60) is None


def test_blocks_in_use_never_overlap() -> None:
    source = random.Random(1)
    memory = SnapshotMemory(lambda: PLENTY)
    used: dict[int, object] = {}
    for _ in range(300):
        if used and source.random() < 0.5:
            block = used.pop(source.choice(list(used)))
            memory.give_back([block])  # type: ignore[list-item]
        else:
            taken = memory.take(source.choice([MIB, 3 * MIB, 8 * MIB]))
            assert taken is not None
            assert id(taken) not in used
            used[id(taken)] = taken

from hypothesis import given
from hypothesis import strategies as st

from statevault.format.chunking import CHUNK_UNIT, MAX_CHUNK, chunk_unit, plan_chunks

KIB = 1024
MIB = 1024**2


@given(st.integers(0, 40 * MIB), st.lists(st.integers(0, 40 * MIB), max_size=30))
def test_chunks_cover_the_file_without_gaps(size: int, cuts: list[int]) -> None:
    boundaries = sorted({cut for cut in cuts if cut < size})
    plan = list(plan_chunks(size, boundaries))
    assert [start for start, _ in plan] == [0, *(end for _, end in plan)][: len(plan)]
    assert (plan[-1][1] if plan else 0) == size
    assert all(0 < end - start <= CHUNK_UNIT for start, end in plan)


@given(st.integers(1, 2**50))
def test_a_file_has_a_bounded_number_of_chunks_until_chunks_are_at_their_largest(size: int) -> None:
    unit = chunk_unit(size)
    assert CHUNK_UNIT <= unit <= MAX_CHUNK
    assert size <= unit * 8192 or unit == MAX_CHUNK


def test_an_empty_file_has_no_chunks() -> None:
    assert list(plan_chunks(0)) == []


def test_large_segments_begin_a_chunk_and_small_ones_do_not() -> None:
    boundaries = [128, 128 + 10 * KIB, 200 * KIB, 3 * MIB]
    starts = {start for start, _ in plan_chunks(4 * MIB, boundaries)}
    assert {200 * KIB, 3 * MIB} <= starts
    assert 128 not in starts


def test_the_chunks_of_a_tensor_do_not_move_when_what_lies_before_it_grows() -> None:
    before = [(start - 64 * KIB, end) for start, end in plan_chunks(5 * MIB, [64 * KIB]) if start >= 64 * KIB]
    grown = [
        (start - 100 * KIB, end) for start, end in plan_chunks(5 * MIB + 36 * KIB, [100 * KIB]) if start >= 100 * KIB
    ]
    assert [start for start, _ in before] == [start for start, _ in grown]

"""Bodies of puts, cut into blocks."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from statevault.storage.body import blocks, buffers, is_one_shot, known_size


@given(parts=st.lists(st.binary(max_size=40)), size=st.integers(1, 17))
def test_blocks_are_the_body_cut_in_equal_parts(parts: list[bytes], size: int) -> None:
    whole = b"".join(parts)
    expected = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert list(blocks(parts, size)) == expected
    assert list(blocks(iter(parts), size)) == expected
    assert list(blocks(whole, size)) == expected
    assert b"".join(buffers(parts)) == whole
    assert known_size(parts) == known_size(whole) == len(whole)


def test_blocks_reads_no_further_than_it_must() -> None:
    read = []

    def body() -> Iterator[bytes]:
        for number in range(10):
            read.append(number)
            yield bytes(4)

    cut = blocks(body(), 8)
    next(cut)
    assert read == [0, 1]


def test_a_block_does_not_change_when_the_source_does() -> None:
    source = bytearray(b"abcd")
    cut = blocks(source, 4)
    block = next(cut)
    source[0:1] = b"X"
    assert block == b"abcd"


def test_an_iterator_is_known_as_one_shot_and_of_unknown_size() -> None:
    assert is_one_shot(iter([b"x"]))
    assert known_size(iter([b"x"])) is None
    for body in (b"x", bytearray(b"x"), memoryview(b"x"), [b"x"], (b"x",)):
        assert not is_one_shot(body)

"""What is looked at of a large file before all of it is: one that changed all over is sent at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statevault.codecs import digest
from statevault.format import chunking
from statevault.format.chunking import plan_chunks
from statevault.format.manifest import ENCODING_PLAIN, Chunk
from statevault.state_persistence.content.local_content import LocalContent
from statevault.state_persistence.publish import file_body
from statevault.state_persistence.publish.file_body import FileBody
from statevault.state_persistence.publish.reuse import LOOKED_AT_FIRST, MANY_CHUNKS, looked_at_first
from statevault.state_persistence.snapshot.snapshot import SnapshotFile
from statevault.worker_pool import WorkerPool

KIB = 1024


@given(st.lists(st.sampled_from([1, 100, KIB - 1, KIB]), max_size=2 * MANY_CHUNKS))
def test_all_chunks_of_a_small_file_are_looked_at_and_some_of_a_large_one(sizes: list[int]) -> None:
    looked_at = looked_at_first(sizes)
    assert looked_at == sorted(set(looked_at))
    if len(sizes) < MANY_CHUNKS:
        assert looked_at == list(range(len(sizes)))
    else:
        assert 1 <= len(looked_at) <= LOOKED_AT_FIRST
        assert set(range(1, len(sizes))) >= set(looked_at)


def test_each_byte_is_as_likely_to_be_looked_at_whatever_the_size_of_its_chunk() -> None:
    large, small = [KIB] * MANY_CHUNKS, [KIB // 4] * (4 * MANY_CHUNKS)
    looked_at = [number for _ in range(200) for number in looked_at_first([1, *large, *small])]
    of_large = sum(number <= MANY_CHUNKS for number in looked_at)
    assert 0.35 < of_large / len(looked_at) < 0.6  # chunks that are hit twice count once


def test_they_are_others_each_time() -> None:
    assert len({tuple(looked_at_first([KIB] * 4096)) for _ in range(10)}) == 10


class Counted(LocalContent):
    """Counts the chunks that are hashed before anything is sent."""

    hashed = 0

    def _digest(self, *chunk: object) -> bytes:
        Counted.hashed += 1
        return super()._digest(*chunk)  # type: ignore[arg-type]


def body_of(path: Path, encoders: WorkerPool) -> FileBody:
    file = SnapshotFile(0, path.name, path, path.stat().st_size, holds_pickle=False, needs_allow_pickle=False)
    body = FileBody(file, encoders)
    body._content = Counted(path, file.size, name=path.name, encoders=encoders)
    Counted.hashed = 0
    return body


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "CHUNK_UNIT", 64)


@given(st.integers(0, 400), st.sets(st.integers(0, 399), max_size=8) | st.sets(st.integers(0, 399), min_size=100))
@settings(max_examples=60, deadline=None)
def test_either_all_that_is_known_is_found_or_nothing_that_was_looked_at(
    tmp_path_factory: pytest.TempPathFactory, count: int, unchanged: set[int]
) -> None:
    pieces = [number.to_bytes(4, "big") * 16 for number in range(count)]
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(b"".join(pieces))
    assert len(list(plan_chunks(64 * count))) == count
    unchanged = {number for number in unchanged if number < count}
    digests = [digest(piece) for piece in pieces]
    known = {digests[number]: Chunk(0, number, 64, 64, digests[number], ENCODING_PLAIN) for number in unchanged}
    first = looked_at_first([64] * count)
    with WorkerPool(2, "encode") as encoders, pytest.MonkeyPatch.context() as patched:
        patched.setattr(file_body, "looked_at_first", lambda sizes: first)
        body = body_of(path, encoders)
        found = {chunk.offset for chunk in body.find(known)}
        if unchanged.isdisjoint(first):
            assert found == set()
            assert Counted.hashed == len(first)
            assert body.size == 64 * count
        else:
            assert found == unchanged
            assert Counted.hashed == count
            assert body.size == 64 * (count - len(unchanged))
        body.reuse_only({0})
        sent = b"".join(bytes(piece) for piece in body)
    assert sent == b"".join(piece for number, piece in enumerate(pieces) if number not in found)


class Known(Counted):
    """As of a copy, whose manifest says the digests."""

    digests_are_known = True


def test_where_digests_are_known_all_are_looked_at(tmp_path: Path) -> None:
    pieces = [number.to_bytes(4, "big") * 16 for number in range(400)]
    (tmp_path / "file").write_bytes(b"".join(pieces))
    known = {digest(pieces[7]): Chunk(0, 7, 64, 64, digest(pieces[7]), ENCODING_PLAIN)}
    with WorkerPool(2, "encode") as encoders:
        body = body_of(tmp_path / "file", encoders)
        body._content = Known(tmp_path / "file", 6400 * 4, name="file", encoders=encoders)
        assert [chunk.offset for chunk in body.find(known)] == [7]

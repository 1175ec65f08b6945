"""zstd frames and digests."""

from __future__ import annotations

import io
import shutil
import subprocess
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from statevault.codecs import compress_chunk, decompress_chunk, digest, digest_of_parts, worth_compressing
from statevault.codecs.compression import MAX_EXPANSION, compress_bounded, is_bounded
from statevault.errors import CorruptStateError
from tests.codecs.profiles import codec_settings

TEXT = b"the quick brown fox jumps over the lazy dog " * 3000


@codec_settings()
@given(st.binary(max_size=5000), st.sampled_from([-5, 1, 3, 9]))
def test_any_chunk_comes_back(data: bytes, level: int) -> None:
    assert decompress_chunk(compress_chunk(data, level), size=len(data)) == data


def test_buffers_of_every_kind_are_taken() -> None:
    array = np.arange(5000, dtype="<u4")
    for buffer in (array.data, array.reshape(50, 100).data, bytearray(array.tobytes()), array.tobytes()):
        frame = compress_chunk(buffer)
        assert decompress_chunk(memoryview(frame), size=20_000) == array.tobytes()
        assert digest(buffer) == digest(array.tobytes())


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_empty_buffers_of_any_shape_are_taken(shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape).data
    assert decompress_chunk(compress_chunk(empty), size=0) == b""
    assert digest(empty) == digest(b"")


@pytest.mark.parametrize("size", [0, 1, len(TEXT) - 1, len(TEXT) + 1, 2**40])
def test_a_wrong_size_is_corruption(size: int) -> None:
    with pytest.raises(CorruptStateError, match="expected"):
        decompress_chunk(compress_chunk(TEXT), size=size)


def test_damage_is_corruption() -> None:
    frame = compress_chunk(TEXT)
    for bad in (b"", frame[:-1], frame[:3], frame + b"x", frame + frame, b"text", b"\0" * 100):
        with pytest.raises(CorruptStateError):
            decompress_chunk(bad, size=len(TEXT))


def test_a_frame_that_does_not_state_its_size_is_bounded() -> None:
    anonymous = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(50_000_000))
    with pytest.raises(CorruptStateError):
        decompress_chunk(anonymous, size=1000)
    with pytest.raises(CorruptStateError):
        decompress_chunk(anonymous, size=0)


def test_a_bomb_allocates_nothing() -> None:
    bomb = compress_chunk(bytes(300_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptStateError):
            decompress_chunk(bomb, size=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_a_concatenation_of_frames_is_a_standard_file(tmp_path: Path) -> None:
    chunks = [TEXT, b"", np.arange(100_000, dtype="<f4").tobytes(), b"end"]
    data = b"".join(map(compress_chunk, chunks))
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
    assert reader.read() == b"".join(chunks)
    if shutil.which("zstd"):
        (tmp_path / "x.zst").write_bytes(data)
        subprocess.run(["zstd", "-dq", "x.zst"], cwd=tmp_path, check=True, timeout=600)
        assert (tmp_path / "x").read_bytes() == b"".join(chunks)


def test_many_threads_at_once() -> None:
    def one(seed: int) -> bool:
        data = np.random.default_rng(seed).integers(0, 50, 200_000, dtype="u1").tobytes()
        return decompress_chunk(compress_chunk(data, 1 + seed % 3), size=len(data)) == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(64)))


def test_what_is_worth_compressing() -> None:
    rng = np.random.default_rng(0)
    assert worth_compressing([TEXT])
    assert worth_compressing([bytes(100_000)])
    assert not worth_compressing([rng.bytes(300_000)])
    assert not worth_compressing([compress_chunk(rng.integers(0, 50, 300_000, dtype="u1").tobytes())])
    assert not worth_compressing([])
    assert not worth_compressing([b"", b""])


def test_the_middle_of_a_sample_decides() -> None:
    noise = np.random.default_rng(0).bytes(400_000)
    assert not worth_compressing([bytes(100_000) + noise + bytes(100_000)])
    assert worth_compressing([noise, bytes(400_000)])


def test_digest_is_blake3() -> None:
    assert digest(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest_of_parts([b"ab", b"", bytearray(b"c")]) == digest(b"abc")
    assert digest(b"abc").hex() == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"


@codec_settings()
@given(st.binary(min_size=1, max_size=64), st.sampled_from([1, 2, 1000, 20_000]))
def test_what_is_compressed_with_a_bound_keeps_to_it(piece: bytes, times: int) -> None:
    data = piece * times
    frame = compress_bounded(data)
    assert decompress_chunk(frame, size=len(data)) == data
    assert len(data) <= MAX_EXPANSION * len(frame)
    assert is_bounded(len(data), len(frame))


@pytest.mark.parametrize("size", [0, 1, 128, 2**16, 2**17 - 1, 2**17, 2**17 + 1, 3 * 2**17, 1_000_000])
def test_a_frame_that_was_not_compressed_is_a_frame(size: int) -> None:
    frame = compress_bounded(bytes(size))
    assert zstandard.frame_content_size(frame) == size
    assert zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO(frame + frame), read_across_frames=True
    ).read() == bytes(2 * size)


def test_a_bounded_size_is_one_that_its_bytes_can_make() -> None:
    assert is_bounded(64 * 1024, 1)
    assert is_bounded(64 * 1024 + 128, 1)
    assert not is_bounded(64 * 1024 + 129, 1)
    assert not is_bounded(2**28, 8_000)

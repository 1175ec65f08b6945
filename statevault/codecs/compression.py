"""zstd frames of chunks, and the decision whether compressing them pays.

Invariants: every chunk is one standard frame that states its content size, so that a concatenation of
frames is a valid ``.zst`` file, and a reader never allocates more than it expects whatever a frame claims.

What is parsed into many small objects (manifests, the structure of tree files) may grow by a bounded factor only
(:func:`is_bounded`), so that a few stored bytes can't fill the memory. Writers keep to it (:func:`compress_bounded`).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable

import zstandard
from typing_extensions import Buffer

from statevault.codecs.buffers import flat_view
from statevault.errors import CorruptStateError

__all__ = [
    "MAX_EXPANSION",
    "MIN_GAIN",
    "UNBOUNDED_SIZE",
    "compress_bounded",
    "compress_chunk",
    "decompress_chunk",
    "is_bounded",
    "worth_compressing",
]

MAX_EXPANSION = 128
"""How many bytes may be parsed for each stored one. Measured: manifests need up to 73, trees of many arrays 32."""
UNBOUNDED_SIZE = 64 * 1024
"""So many bytes may be parsed however few are stored."""

MIN_GAIN = 0.1
"""Share of its size that data must lose under compression to be stored compressed.

What level 1 gains, measured: text 80 % and more, bfloat16 weights 22 %, float32 weights 8 %, noisy images 7 %,
float64 noise 4 %, random or compressed bytes nothing. One core packs about 1 GB/s of such data, so below 10 % it would
save time only on links slower than 100 MB/s, and on a local disk it costs a third of the speed. Whoever has a slow link
wants byte planes (``shrink``), which gain twice as much.
"""

_SAMPLE_BYTES = 128 * 1024
# RFC 8878: a frame of one segment that states its size in 8 bytes, and blocks of at most 128 KiB.
_FRAME_HEADER = struct.Struct("<IBQ")
_FRAME_DESCRIPTOR = 0xE0
_BLOCK = 128 * 1024
_OUT_OF_MEMORY = "Allocation error"
"""What zstd says then; it has no other mark of it."""


class _Contexts(threading.local):
    """The zstd contexts of one thread: they are expensive to make and must not be shared between threads."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def compress_chunk(data: Buffer, level: int = 1) -> bytes:
    """Compress a buffer into one zstd frame that states its content size.

    May be called from many threads at once; the interpreter lock is released while it works.

    Args:
        data: A C-contiguous buffer.
        level: The zstd level, -100 to 22.
    """
    compressor = _contexts.compressors.get(level)
    if compressor is None:
        # No checksum in the frame: chunks are checked against their BLAKE3 digest.
        compressor = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
        _contexts.compressors[level] = compressor
    try:
        return compressor.compress(flat_view(data))
    except zstandard.ZstdError as error:
        if _OUT_OF_MEMORY in str(error):
            raise MemoryError from error
        raise


def is_bounded(size: int, stored: int) -> bool:
    """Whether so many bytes may be parsed for so many stored ones."""
    return size <= UNBOUNDED_SIZE + MAX_EXPANSION * stored


def compress_bounded(data: Buffer) -> bytes:
    """Compress a buffer whose content is parsed: a frame that grows by :data:`MAX_EXPANSION` at most.

    What would grow more (a million equal numbers) is stored as it is, in a frame all the same.
    """
    view = flat_view(data)
    frame = compress_chunk(view)
    return frame if len(view) <= MAX_EXPANSION * len(frame) else _uncompressed_frame(view)


def _uncompressed_frame(view: memoryview) -> bytes:
    magic = int.from_bytes(zstandard.FRAME_HEADER, "little")
    parts: list[Buffer] = [_FRAME_HEADER.pack(magic, _FRAME_DESCRIPTOR, len(view))]
    for start in range(0, len(view), _BLOCK):
        block = view[start : start + _BLOCK]
        is_last = start + _BLOCK >= len(view)
        parts += [(len(block) << 3 | is_last).to_bytes(3, "little"), block]
    return b"".join(parts)


def decompress_chunk(frame: Buffer, *, size: int) -> bytes:
    """Decompress one zstd frame whose content must have a known size.

    The frame's header is compared with ``size`` before anything is allocated, so that a hostile frame costs
    no more than ``size`` bytes.

    Args:
        frame: Exactly one frame, as :func:`compress_chunk` makes it.
        size: The number of bytes that must come out.

    Raises:
        CorruptStateError: The bytes are no zstd frame, are damaged or followed by others, or hold another
            number of bytes than ``size``.
    """
    view = flat_view(frame)
    try:
        claimed = zstandard.frame_content_size(view)
        if claimed not in (size, -1):
            raise CorruptStateError(f"a compressed chunk holds {claimed} bytes where {size} are expected")
        # With a content size in the header, zstandard allocates that; without one, max_output_size.
        data = _contexts.decompressor.decompress(view, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        if _OUT_OF_MEMORY in str(error):
            raise MemoryError from error  # the chunk may be as healthy as any
        raise CorruptStateError(f"a compressed chunk of {size} bytes can't be decompressed: {error}") from error
    if len(data) != size:
        raise CorruptStateError(f"a compressed chunk holds {len(data)} bytes where {size} are expected")
    return data


def worth_compressing(samples: Iterable[Buffer], *, level: int = 1, min_gain: float = MIN_GAIN) -> bool:
    """Say whether data is worth compressing, by compressing samples of it.

    Of each sample, at most 128 KiB from its middle are tried: ends are often headers or padding that say
    little about the rest. The data is worth it when the samples together lose more than ``min_gain``.

    Args:
        samples: A few C-contiguous buffers, such as the first, a middle and the last chunk of a file.
        level: The zstd level that would be used.
        min_gain: The share of its size that the data must lose, 0 to 1.

    Returns:
        False for no samples or only empty ones.
    """
    before = after = 0
    for sample in samples:
        view = flat_view(sample)
        start = max(0, len(view) - _SAMPLE_BYTES) // 2
        view = view[start : start + _SAMPLE_BYTES]
        before += len(view)
        after += len(compress_chunk(view, level))
    return after < before * (1 - min_gain)

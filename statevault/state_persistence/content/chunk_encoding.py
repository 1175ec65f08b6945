"""How a chunk is stored: as it is, as a zstd frame, or as a frame of its byte planes (``docs/format.md``, 3)."""

from __future__ import annotations

from enum import Enum

from statevault.codecs import compress_chunk, decompress_chunk, shuffle, unshuffle
from statevault.codecs.compression import compress_bounded
from statevault.errors import FormatError
from statevault.format.manifest import ENCODING_PLAIN, ENCODING_ZSTD, SHUFFLED_WIDTHS
from statevault.storage import Buffer

__all__ = ["Compression", "decode_chunk", "encode_chunk"]

_SAMPLE_BYTES = 64 * 1024
_ALIGNMENT = 8
_CLEARLY_LESS = 0.995


class Compression(Enum):
    """What is done to the chunks of a file."""

    NONE = "none"
    ZSTD = "zstd"
    SMALLEST = "smallest"
    """Of each chunk whichever of the encodings is the smallest."""


def encode_chunk(raw: Buffer, compression: Compression, *, parsed: bool = False) -> tuple[Buffer, int]:
    """Encode a chunk.

    Args:
        raw: Its bytes.
        compression: What to do to them.
        parsed: Whether they are of the structure of a tree file, which must not grow without bound.

    Returns:
        What to store, and the number of the encoding.
    """
    if compression is Compression.NONE:
        return raw, ENCODING_PLAIN
    if parsed:
        return compress_bounded(raw), ENCODING_ZSTD
    encoding = _smallest(raw) if compression is Compression.SMALLEST else ENCODING_ZSTD
    width = SHUFFLED_WIDTHS.get(encoding)
    return compress_chunk(raw if width is None else shuffle(raw, width)), encoding


def decode_chunk(stored: Buffer, encoding: int, *, size: int) -> Buffer:
    """Decode a chunk. Nothing is verified but its size.

    Args:
        stored: What lies in the store.
        encoding: The number of the encoding.
        size: Bytes that must come out.

    Raises:
        CorruptStateError: The bytes are no such chunk.
        FormatError: There is no such encoding.
    """
    if encoding == ENCODING_PLAIN:
        return stored
    if encoding == ENCODING_ZSTD:
        return decompress_chunk(stored, size=size)
    width = SHUFFLED_WIDTHS.get(encoding)
    if width is None:
        raise FormatError(f"a chunk has the encoding {encoding}, which there is not")
    return unshuffle(decompress_chunk(stored, size=size), width)


def _smallest(raw: Buffer) -> int:
    """The encoding that makes the smallest of a sample from the middle."""
    start = max(0, len(raw) - _SAMPLE_BYTES) // 2 // _ALIGNMENT * _ALIGNMENT
    sample = memoryview(raw)[start : start + _SAMPLE_BYTES]
    best, size = ENCODING_ZSTD, len(compress_chunk(sample))
    for encoding, width in SHUFFLED_WIDTHS.items():
        shuffled = len(compress_chunk(shuffle(sample, width)))
        if shuffled < _CLEARLY_LESS * size:
            best, size = encoding, shuffled
    return best

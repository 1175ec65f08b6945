"""The frame of a tree file: preamble, segment table, structure digest, alignment.

Pure arithmetic on bytes. Segments have no offsets of their own in the file: they follow from the lengths, so
that segments can neither overlap nor point outside.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from typing_extensions import Buffer

from statevault.codecs.buffers import flat_view
from statevault.codecs.digests import DIGEST_SIZE, digest_of_parts
from statevault.codecs.tree.unchanging import KnownDigests
from statevault.errors import CorruptStateError, FormatError, UnsupportedVersionError

__all__ = [
    "ALIGNMENT",
    "FLAG_PICKLES",
    "MAGIC",
    "PREAMBLE_SIZE",
    "VERSION",
    "EncodedTree",
    "Preamble",
    "build_head",
    "padding",
    "parse_preamble",
    "segment_offsets",
    "verify_head",
]

MAGIC = b"\x89SVTREE\n"
VERSION = 1
FLAG_PICKLES = 1
ALIGNMENT = 64
"""Every segment begins at, and is padded to, a multiple of this: a cache line, wider than any vector register."""

_FIELDS = struct.Struct("<8sHHIQQ")
PREAMBLE_SIZE = _FIELDS.size + DIGEST_SIZE


def padding(length: int) -> int:
    """Return how many zero bytes follow ``length`` bytes up to the next aligned offset."""
    return -length % ALIGNMENT


@dataclass(frozen=True, slots=True)
class Preamble:
    """The fixed first bytes of a tree file.

    Attributes:
        flags: Bit 0: the file holds pickles.
        segment_count: Number of segments.
        leaf_table_length: Bytes of the leaf table.
        values_length: Bytes of the values.
        digest: BLAKE3 of the head without this field.
    """

    flags: int
    segment_count: int
    leaf_table_length: int
    values_length: int
    digest: bytes

    @property
    def table_end(self) -> int:
        """Offset behind the segment table."""
        return PREAMBLE_SIZE + 8 * self.segment_count

    @property
    def head_length(self) -> int:
        """Bytes of preamble, segment table, leaf table and values, without padding."""
        return self.table_end + self.leaf_table_length + self.values_length

    @property
    def holds_pickles(self) -> bool:
        """Whether some values are pickles."""
        return bool(self.flags & FLAG_PICKLES)


@dataclass(frozen=True, slots=True)
class EncodedTree:
    """An encoded tree: iterate over it to get the buffers whose concatenation is the tree file.

    Attributes:
        head: Everything before the first segment, padded.
        segments: The raw segments, as flat byte views **of the memory of the encoded tensors and arrays**: what
            is changed there before the segments are written or copied is changed here.
        private: Whether the memory of each segment belongs to this object alone (it can't change any more, and
            a snapshot needn't copy it).
        known: For each segment whose memory others have too, but never change: where digests of it are remembered.
        size: Bytes of the whole file.
        holds_pickles: Whether some values had to be pickled.
    """

    head: bytes
    segments: tuple[memoryview, ...]
    private: tuple[bool, ...]
    known: tuple[KnownDigests | None, ...]
    size: int
    holds_pickles: bool

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self.head
        for segment in self.segments:
            yield segment
            if pad := padding(len(segment)):
                yield bytes(pad)


def build_head(lengths: Sequence[int], leaf_table: bytes, values: bytes, *, flags: int) -> bytes:
    """Return everything before the first segment, padded to the alignment."""
    fields = _FIELDS.pack(MAGIC, VERSION, flags, len(lengths), len(leaf_table), len(values))
    table = struct.pack(f"<{len(lengths)}Q", *lengths)
    checksum = digest_of_parts([fields, table, leaf_table, values])
    length = PREAMBLE_SIZE + len(table) + len(leaf_table) + len(values)
    return b"".join([fields, checksum, table, leaf_table, values, bytes(padding(length))])


def parse_preamble(data: Buffer) -> Preamble:
    """Parse the first :data:`PREAMBLE_SIZE` bytes of a tree file.

    Raises:
        FormatError: They are not the beginning of a tree file.
        CorruptStateError: The file ends within them.
        UnsupportedVersionError: The file was written by a newer version.
    """
    view = flat_view(data)
    if bytes(view[: len(MAGIC)]) != MAGIC[: len(view)] or not view:
        raise FormatError("this is not a tree file (its first bytes are others)")
    if len(view) < PREAMBLE_SIZE:
        raise CorruptStateError(f"a tree file has at least {PREAMBLE_SIZE} bytes, this one {len(view)}")
    _, version, flags, count, leaf_table_length, values_length = _FIELDS.unpack_from(view)
    if version > VERSION:
        raise UnsupportedVersionError(
            f"the tree file has format version {version}; this statevault reads up to {VERSION}: upgrade it"
        )
    if version < 1:
        raise FormatError(f"a tree file has no format version {version}")
    checksum = bytes(view[_FIELDS.size : PREAMBLE_SIZE])
    return Preamble(flags, count, leaf_table_length, values_length, checksum)


def verify_head(preamble: Preamble, head: memoryview) -> None:
    """Check the head of a tree file against its digest.

    Args:
        preamble: What :func:`parse_preamble` made of it.
        head: The first ``preamble.head_length`` bytes of the file.

    Raises:
        CorruptStateError: The digest differs.
        FormatError: The digest is right, but the flags are unknown.
    """
    if digest_of_parts([head[: _FIELDS.size], head[PREAMBLE_SIZE:]]) != preamble.digest:
        raise CorruptStateError("the structure of the tree file does not match its digest: bytes were changed")
    if preamble.flags & ~FLAG_PICKLES:
        raise FormatError(f"the tree file has unknown flags {preamble.flags:#x}")


def segment_offsets(preamble: Preamble, table: memoryview) -> tuple[list[int], list[int], int]:
    """Compute where the segments lie.

    Args:
        preamble: The preamble.
        table: The segment table, ``8 * preamble.segment_count`` bytes.

    Returns:
        The segments' offsets, their lengths, and the size of the whole file, all in bytes.
    """
    lengths = list(struct.unpack(f"<{preamble.segment_count}Q", table))
    position = preamble.head_length + padding(preamble.head_length)
    offsets = []
    for length in lengths:
        offsets.append(position)
        position += length + padding(length)
    return offsets, lengths, position

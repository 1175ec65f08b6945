"""From the bytes of a tree file to Python objects.

Invariants, for any input: no code of the file's choice runs; nothing is allocated beyond a small multiple of
the bytes that are really there; only the errors named in :func:`decode_tree` come out.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack
from typing_extensions import Buffer

from statevault.codecs.buffers import flat_view
from statevault.codecs.pickles import pickles_allowed
from statevault.codecs.tree.layout import PREAMBLE_SIZE, parse_preamble, segment_offsets, verify_head
from statevault.codecs.tree.leaves import ByteSource, LeafReader
from statevault.codecs.tree.tensors import MapLocation
from statevault.codecs.tree.values import ValueReader
from statevault.errors import CorruptStateError, FormatError, PickleNotAllowedError, StateVaultError

__all__ = ["decode_from", "decode_tree"]

# What the standard library, msgpack, numpy and torch raise for values that they can't make.
_MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    ArithmeticError,
    RuntimeError,  # torch; includes RecursionError
    struct.error,
    msgpack.exceptions.UnpackException,
)


class _Memory:
    """A tree file in memory."""

    def __init__(self, data: Buffer) -> None:
        self._view = flat_view(data)
        self.size = len(self._view)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._view[offset : offset + length])

    def read_into(self, offset: int, target: memoryview) -> None:
        target[:] = self._view[offset : offset + len(target)]

    def mapped(self, offset: int, length: int) -> memoryview | None:
        del offset, length
        return None


def decode_tree(data: Buffer, *, allow_pickle: bool | None = None, map_location: MapLocation = None) -> Any:
    """Decode a tree file that is in memory. Nothing in the result refers to ``data``.

    Args:
        data: The whole file, a C-contiguous buffer.
        allow_pickle: Whether pickles in it are loaded. None: as the open pickle policy says, and not outside of
            one. A policy that forbids pickles wins over True.
        map_location: The device that tensors go to: one for all, or a mapping from the device that was
            recorded at save (``"cuda:0"``) to a device, cpu for those not named. None: cpu for all, whatever torch's
            default device is.

    Raises:
        FormatError: This is no tree file, or is malformed in a way that no damage explains, or holds a class
            that is not imported.
        CorruptStateError: The file is cut short, or its structure does not match its digest.
        UnsupportedVersionError: A newer version wrote it.
        PickleNotAllowedError: It holds pickles, and they are not allowed.
        MissingExtraError: It holds tensors, and torch is not installed.
        StateVaultError: The device of ``map_location`` can't take the tensors, or a mode of torch makes others than
            plain ones.
    """
    return decode_from(_Memory(data), allow_pickle=allow_pickle, map_location=map_location)


def decode_from(source: ByteSource, *, allow_pickle: bool | None, map_location: Any) -> Any:
    """Decode a tree file from a source; see :func:`decode_tree`."""
    preamble = parse_preamble(source.read(0, min(PREAMBLE_SIZE, source.size)))
    if preamble.head_length > source.size:
        raise CorruptStateError(f"the tree file ends within its structure, after {source.size} bytes")
    head = memoryview(source.read(0, preamble.head_length))
    verify_head(preamble, head)
    offsets, lengths, size = segment_offsets(preamble, head[PREAMBLE_SIZE : preamble.table_end])
    if size != source.size:
        raise CorruptStateError(f"the tree file has {source.size} bytes where {size} are expected")
    if preamble.holds_pickles and not pickles_allowed(allow_pickle):
        raise PickleNotAllowedError(
            "the tree file holds pickles, which run code when loaded; pass allow_pickle=True (to the store, when "
            "it is part of a state) if you trust all who could have written it"
        )
    segments = list(zip(offsets, lengths, strict=True))
    try:
        leaves = LeafReader(source, segments, pickles=preamble.holds_pickles, map_location=map_location).read(
            head[preamble.table_end : preamble.table_end + preamble.leaf_table_length]
        )
        return ValueReader(leaves).read(head[preamble.table_end + preamble.leaf_table_length :])
    except StateVaultError:
        raise
    except _MALFORMED as error:
        raise FormatError(f"the tree file is malformed: {type(error).__name__}: {error}") from error

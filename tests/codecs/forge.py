"""Makes tree files whose frame and digest are right and whose content is whatever a test wants."""

from __future__ import annotations

from typing import Any

import msgpack

from statevault.codecs.tree.layout import PREAMBLE_SIZE, build_head, padding, parse_preamble

NOTHING = msgpack.packb([[], []])


def forge(
    values: bytes = b"\xc0",
    *,
    leaf_table: bytes | list[Any] = NOTHING,
    segments: tuple[bytes, ...] = (),
    flags: int = 0,
) -> bytes:
    table = leaf_table if isinstance(leaf_table, bytes) else msgpack.packb(leaf_table)
    head = build_head([len(segment) for segment in segments], table, values, flags=flags)
    return head + b"".join(segment + bytes(padding(len(segment))) for segment in segments)


def ext(code: int, data: bytes = b"") -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, data))
    return packed


def tagged(code: int, *items: bytes) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(1 + len(items))
    return header + ext(code) + b"".join(items)


def reseal(data: bytes | bytearray) -> bytes:
    """Recompute the digest of a mutated file, so that the mutation gets past it (if its lengths fit)."""
    preamble = parse_preamble(data[:PREAMBLE_SIZE])
    if preamble.head_length > len(data):
        return bytes(data)
    from statevault.codecs.digests import digest_of_parts

    fixed = bytearray(data)
    fixed[32:64] = digest_of_parts([data[:32], data[64 : preamble.head_length]])
    return bytes(fixed)

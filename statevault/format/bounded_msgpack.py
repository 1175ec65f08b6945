"""Decoding msgpack of strangers with memory bounded by its length, whatever is in it."""

from __future__ import annotations

from typing import Any

import msgpack

__all__ = ["unpack_bounded"]

_BYTES_PER_LIST = 3
_BYTES_PER_MAP = 12
_SPARE = 64


def unpack_bounded(data: bytes) -> Any:
    """Decode one msgpack document: maps with text as keys, lists, numbers, text and bytes.

    An empty list takes one byte there and 64 in memory, a claimed length five bytes and any number in memory. So there
    may be one list for every three bytes, or one map for every twelve, which no entry of ours comes near to, and a
    document that is longer in its claims than in its bytes is refused before anything is built.

    Args:
        data: The document and nothing else.

    Raises:
        ValueError: It is none, or has too many lists or maps. msgpack raises other exceptions, too.
    """
    left = len(data) + _SPARE

    def counted(items: list[Any]) -> list[Any]:
        pay(_BYTES_PER_LIST)
        return items

    def counted_map(items: dict[Any, Any]) -> dict[Any, Any]:
        pay(_BYTES_PER_MAP)
        return items

    def pay(count: int) -> None:
        nonlocal left
        left -= count
        if left < 0:
            raise ValueError("more lists and maps than its length allows")

    unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    unpacker.skip()  # allocates nothing, and fails unless everything is there
    if unpacker.tell() != len(data):
        raise ValueError("other bytes follow")
    return msgpack.unpackb(
        data, raw=False, strict_map_key=True, max_ext_len=0, list_hook=counted, object_hook=counted_map
    )

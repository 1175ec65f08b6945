"""The msgpack documents of a tree file, read within the bounds of the bytes that are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from statevault.errors import FormatError

__all__ = ["unpack_document"]


def unpack_document(data: memoryview, **hooks: Callable[..., Any]) -> Any:
    """Build one complete msgpack document whose maps have texts as keys.

    An array may claim 2**32 elements in five bytes, and msgpack allocates what is claimed. Skipping through the
    document first allocates nothing and fails unless every claimed element is there.

    Args:
        data: The document and nothing else.
        hooks: Those of msgpack that make values of it; with `object_pairs_hook`, of maps with any keys as well.

    Raises:
        FormatError: Other bytes follow the document.
        ValueError: A map has another key, and there is no hook for it.
        msgpack.exceptions.UnpackException: It is not a document.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    unpacker.skip()
    if unpacker.tell() != len(data):
        raise FormatError("a msgpack document in the tree file is followed by other bytes")
    # The hashes of texts are a secret of this process, and msgpack builds such maps in no time.
    strict = "object_pairs_hook" not in hooks
    # timestamp=2: msgpack's own timestamps are not part of the format; an int is the least surprise.
    return msgpack.unpackb(data, strict_map_key=strict, unicode_errors="surrogatepass", timestamp=2, **hooks)

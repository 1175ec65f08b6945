"""The digest of all content in a store: BLAKE3, 32 bytes."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3
from typing_extensions import Buffer

from statevault.codecs.buffers import flat_view

__all__ = ["DIGEST_SIZE", "digest", "digest_of_parts"]

DIGEST_SIZE = 32
"""Length of a digest in bytes."""


def digest(data: Buffer) -> bytes:
    """Return the BLAKE3 digest of a contiguous buffer.

    The interpreter lock is released while large buffers are hashed.

    Args:
        data: Any C-contiguous buffer; it must not change during the call.
    """
    return blake3(flat_view(data)).digest()


def digest_of_parts(parts: Iterable[Buffer]) -> bytes:
    """Return the digest of the concatenation of some buffers, without concatenating them."""
    hasher = blake3()
    for part in parts:
        hasher.update(flat_view(part))
    return hasher.digest()

"""Seals: what a file says of itself at its end, with the digest that shows that it is whole.

A *sealed file* is a payload, in whatever format, and a seal (``docs/format.md``, section 9). The seal is a skippable
zstd frame, so that ``zstd -d`` reads the payload of a sealed ``.zst`` file as if nothing followed. In a zip archive,
which is what :func:`torch.save` writes, it is the archive's comment.

Invariants: the digest covers all that stands before it, what the seal says included, so that a file that was cut short
or changed anywhere has no seal or a wrong digest. A seal can be read without the payload.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from typing_extensions import Buffer

from statevault.codecs.buffers import flat_view
from statevault.codecs.digests import DIGEST_SIZE
from statevault.errors import UnsupportedTypeError

__all__ = ["MAX_SEAL_SIZE", "Seal", "SealWriter", "find_seal"]

MAX_SEAL_SIZE = 65_535
"""Bytes of a seal at most: those of the longest comment of a zip archive."""

_FRAME = struct.Struct("<II")
_FRAME_MAGIC = 0x184D2A5B
_END = struct.Struct("<I4s")
_END_MAGIC = b"svS1"
_SMALLEST = _FRAME.size + DIGEST_SIZE + _END.size


@dataclass(frozen=True, slots=True)
class Seal:
    """What the end of a sealed file says.

    Attributes:
        info: What the file says of itself.
        digest: BLAKE3 of all bytes of the file before this digest.
        size: Bytes of the whole seal.
    """

    info: dict[str, Any]
    digest: bytes
    size: int

    @property
    def digested_from_end(self) -> int:
        """Where the bytes that the digest covers end, counted from the end of the file."""
        return DIGEST_SIZE + _END.size


class SealWriter:
    """Makes the seal of a payload that is read once.

    Args:
        info: What the file says of itself.

    Raises:
        UnsupportedTypeError: `info` is not JSON, or too long.
    """

    def __init__(self, info: Mapping[str, Any]) -> None:
        try:
            text = json.dumps(dict(info), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise UnsupportedTypeError(f"what a file says of itself must be JSON: {error}") from error
        self._head = _FRAME.pack(_FRAME_MAGIC, len(text) + DIGEST_SIZE + _END.size) + text
        self.size = len(self._head) + DIGEST_SIZE + _END.size
        if self.size > MAX_SEAL_SIZE:
            raise UnsupportedTypeError(
                f"what a file says of itself takes {self.size} bytes, more than the {MAX_SEAL_SIZE} of a seal"
            )
        self._hasher = blake3()

    def update(self, data: Buffer) -> None:
        """Take note of the next bytes of the payload."""
        self._hasher.update(flat_view(data))

    def finish(self) -> bytes:
        """The seal of all bytes so far."""
        self._hasher.update(self._head)
        return self._head + self._hasher.digest() + _END.pack(self.size, _END_MAGIC)


def find_seal(tail: Buffer) -> Seal | None:
    """Read the seal at the end of a file.

    Nothing is verified: that takes the whole file.

    Args:
        tail: The last bytes of the file; :data:`MAX_SEAL_SIZE` of them, or all, are always enough.

    Returns:
        The seal; None where there is none.
    """
    view = flat_view(tail)
    if len(view) < _SMALLEST:
        return None
    size, magic = _END.unpack(view[-_END.size :])
    if magic != _END_MAGIC or not _SMALLEST <= size <= len(view):
        return None
    seal = view[len(view) - size :]
    frame_magic, length = _FRAME.unpack(seal[: _FRAME.size])
    if frame_magic != _FRAME_MAGIC or length != size - _FRAME.size:
        return None
    ends = size - DIGEST_SIZE - _END.size
    try:
        info = json.loads(bytes(seal[_FRAME.size : ends]))
    except (ValueError, RecursionError):
        return None
    if not isinstance(info, dict):
        return None
    return Seal(info, bytes(seal[ends : ends + DIGEST_SIZE]), size)

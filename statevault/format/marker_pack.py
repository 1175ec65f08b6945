"""The marker pack: many commit markers in one object (``docs/format.md``, section 12).

A cache. A pack that was decoded is well formed; whether an entry holds is for a LIST to say, and whether its content is
a marker for :class:`~statevault.format.records.CommitRecord`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Self

import msgpack
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from statevault.errors import FormatError
from statevault.format.bounded_msgpack import unpack_bounded
from statevault.format.records import MAX_RECORD_SIZE, Sequence, StateName

__all__ = ["MAX_PACK_SIZE", "MarkerPack", "PackedMarker", "microseconds"]

MAX_PACK_SIZE = 64 * 1024**2
"""Bytes of a pack at most, before compression: some eighty thousand markers."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ENTRY_OVERHEAD = 64


class PackedMarker(NamedTuple):
    """A commit marker in a pack.

    Attributes:
        sequence: Of its key.
        state: Of its key.
        size: Bytes of its object, as a LIST told.
        modified: When it was stored, as a LIST told: :func:`microseconds`.
        content: The bytes of its object.
    """

    sequence: Sequence
    state: StateName
    size: Annotated[int, Field(ge=1, le=MAX_RECORD_SIZE)]
    modified: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    content: bytes

    @staticmethod
    def room(state: str, size: int) -> int:
        """How many bytes of a pack an entry takes at most."""
        return len(state) + size + _ENTRY_OVERHEAD


class MarkerPack(BaseModel):
    """The content of a pack.

    Attributes:
        markers: In the order of states.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    format: Literal["statevault-markers"] = "statevault-markers"
    version: Literal[1] = 1
    markers: Annotated[list[PackedMarker], FailFast()]

    def pack(self) -> bytes:
        """Encode as msgpack (not yet compressed)."""
        # Not by way of model_dump(), which copies what may be many megabytes.
        fields = {"format": self.format, "version": self.version, "markers": self.markers}
        packed: bytes = msgpack.packb(fields, use_bin_type=True)
        return packed

    @classmethod
    def unpack(cls, data: bytes, *, where: str) -> Self:
        """Decode and check.

        Args:
            data: What :meth:`pack` made.
            where: Key and store, for messages.

        Raises:
            FormatError: It is malformed, too large, or of another version.
        """
        if len(data) > MAX_PACK_SIZE:
            raise FormatError(f"{where} has {len(data)} bytes; at most {MAX_PACK_SIZE} are allowed")
        try:
            fields: Any = unpack_bounded(data)
            fields["markers"] = [PackedMarker(*entry) for entry in fields["markers"]]
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise FormatError(f"{where} is malformed: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except Exception as error:  # noqa: BLE001 - msgpack raises many kinds on malformed input
            raise FormatError(f"{where} is malformed: {error!r}") from None


def microseconds(instant: datetime | None) -> int | None:
    """An instant as a pack tells it: microseconds since 1970-01-01 UTC; None for one that can't be told."""
    if instant is None or instant.tzinfo is None:
        return None
    return (instant - _EPOCH) // _MICROSECOND

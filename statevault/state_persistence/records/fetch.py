"""Reading a record that was listed."""

from __future__ import annotations

from typing import TypeVar

from statevault.errors import FormatError
from statevault.format.records import MAX_RECORD_SIZE, Record
from statevault.storage import ObjectInfo, Storage

__all__ = ["fetch_record"]

R = TypeVar("R", bound=Record)


def fetch_record(storage: Storage, info: ObjectInfo, kind: type[R]) -> R:
    """Read a record, unless it is too large to be one: whoever may write to a store may put anything there.

    Args:
        storage: Where it is.
        info: What a LIST said of it.
        kind: What it should be.

    Raises:
        ObjectNotFoundError: It has gone since it was listed.
        FormatError: It is something else.
        UnsupportedVersionError: It is of a newer version.
        StorageError: The storage failed.
    """
    where = f"{info.key} of {storage.url}"
    if info.size > MAX_RECORD_SIZE:
        raise FormatError(f"the {kind.kind} {where} has {info.size} bytes: it is not statevault's")
    return kind.from_json(storage.get(info.key), where=where)

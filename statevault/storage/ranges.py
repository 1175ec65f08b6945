"""Reading a part of an object: the range that is asked for, and whether the answer holds it.

A connection that breaks can look like the end of a body, so no read is believed before its length is checked.
"""

from __future__ import annotations

import re

from statevault.errors import StorageError, StorageUnreachableError

__all__ = ["check_length", "check_range", "object_size", "range_header"]

_TOTAL = re.compile(r"/(\d+)\s*$")


def range_header(start: int, end: int | None) -> str:
    """The HTTP header ``Range`` for the bytes ``[start, end)`` (RFC 9110, 14.1.2); "" for the whole object."""
    if end is None:
        return f"bytes={start}-" if start else ""
    return f"bytes={start}-{end - 1}"


def object_size(content_range: str | None, content_length: int) -> int:
    """The size of the whole object, from the headers of an answer that holds it or a part of it."""
    total = _TOTAL.search(content_range or "")
    return int(total.group(1)) if total else content_length


def check_range(size: int, start: int, end: int | None, *, url: str, key: str) -> int:
    """Return how many bytes the range ``[start, end)`` of an object of `size` bytes has.

    Raises:
        StorageError: It is not within the object.
    """
    stop = size if end is None else end
    if not 0 <= start <= stop <= size:
        msg = f"{key} in {url} has {size} bytes; bytes {start} to {stop} were asked for."
        raise StorageError(msg, url=url, key=key)
    return stop - start


def check_length(got: int, size: int, start: int, end: int | None, *, url: str, key: str) -> None:
    """Check that an answer of `got` bytes is the range ``[start, end)`` of an object of `size` bytes.

    Raises:
        StorageUnreachableError: It broke off; transient.
        StorageError: The range is not within the object.
    """
    wanted = check_range(size, start, end, url=url, key=key)
    if got != wanted:
        msg = f"The answer with {key} from {url} broke off: {got} of {wanted} bytes came."
        raise StorageUnreachableError(msg, transient=True, url=url, key=key)

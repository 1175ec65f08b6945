"""Where a file is cut (``docs/format.md``, section 4). Pure arithmetic: the same file is always cut the same way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["CHUNK_UNIT", "MAX_CHUNK", "chunk_unit", "plan_chunks"]

CHUNK_UNIT = 1024**2
MAX_CHUNK = 64 * 1024**2
_MAX_UNITS = 8192
_MIN_SEGMENT = 64 * 1024


def chunk_unit(size: int) -> int:
    """The largest chunk of a file of `size` bytes: 1 MiB, more where the manifest would get long."""
    unit = CHUNK_UNIT
    while unit < MAX_CHUNK and size > unit * _MAX_UNITS:
        unit *= 2
    return unit


def plan_chunks(size: int, boundaries: Sequence[int] = ()) -> Iterator[tuple[int, int]]:
    """Cut a file.

    Args:
        size: Bytes of the file.
        boundaries: Where its segments begin, ascending. Cuts at the start and at the end of each larger segment make
            the chunks of an unchanged tensor the same from save to save, also when what lies beside it changed.

    Yields:
        ``(start, end)`` of each chunk, in order and without gaps; nothing for an empty file.
    """
    unit = chunk_unit(size)
    for start, end in _pieces(size, boundaries):
        for offset in range(start, end, unit):
            yield offset, min(offset + unit, end)


def _pieces(size: int, boundaries: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = 0
    ends = [*boundaries[1:], size]
    for begin, end in zip(boundaries, ends, strict=True) if boundaries else ():
        if end - begin >= _MIN_SEGMENT:
            if begin > start:
                yield start, begin
            yield begin, end
            start = end
    if size > start:
        yield start, size

"""Reading the body of a put: one buffer or many, in blocks of the size that a backend wants."""

from __future__ import annotations

from collections.abc import Iterator

from statevault.storage.interface import Body

__all__ = ["blocks", "buffers", "is_one_shot", "known_size", "parts"]


def is_one_shot(body: Body) -> bool:
    """Whether the body can be read only once, so that a put of it can't be tried again."""
    return isinstance(body, Iterator)


def known_size(body: Body) -> int | None:
    """The size of a body in bytes where it can be told without reading it, else None."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return memoryview(body).nbytes
    if isinstance(body, (list, tuple)):
        return sum(memoryview(buffer).nbytes for buffer in body)
    return None


def buffers(body: Body) -> Iterator[memoryview]:
    """Yield the body's buffers as flat views of bytes, the empty ones left out."""
    parts = (body,) if isinstance(body, (bytes, bytearray, memoryview)) else body
    for part in parts:
        view = memoryview(part)
        if view.nbytes:
            # A view that is not C-contiguous can't be cast: such a one is copied.
            yield view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def parts(body: Body, size: int) -> Iterator[list[memoryview]]:
    """Yield the body cut into parts of `size` bytes, the last one shorter; nothing for an empty body.

    A part is the buffers, or pieces of them, that it is made of: nothing is copied. Only one part's are held at a time.
    """
    part: list[memoryview] = []
    length = 0
    for view in buffers(body):
        start = 0
        while view.nbytes - start >= size - length:
            end = start + size - length
            yield [*part, view[start:end]]
            part, length, start = [], 0, end
        if start < view.nbytes:
            part.append(view[start:])
            length += view.nbytes - start
    if part:
        yield part


def blocks(body: Body, size: int) -> Iterator[bytes]:
    """Like :func:`parts`, each as a copy in one piece."""
    return (b"".join(part) for part in parts(body, size))

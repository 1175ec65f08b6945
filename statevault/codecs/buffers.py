"""Buffers of any shape and item type as flat byte views, and copies of them."""

from __future__ import annotations

from typing_extensions import Buffer

__all__ = ["copy_bytes", "flat_view"]


def flat_view(data: Buffer) -> memoryview:
    """Return a byte view of a C-contiguous buffer, without copying."""
    view = memoryview(data)
    # memoryview.cast refuses shapes with a zero in them.
    return view.cast("B") if view.nbytes else memoryview(b"")


def copy_bytes(source: Buffer, target: memoryview) -> None:
    """Copy bytes into memory of the same size.

    Unlike an assignment to a slice of a memoryview, this lets other threads go on.
    """
    import numpy as np  # noqa: PLC0415 - nobody needs it who copies nothing large

    np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(flat_view(source), np.uint8))

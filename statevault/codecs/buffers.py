"""Buffers of any shape and item type as flat byte views."""

from __future__ import annotations

from typing_extensions import Buffer

__all__ = ["flat_view"]


def flat_view(data: Buffer) -> memoryview:
    """Return a byte view of a C-contiguous buffer, without copying."""
    view = memoryview(data)
    # memoryview.cast refuses shapes with a zero in them.
    return view.cast("B") if view.nbytes else memoryview(b"")

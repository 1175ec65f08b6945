"""Byte planes: the first bytes of all items, then the second ones, and so on.

The bytes of floating-point numbers that hold sign and exponent are alike from number to number; the others are nearly
random. Brought together, the former compress well, and the latter cost nothing. (The idea is that of Blosc's and HDF5's
shuffle filters.)
"""

from __future__ import annotations

from typing_extensions import Buffer

from statevault.codecs.buffers import flat_view

__all__ = ["shuffle", "unshuffle"]


def shuffle(data: Buffer, width: int) -> bytes:
    """Bring the bytes of a buffer into planes.

    Args:
        data: A C-contiguous buffer of items. Bytes behind the last whole item stay at the end.
        width: Bytes of an item, 2 or more.
    """
    import numpy as np  # noqa: PLC0415 - only for whoever asks for this

    view = flat_view(data)
    count = len(view) // width
    items = np.frombuffer(view, np.uint8, count * width).reshape(count, width)
    planes = np.empty((width, count), np.uint8)
    for place in range(width):  # one strided copy each: many times as fast as a transposition of such narrow rows
        planes[place] = items[:, place]
    return planes.tobytes() + bytes(view[count * width :])


def unshuffle(data: Buffer, width: int) -> bytes:
    """Undo :func:`shuffle`.

    Args:
        data: What it returned.
        width: The same.
    """
    import numpy as np  # noqa: PLC0415 - as above

    view = flat_view(data)
    count = len(view) // width
    planes = np.frombuffer(view, np.uint8, count * width).reshape(width, count)
    items = np.empty((count, width), np.uint8)
    for place in range(width):
        items[:, place] = planes[place]
    return items.tobytes() + bytes(view[count * width :])

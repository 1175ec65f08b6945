"""How much memory a call takes: what Python and NumPy allocate, the same on every machine."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

__all__ = ["peak_of"]


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that a call has allocated at one time; what it raises is raised."""
    tracemalloc.start()
    try:
        call()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak

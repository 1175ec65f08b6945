"""Arrays that nobody changes any more: a snapshot shares their memory instead of copying it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

__all__ = ["KnownDigests", "Unchanging"]

KnownDigests: TypeAlias = dict[tuple[int, int], bytes]
"""Digests of parts of a segment with its padding: by offset in it and length, in bytes."""


class Unchanging:
    """An array in a tree, stored as such, whose values will never change, whoever else has it.

    Not hashable, like the array that it comes back as.

    Attributes:
        array: The array.
        digests: What is known of its bytes as they lie in memory; filled by saves.
    """

    __slots__ = ("array", "digests")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: np.ndarray[Any, Any], digests: KnownDigests | None = None) -> None:
        self.array = array
        self.digests: KnownDigests = {} if digests is None else digests

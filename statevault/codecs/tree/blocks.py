"""The memory of leaves: blocks, each either a segment of its own or, when small, part of the leaf table."""

from __future__ import annotations

from statevault.codecs.tree.unchanging import KnownDigests

__all__ = ["INLINE_LIMIT", "BlockTable"]

INLINE_LIMIT = 512
"""Blocks of at most this many bytes go into the leaf table: padding and bookkeeping would cost more."""


class BlockTable:
    """Collects the blocks of one tree, in order.

    Attributes:
        entries: For each block its bytes, or None for "the next segment".
        segments: Flat byte views of the segments.
        private: For each segment, whether nobody else can change its memory.
        known: For each segment, where digests of it are remembered, if others share its memory and never change it.
    """

    def __init__(self) -> None:
        self.entries: list[bytes | None] = []
        self.segments: list[memoryview] = []
        self.private: list[bool] = []
        self.known: list[KnownDigests | None] = []

    def add(self, data: memoryview, *, private: bool, known: KnownDigests | None = None) -> int:
        """Add a flat byte view and return its block number."""
        if len(data) <= INLINE_LIMIT:
            self.entries.append(bytes(data))
        else:
            self.entries.append(None)
            self.segments.append(data)
            self.private.append(private)
            self.known.append(known)
        return len(self.entries) - 1

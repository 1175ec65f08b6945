"""A tree file in memory: its structure and copies of what may change, and the memory itself of what does not."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator

from statevault.codecs.buffers import copy_bytes
from statevault.codecs.tree.layout import EncodedTree, padding
from statevault.codecs.tree.stubs import new_stub
from statevault.codecs.tree.unchanging import KnownDigests
from statevault.errors import FormatError

__all__ = ["HeldTree", "copied_size"]


class HeldTree:
    """The bytes of a tree file, in memory.

    Args:
        encoded: The tree.
        copies: Room for all of it that may change.

    Attributes:
        size: Bytes of the file.
        holds_pickles: Whether some values are pickles.
        boundaries: Where its segments begin, as :func:`~statevault.codecs.segment_boundaries` tells of a file.
        stub: What lies at its path.
    """

    def __init__(self, encoded: EncodedTree, copies: mmap.mmap) -> None:
        self.size = encoded.size
        self.holds_pickles = encoded.holds_pickles
        self.boundaries: list[int] = []
        self.stub = new_stub()
        self._copies: list[mmap.mmap] = [copies]
        # Parts of the file one after the other, and where each begins.
        self._parts: list[memoryview] = []
        self._starts: list[int] = []
        self._known: list[KnownDigests | None] = []
        target = memoryview(copies)
        end = used = 0
        for data, shared, known in _pieces(encoded, self.boundaries):
            begin, end = end, end + len(data)
            if shared:
                self._add(begin, memoryview(data), known)
                continue
            copied = target[used : used + len(data)]
            used += len(data)
            copy_bytes(data, copied)
            if self._parts and self._parts[-1].obj is copies:
                # It lies right behind the copy before it: one part together.
                self._parts[-1] = target[used - len(data) - len(self._parts[-1]) : used]
            else:
                self._add(begin, copied, None)

    def read(self, offset: int, length: int) -> bytes:
        """Copy some of its bytes."""
        return b"".join(self._slices(offset, offset + length))

    def read_into(self, offset: int, target: memoryview) -> None:
        """Copy as many of its bytes as `target` has room for."""
        copy_bytes(self.view(offset, offset + len(target)), target)

    def mapped(self, offset: int, length: int) -> memoryview | None:
        """Nothing: the memory is the writer's, or the next snapshot's."""
        del offset, length
        return None

    def view(self, start: int, stop: int) -> memoryview:
        """Some of its bytes: not copied, if they lie in one part."""
        slices = list(self._slices(start, stop))
        return slices[0] if len(slices) == 1 else memoryview(b"".join(slices))

    def is_own(self, start: int, stop: int) -> bool:
        """Whether nobody else has the memory of some of its bytes."""
        first, last = self._part_at(start), self._part_at(stop - 1)
        return all(known is None for known in self._known[first : last + 1])

    def known_digests(self, start: int, stop: int) -> tuple[KnownDigests, tuple[int, int]] | None:
        """Where the digest of some of its bytes is remembered, and under which key.

        Returns:
            None, if they are not of a segment that never changes, with all or nothing of its padding.
        """
        number = self._part_at(start)
        known, begin = self._known[number], self._starts[number]
        end = begin + len(self._parts[number])
        if known is None or not (stop <= end or stop == end + padding(end - begin)):
            return None
        return known, (start - begin, stop - start)

    def release(self) -> list[mmap.mmap]:
        """Hold nothing any more. Returns the memory of the copies."""
        self._parts, self._starts, self._known = [], [], []
        copies, self._copies = self._copies, []
        return copies

    @property
    def is_released(self) -> bool:
        """Whether its bytes are gone."""
        return not self._parts

    def _add(self, begin: int, part: memoryview, known: KnownDigests | None) -> None:
        self._parts.append(part)
        self._starts.append(begin)
        self._known.append(known)

    def _slices(self, start: int, stop: int) -> Iterator[memoryview]:
        if self.is_released:
            raise FormatError("the tree was held in memory for a save, which is over")
        number = self._part_at(start)
        while start < stop:
            part, begin = self._parts[number], self._starts[number]
            yield part[start - begin : stop - begin]
            start = begin + len(part)
            number += 1

    def _part_at(self, offset: int) -> int:
        return bisect_right(self._starts, offset) - 1


def _pieces(
    encoded: EncodedTree, boundaries: list[int]
) -> Iterator[tuple[bytes | memoryview, bool, KnownDigests | None]]:
    """The pieces of a tree file in order, whether each may be shared, and where its digests are known."""
    yield encoded.head, False, None
    position = len(encoded.head)
    for segment, private, known in zip(encoded.segments, encoded.private, encoded.known, strict=True):
        boundaries.append(position)
        yield segment, private or known is not None, known
        if pad := padding(len(segment)):
            yield bytes(pad), False, None
        position += len(segment) + pad


def copied_size(encoded: EncodedTree) -> int:
    """How many bytes of a tree have to be copied to hold it."""
    return sum(len(data) for data, shared, _ in _pieces(encoded, []) if not shared)

"""The bytes of a tree file that is held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from typing_extensions import override

from statevault.codecs import digest
from statevault.codecs.tree.held_tree import HeldTree
from statevault.codecs.tree.unchanging import KnownDigests
from statevault.state_persistence.content.chunked_content import ChunkedContent
from statevault.storage import Buffer
from statevault.worker_pool import WorkerPool

__all__ = ["HeldContent"]


class HeldContent(ChunkedContent):
    """The chunks of a held tree. What is its own is hashed once, and sent from where it lies.

    Args:
        tree: The tree.
        encoders: Where chunks are hashed and compressed.
    """

    def __init__(self, tree: HeldTree, encoders: WorkerPool) -> None:
        super().__init__(tree.size, tree.boundaries, encoders)
        self._tree = tree
        self._own_digests: KnownDigests = {}

    @override
    @contextmanager
    def _open(self) -> Iterator[Callable[[int, int], Buffer]]:
        yield self._tree.view

    @override
    def _digest(self, start: int, stop: int, read: Callable[[int, int], Buffer]) -> bytes:
        digests, place = self._place(start, stop)
        if place not in digests:
            digests[place] = digest(read(start, stop))
        return digests[place]

    @override
    def _taken(self, start: int, stop: int, read: Callable[[int, int], Buffer]) -> tuple[Buffer, bytes]:
        if self._tree.is_own(start, stop):
            return read(start, stop), self._digest(start, stop, read)
        # The memory is somebody's who has promised not to change it. A state must not be damaged if he does.
        copy = self._tree.read(start, stop - start)
        content_digest = digest(copy)
        digests, place = self._place(start, stop)
        digests[place] = content_digest
        return copy, content_digest

    def _place(self, start: int, stop: int) -> tuple[KnownDigests, tuple[int, int]]:
        """Where the digest of a chunk is remembered: for the next save too, if the chunk never changes."""
        return self._tree.known_digests(start, stop) or (self._own_digests, (start, stop - start))

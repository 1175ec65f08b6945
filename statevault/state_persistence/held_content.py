"""The bytes of a tree file that is held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from typing_extensions import override

from statevault.codecs import digest
from statevault.codecs.tree.held import HeldTree
from statevault.state_persistence.chunked_content import ChunkedContent
from statevault.storage import Buffer

__all__ = ["HeldContent"]


class HeldContent(ChunkedContent):
    """The chunks of a held tree. What is its own is hashed once, and sent from where it lies.

    Args:
        tree: The tree.
        encoders: Where chunks are hashed and compressed.
    """

    def __init__(self, tree: HeldTree, encoders: ThreadPoolExecutor) -> None:
        super().__init__(tree.size, tree.boundaries, encoders)
        self._tree = tree
        # By where they begin.
        self._own_digests: dict[int, bytes] = {}

    @override
    @contextmanager
    def _open(self) -> Iterator[Callable[[int, int], Buffer]]:
        yield self._tree.view

    @override
    def _digest(self, start: int, stop: int, read: Callable[[int, int], Buffer]) -> bytes:
        remembered = self._tree.known_digests(start, stop)
        if remembered is not None:
            digests, place = remembered
            if place not in digests:
                digests[place] = digest(read(start, stop))
            return digests[place]
        if start not in self._own_digests:
            self._own_digests[start] = digest(read(start, stop))
        return self._own_digests[start]

    @override
    def _taken(self, start: int, stop: int, read: Callable[[int, int], Buffer]) -> tuple[Buffer, bytes]:
        if self._tree.is_own(start, stop):
            return read(start, stop), self._digest(start, stop, read)
        # The memory is somebody's who has promised not to change it. A state must not be damaged if he does.
        copy = self._tree.read(start, stop - start)
        return copy, digest(copy)

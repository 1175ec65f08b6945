"""The tree files of one load that are received into memory, and not written into a folder.

They are the large ones whose components read them as trees and in no other way, as far as there is memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from statevault.codecs import digest
from statevault.codecs.tree.received import ReceivedTree
from statevault.format.manifest import FileEntry
from statevault.state_persistence.snapshot.staging import Staging

__all__ = ["ReceivedTrees"]

_LARGE = 1024**2


class ReceivedTrees:
    """Memory for the files of a load, as far as there is some.

    Args:
        files: What is loaded.
        staging: Knows how much memory may be taken.

    Attributes:
        size: Bytes that were taken.
        memory: Where the bytes of each file belong, by logical path.
    """

    def __init__(self, files: Iterable[FileEntry], staging: Staging) -> None:
        self._trees: list[tuple[FileEntry, ReceivedTree]] = []
        wanted = [file for file in files if file.may_be_held and file.size >= _LARGE]
        left = staging.memory_to_receive(sum(file.size for file in wanted))
        for file in wanted:
            if file.size <= left and (tree := _new_tree(file.size)) is not None:
                self._trees.append((file, tree))
                left -= file.size
        self.size = sum(tree.size for _, tree in self._trees)
        self.memory: Mapping[str, memoryview] = {file.path: tree.memory for file, tree in self._trees}

    def put_stubs(self, target: Callable[[FileEntry], Path]) -> None:
        """Let stubs stand for the files, once all of their bytes are there and verified.

        Args:
            target: Where each file would lie.
        """
        for file, tree in self._trees:
            tree.complete(partial(_is_intact, file))
            target(file).write_bytes(tree.stub)

    def release(self) -> None:
        """Give the memory back: the components are loaded, or will not be."""
        for _, tree in self._trees:
            tree.release()
        self._trees = []
        self.memory = {}


def _new_tree(size: int) -> ReceivedTree | None:
    try:
        return ReceivedTree(size)
    except OSError:
        return None  # a limit of the process (ulimit -v)


def _is_intact(file: FileEntry, content: memoryview) -> bool:
    offset = 0
    for chunk in file.chunks:
        if digest(content[offset : offset + chunk.size]) != chunk.digest:
            return False
        offset += chunk.size
    return True

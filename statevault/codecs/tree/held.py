"""Tree files that a snapshot holds in memory instead of writing them.

What may change is copied, into memory that has served before; what can't change is shared. At the path of the file lies
a stub (:mod:`~statevault.codecs.tree.stubs`).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path

from statevault.codecs.snapshot_memory import SnapshotMemory
from statevault.codecs.tree.held_tree import HeldTree, copied_size
from statevault.codecs.tree.layout import EncodedTree
from statevault.codecs.tree.stubs import read_stub
from statevault.errors import FormatError, UnsupportedTypeError

__all__ = ["HeldTrees", "find_held", "held_trees", "holding", "real_files"]

_LARGE = 1024**2


class HeldTrees:
    """The tree files that are held for one snapshot.

    Args:
        folder: Where the snapshot is taken. Files elsewhere are not held.
        memory: Where copies are made.
        most_copied: How many bytes of copies are made at most; None for as many as there is memory.
    """

    def __init__(self, folder: Path, memory: SnapshotMemory, *, most_copied: int | None = None) -> None:
        self._folder = folder
        self._memory = memory
        self._most_copied = most_copied
        self._lock = threading.Lock()
        self._trees: dict[bytes, HeldTree] = {}
        # For each the path that its writer named, until a stub of it is found.
        self._missing: dict[bytes, Path] = {}
        self._copied = 0

    @property
    def copied(self) -> int:
        """Bytes of which copies were made."""
        return self._copied

    def hold(self, encoded: EncodedTree, path: Path) -> HeldTree | None:
        """Hold a tree that is to be written to `path`; None if it has to be written."""
        if encoded.size < _LARGE or not path.parent.resolve().is_relative_to(self._folder.resolve()):
            return None
        size = copied_size(encoded)
        if self._most_copied is not None and self._copied + size > self._most_copied:
            return None
        copies = self._memory.take(size)
        if copies is None:
            return None
        tree = HeldTree(encoded, copies)
        with self._lock:
            self._trees[tree.stub] = tree
            self._missing[tree.stub] = path
            self._copied += size
        _all[tree.stub] = tree
        return tree

    def find(self, path: Path) -> HeldTree | None:
        """The tree for which a file stands, if it is a stub.

        Raises:
            UnsupportedTypeError: It is one of another snapshot.
        """
        stub = read_stub(path)
        if stub is None:
            return None
        with self._lock:
            tree = self._trees.get(stub)
            self._missing.pop(stub, None)
        if tree is None:
            raise UnsupportedTypeError(
                f"{path.name!r} stands for a tree file that was held in memory for an earlier save, and is no copy of "
                "it: write the file without held=True"
            )
        return tree

    def check_complete(self) -> None:
        """Check that each tree is in the snapshot, once :meth:`find` was asked for all of its files.

        Raises:
            UnsupportedTypeError: One is not, and nothing else has taken its place: somebody has packed its stub.
        """
        for path in self._missing.values():
            if not path.exists():
                raise UnsupportedTypeError(
                    f"{path.name!r} was held in memory (held=True, as the models, trainers and buffers of statevault "
                    "save themselves), and what stood for it is gone: if it was packed into another file, that holds "
                    "nothing of it. Save the parts of such a component within real_files()"
                )

    def release(self) -> None:
        """Give the memory back: the snapshot is not needed any more."""
        with self._lock:
            trees, self._trees = self._trees, {}
        self._memory.give_back([block for tree in trees.values() for block in tree.release()])


# Those that live, by their stubs.
_all: weakref.WeakValueDictionary[bytes, HeldTree] = weakref.WeakValueDictionary()
_current: ContextVar[HeldTrees | None] = ContextVar("statevault_held_trees", default=None)


@contextmanager
def holding(trees: HeldTrees | None) -> Iterator[None]:
    """Let tree files be held inside a ``with`` block, in this thread (or task); None: let none be held."""
    token = _current.set(trees)
    try:
        yield
    finally:
        _current.reset(token)


def real_files() -> AbstractContextManager[None]:
    """Let :func:`~statevault.codecs.write_tree` write real files inside a ``with`` block, also with ``held=True``.

    For a component that reads, packs or copies the files which its parts have saved.
    """
    return holding(None)


def held_trees() -> HeldTrees | None:
    """What holds tree files right now, if anything does."""
    return _current.get()


def find_held(path: Path) -> HeldTree | None:
    """The tree for which a file stands, if it is a stub.

    Raises:
        FormatError: The save, or load, for which it was held is over.
    """
    stub = read_stub(path)
    if stub is None:
        return None
    tree = _all.get(stub)
    if tree is None or tree.is_released:
        raise FormatError(
            f"{path} stands for a tree file that was held in memory for a save or a load, which is over: what is to be "
            "kept must be written without held=True"
        )
    return tree

"""Tree files that a snapshot holds in memory instead of writing them.

What may change is copied, into memory that has served before; what can't change is shared. At the path of the file lies
a *stub*, which only says which tree it stands for. Whoever moves or copies it moves or copies the tree, as far as
:func:`~statevault.codecs.read_tree` and the snapshot are concerned; all others would find nothing in it, so that the
writer has to ask for it.
"""

from __future__ import annotations

import mmap
import secrets
import threading
import weakref
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path

from statevault.codecs.snapshot_memory import SnapshotMemory
from statevault.codecs.tree.layout import EncodedTree, padding
from statevault.codecs.tree.unchanging import KnownDigests
from statevault.errors import FormatError, UnsupportedTypeError

__all__ = ["HeldTree", "HeldTrees", "find_held", "held_trees", "holding", "is_stub", "real_files"]

_MAGIC = b"\x89SVHELD\n"
_STUB_SIZE = len(_MAGIC) + 16
_LARGE = 1024**2


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
        self.stub = _MAGIC + secrets.token_bytes(_STUB_SIZE - len(_MAGIC))
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
            _copy(data, copied)
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
        target[:] = self.view(offset, offset + len(target))

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


def _copied_size(encoded: EncodedTree) -> int:
    return sum(len(data) for data, shared, _ in _pieces(encoded, []) if not shared)


def _copy(source: bytes | memoryview, target: memoryview) -> None:
    import numpy as np  # noqa: PLC0415 - nobody needs it who writes nothing large

    # Unlike an assignment to a slice of a memoryview, this lets other threads go on.
    np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))


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
        size = _copied_size(encoded)
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
        stub = _read_stub(path)
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
        FormatError: The save for which it was held is over.
    """
    stub = _read_stub(path)
    if stub is None:
        return None
    tree = _all.get(stub)
    if tree is None or tree.is_released:
        raise FormatError(
            f"{path} stands for a tree file that was held in memory for a save, which is over: what is to be kept must "
            "be written without held=True"
        )
    return tree


def is_stub(path: Path) -> bool:
    """Whether a file only stands for a tree that is or was held in memory."""
    return _read_stub(path) is not None


def _read_stub(path: Path) -> bytes | None:
    if path.stat().st_size != _STUB_SIZE:
        return None
    stub = path.read_bytes()
    return stub if stub.startswith(_MAGIC) else None

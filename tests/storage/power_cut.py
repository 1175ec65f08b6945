"""A local disk, and everything that a power cut may leave of it.

:class:`Disk` replays what :class:`~tests.storage.recording_calls.RecordingCalls` wrote down, on a model of a filesystem
that promises what POSIX promises, and nothing that ext4, XFS or btrfs do better:

* an fsync of a file brings its bytes onto the medium, but not its name; without one, of what was written anything may
  be there: nothing, a beginning, zeros;
* an fsync of a folder brings the changes of the names in it onto the medium, but neither the folder's own name nor
  the bytes of a file; without one, each change may be there or not, whatever came before or after it, in this
  folder or another one;
* a rename takes place as a whole or not at all;
* an fsync that failed has lost what it should have written: one that succeeds later brings only what was changed since
  onto the medium (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
"""

from __future__ import annotations

import itertools
import math
import os
import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from tests.storage.recording_calls import Event, Identity

__all__ = ["KINDS", "Disk", "Kind", "Tree", "folder_in_memory", "materialized"]

Kind = Literal["contents", "names", "folders", "removals"]
KINDS: tuple[Kind, ...] = ("contents", "names", "folders", "removals")
"""What an fsync is for: the bytes of a file; in a folder, the names of files, of folders, and that names are gone."""

Tree: TypeAlias = dict[str, bytes | None]
"""What lies on a disk: relative path -> the bytes of a file, or None for a folder."""

_LONG_AGO = 1_000_000_000


@dataclass(eq=False, slots=True)
class _File:
    number: int
    written: bytes = b""
    synced: bytes | None = None
    lost: bool = False

    def variants(self) -> list[bytes]:
        if self.synced is not None:
            return [self.synced]
        length = len(self.written)
        return list(dict.fromkeys([b"", self.written[: length // 2], bytes(length), self.written]))


@dataclass(eq=False, slots=True)
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    stable: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Change:
    """Names of a folder that change at once: to what they name, or to nothing."""

    number: int
    kind: Kind
    names: dict[str, _File | _Folder | None]
    lost: bool = False


_Choice: TypeAlias = dict[_Change | _File, int]


class Disk:
    """What is on the medium, and what is on its way there.

    Args:
        without: Kinds of fsync that have no effect, to see that a test notices.
    """

    def __init__(self, *, without: Kind | None = None) -> None:
        self._without = without
        self._base = _Folder()
        self._number = 0
        self._made: dict[Identity, _File | _Folder] = {}

    def apply(self, event: Event) -> None:
        """Do what was recorded."""
        self._number += 1
        match event.call:
            case "mkdir":
                self._make(event, "folders", _Folder())
            case "create":
                self._make(event, "names", _File(self._number))
            case "write":
                file = self._file(event.path)
                file.written += event.data
                file.synced = None
            case "fsync":
                self._fsync(self._opened(event))
            case "fsync failed":
                self._lose(self._opened(event))
            case "link":
                self._change(event.target, "names", self._file(event.path))
            case "replace":
                self._rename(event.path, event.target)
            case "unlink" | "rmdir":
                self._change(event.path, "removals", None)

    def crashes(self, *, most: int, source: random.Random) -> Iterator[Tree]:
        """What a power cut may leave.

        Args:
            most: If there are more ways, then so many of them are picked: nothing of what is undecided, all of it, and
                at random one thing, or what was done in some interval, or any, by itself or as the only exception.
            source: Of what is random.
        """
        undecided = self._undecided()
        counts = [2 if isinstance(what, _Change) else len(what.variants()) for what in undecided]
        ways: Iterable[tuple[int, ...]]
        if math.prod(counts) <= most:
            ways = itertools.product(*(range(count) for count in counts))
        else:
            ways = _samples(counts, most, source)
        for numbers in ways:
            yield self._tree(dict(zip(undecided, numbers, strict=True)))

    def _undecided(self) -> list[_Change | _File]:
        """The changes, and the files without fsync, that may lie below the base after a power cut, oldest first."""
        undecided: list[_Change | _File] = []
        seen: set[_File | _Folder] = set()
        waiting: list[_File | _Folder] = [self._base]
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            if isinstance(node, _File):
                if len(node.variants()) > 1:
                    undecided.append(node)
                continue
            undecided += node.pending
            waiting += node.stable.values()
            waiting += [named for change in node.pending for named in change.names.values() if named is not None]
        return sorted(undecided, key=lambda what: what.number)

    def _tree(self, choice: _Choice) -> Tree:
        tree: Tree = {}

        def walk(folder: _Folder, prefix: str) -> None:
            names: dict[str, _File | _Folder | None] = dict(folder.stable)
            for change in folder.pending:
                if choice[change]:
                    names.update(change.names)
            for name, node in names.items():
                if isinstance(node, _Folder):
                    tree[prefix + name] = None
                    walk(node, f"{prefix}{name}/")
                elif node is not None:
                    tree[prefix + name] = node.variants()[choice.get(node, 0)]

        walk(self._base, "")
        return tree

    def _opened(self, event: Event) -> _File | _Folder:
        """What an fsync is of, which may have no name any more."""
        made = self._made.get(event.identity)
        return self._find(event.path) if made is None else made

    def _fsync(self, node: _File | _Folder) -> None:
        if isinstance(node, _File):
            if self._without != "contents" and not node.lost:
                node.synced = node.written
            return
        left: list[_Change] = []
        for change in node.pending:
            if change.kind == self._without or change.lost:
                left.append(change)
                continue
            for name, named in change.names.items():
                # What came before has no effect any more on a name that is on the medium.
                for older in left:
                    older.names.pop(name, None)
                node.stable.pop(name, None)
                if named is not None:
                    node.stable[name] = named
        node.pending = [change for change in left if change.names]

    def _lose(self, node: _File | _Folder) -> None:
        if isinstance(node, _File):
            node.lost = True
            return
        for change in node.pending:
            change.lost = True

    def _rename(self, source: str, target: str) -> None:
        folder, name = self._parent(source)
        above, new = self._parent(target)
        assert folder is above, "a rename from folder to folder is not modelled"
        node = folder.names.pop(name)
        folder.names[new] = node
        folder.pending.append(_Change(self._number, "names", {name: None, new: node}))

    def _make(self, event: Event, kind: Kind, node: _File | _Folder) -> None:
        self._made[event.identity] = node
        self._change(event.path, kind, node)

    def _change(self, path: str, kind: Kind, node: _File | _Folder | None) -> None:
        folder, name = self._parent(path)
        if node is None:
            del folder.names[name]
        else:
            folder.names[name] = node
        folder.pending.append(_Change(self._number, kind, {name: node}))

    def _parent(self, path: str) -> tuple[_Folder, str]:
        above, _, name = path.rpartition("/")
        folder = self._find(above)
        assert isinstance(folder, _Folder)
        return folder, name

    def _file(self, path: str) -> _File:
        file = self._find(path)
        assert isinstance(file, _File)
        return file

    def _find(self, path: str) -> _File | _Folder:
        node: _File | _Folder = self._base
        for name in path.split("/"):
            if name not in {"", "."}:
                assert isinstance(node, _Folder)
                node = node.names[name]
        return node


def _samples(counts: list[int], most: int, source: random.Random) -> Iterator[tuple[int, ...]]:
    nothing, everything = [0] * len(counts), [count - 1 for count in counts]
    seen = {tuple(nothing), tuple(everything)}
    while len(seen) < most:
        some = list(source.choice((nothing, everything)))
        other = [source.randrange(count) for count in counts]
        first, last = sorted(source.randrange(len(counts)) for _ in range(2))
        match source.randrange(3):
            case 0:
                last = first
            case 1:
                first, last = 0, len(counts)
            case _:
                other = nothing if some == everything else everything
        some[first : last + 1] = other[first : last + 1]
        seen.add(tuple(some))
    yield from sorted(seen)


@contextmanager
def materialized(tree: Tree) -> Iterator[Path]:
    """A folder with what a power cut left, as if it had been left long ago."""
    with folder_in_memory() as folder:
        for path, content in sorted(tree.items()):
            target = folder / path
            if content is None:
                target.mkdir()
                continue
            target.write_bytes(content)
            os.utime(target, (_LONG_AGO, _LONG_AGO))
        yield folder


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A new folder, in memory where there is such a thing: thousands are made, and the medium is a model."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="statevault-power-cut-", dir=memory) as folder:
        yield Path(folder)

"""A disk of so many blocks and inodes, which another program may fill to the last byte."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.storage.local.file_calls import FileCalls

BLOCK = 4096


class Disk(FileCalls):
    """The calls to a disk on which nothing lies but one folder, and what another program has written.

    Attributes:
        blocks: How many it has.
        inodes: How many it has.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.blocks = self.inodes = 10**9

    @classmethod
    def below(cls, root: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
        """The disk that all local storages are on from now on, and the reserves of spools."""
        disk = cls(root)
        for user in ("statevault.storage.local.storage", "statevault.state_persistence.spool.reserve"):
            monkeypatch.setattr(f"{user}.FileCalls", lambda: disk)
        return disk

    def fill_blocks(self) -> None:
        """Another program writes until the disk is full."""
        self.blocks = self.used()[0]

    def fill_inodes(self) -> None:
        """Another program makes files until the disk has no more."""
        self.inodes = self.used()[1]

    def empty(self) -> None:
        """The other program removes what it has written."""
        self.blocks = self.inodes = 10**9

    def used(self) -> tuple[int, int]:
        """Blocks and inodes that the folder takes."""
        sizes = [BLOCK]
        for folder, folders, files in os.walk(self._root):
            for name in files:
                try:
                    sizes.append(Path(folder, name).stat().st_size)
                except FileNotFoundError:
                    continue
            sizes += [BLOCK] * len(folders)
        return sum(-(-size // BLOCK) for size in sizes), len(sizes)

    def _check(self, *, blocks: int = 0, inodes: int = 0) -> None:
        used_blocks, used_inodes = self.used()
        if used_blocks + blocks > self.blocks or used_inodes + inodes > self.inodes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @override
    def mkdir(self, path: str) -> None:
        self._check(blocks=1, inodes=1)
        super().mkdir(path)

    @override
    def create(self, path: str) -> int:
        self._check(inodes=1)
        return super().create(path)

    @override
    def write(self, descriptor: int, data: memoryview) -> int:
        size = os.fstat(descriptor).st_size
        self._check(blocks=-(-(size + data.nbytes) // BLOCK) - -(-size // BLOCK))
        return super().write(descriptor, data)

"""Stubs: what lies at the path of a tree file that is held in memory, and says which tree that is.

Whoever moves or copies a stub moves or copies the tree, as far as :func:`~statevault.codecs.read_tree` and snapshots
are concerned; all others would find nothing in it, so that the writer of the file has to ask for it (``held=True``).
"""

from __future__ import annotations

import secrets
from pathlib import Path

__all__ = ["is_stub", "new_stub", "read_stub"]

_MAGIC = b"\x89SVHELD\n"
_SIZE = len(_MAGIC) + 16


def new_stub() -> bytes:
    """A stub that no other tree has."""
    return _MAGIC + secrets.token_bytes(_SIZE - len(_MAGIC))


def read_stub(path: Path) -> bytes | None:
    """The stub that a file is; None if it is a real file."""
    if path.stat().st_size != _SIZE:
        return None
    stub = path.read_bytes()
    return stub if stub.startswith(_MAGIC) else None


def is_stub(path: Path) -> bool:
    """Whether a file only stands for a tree that is or was held in memory."""
    return read_stub(path) is not None

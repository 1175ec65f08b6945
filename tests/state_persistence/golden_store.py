"""What the golden stores hold, and how one is made for a new format version::

python -m tests.state_persistence.golden_store tests/state_persistence/golden/v1
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typing_extensions import override

from statevault.state_persistence import PersistentStateMixin, StateStore, read_tree, write_tree
from tests.state_persistence.components import Files, Folder

OLD: Files = {"notes.txt": b"first\n", "same.txt": b"all work and no play\n" * 200}
NEW: Files = {
    "notes.txt": b"second\n",
    "same.txt": b"all work and no play\n" * 200,
    "empty": b"",
    "deep/er/ümläut name.bin": bytes(range(256)),
}
TREE: dict[str, Any] = {"step": 40_000, "big": 2**70, "names": ["a", "b"], "pair": (1.5, None), "raw": b"\x00\xff"}
METADATA: dict[str, Any] = {"reward": 231.5, "step": 40_000, "tags": ["golden"]}


class Tree(PersistentStateMixin):
    """A component that is one tree file."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    @override
    def save_state(self, path: Path) -> None:
        write_tree(self.value, path.with_suffix(".tree"))

    @override
    def load_state(self, path: Path) -> None:
        self.value = read_tree(path.with_suffix(".tree"))


def make(root: Path) -> None:
    """Write a store with a removed, an old and a new state."""
    folder, tree = Folder(OLD), Tree({"step": 1})
    with StateStore(root) as store:
        store.register("folder", folder)
        store.register("time", tree)
        store.save_state(name="removed.state")
        store.save_state(name="old.state")
        folder.files, tree.value = dict(NEW), TREE
        store.save_state(name="new.state", metadata=METADATA)
        store.remove(["removed.state"], reason="golden")


if __name__ == "__main__":
    make(Path(sys.argv[1]))

"""Components for tests: one that holds files, and a store that has some."""

from __future__ import annotations

import random
from pathlib import Path

from typing_extensions import override

from statevault.format.chunking import CHUNK_UNIT
from statevault.state_persistence import PersistentStateMixin, StateStore

Files = dict[str, bytes]


class Folder(PersistentStateMixin):
    """A component whose state is a dict of files, saved as they are."""

    def __init__(self, files: Files | None = None) -> None:
        self.files: Files = dict(files or {})
        self.loads = 0

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        for name, content in self.files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)

    @override
    def load_state(self, path: Path) -> None:
        self.loads += 1
        files = (file for file in path.rglob("*") if file.is_file())
        self.files = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def some_files(seed: int, *, size: int = 3000) -> Files:
    """A few files: random bytes, text, an empty one, nested ones; one that is the same for all seeds, one in part."""
    source = random.Random(seed)
    return {
        "frozen.bin": b"never changes",
        "grown.bin": bytes(CHUNK_UNIT) + str(seed).encode(),
        "weights.bin": source.randbytes(size),
        "notes.txt": b"the same line over and over\n" * (size // 20) + str(seed).encode(),
        "empty": b"",
        "deep/er/step.txt": str(seed).encode(),
    }


def store_with(where: object, **folders: Folder) -> StateStore:
    """A store with folders registered under their names."""
    store = StateStore(where)  # type: ignore[arg-type]
    for name, folder in folders.items():
        store.register(name, folder)
    return store

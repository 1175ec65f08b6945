"""What the tests of the spool share: a remote that can be away, and stores that have a spool before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import override
from upath import UPath

from statevault.errors import StorageError, StorageUnreachableError
from statevault.state_persistence import StateStore
from statevault.state_persistence.spool import Spool
from statevault.storage import Body, ObjectInfo, RetryPolicy, Storage
from tests.state_persistence.components import Files, Folder
from tests.state_persistence.storages import DictStorage

LIMIT_S = 300.0
QUICK = RetryPolicy(max_attempts=3, first_delay_s=0.01, max_delay_s=0.05, deadline_s=5.0)

_R = TypeVar("_R")


@dataclass
class Remote(Storage):
    """Objects in a dict, behind a network.

    Attributes:
        error: What every call raises; None while the network is there.
        before: Told of each call, before it is made.
    """

    inner: DictStorage = field(default_factory=DictStorage)
    error: StorageError | None = None
    before: Callable[[str], None] = lambda call: None
    url: str = "dict://"

    def go_down(self) -> None:
        self.error = StorageUnreachableError("the network is down", transient=True)

    def come_up(self) -> None:
        self.error = None

    def _call(self, name: str, call: Callable[[], _R]) -> _R:
        self.before(name)
        if self.error is not None:
            raise self.error
        return call()

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        return self._call(f"put {key}", lambda: self.inner.put(key, body, create_only=create_only))

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._call(f"get {key}", lambda: self.inner.get(key, start, end))

    @override
    def head(self, key: str) -> ObjectInfo:
        return self._call(f"head {key}", lambda: self.inner.head(key))

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        yield from self._call(f"list {prefix}", lambda: list(self.inner.list(prefix)))

    @override
    def delete(self, keys: Sequence[str]) -> None:
        self._call(f"delete {list(keys)}", lambda: self.inner.delete(keys))

    @override
    def path(self, key: str = "") -> UPath:
        return self.inner.path(key)


def quick(path: Path, **settings: Any) -> Spool:
    """A spool that tries again soon, and does not linger."""
    return Spool(path, **{"retry": QUICK, "refused_delay_s": 0.05, "linger_s": 0.0, **settings})


def spooled(remote: Storage | str, spool: Spool | Path, folder: Folder | None = None, **options: Any) -> StateStore:
    """A store with a spool, with one component."""
    store = StateStore(remote, spool=quick(spool) if isinstance(spool, Path) else spool, **options)
    store.register("folder", folder if folder is not None else Folder())
    return store


def save(store: StateStore, folder: Folder, *numbers: int) -> None:
    """Save states whose content and names follow from their numbers."""
    for number in numbers:
        folder.files = numbered(number)
        store.save_state(name=f"{number}.state", metadata={"number": number})


def numbered(number: int) -> Files:
    """The files of state `number`."""
    return {"number": str(number).encode() * 1000, "frozen": bytes(range(256)) * 100}


def content(store: StateStore, state: str) -> Files:
    """The files of a state, wherever it lies."""
    folder = Folder()
    other = StateStore(store._storage)
    other.register("folder", folder)
    other.load_state(state)
    return folder.files


def until(reached: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)

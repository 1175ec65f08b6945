"""A storage on which nothing is changed, for those who ask what a collection would do.

Whoever works on it sees what it has put and deleted itself; nobody else does. So a rehearsal takes every step that the
real thing takes, and comes to the same result. What it puts is as old as the newest object that it has seen: the clock
of the backend, which would date it, may be another one than that of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from typing_extensions import override

from statevault.errors import ObjectExistsError, ObjectNotFoundError
from statevault.storage import Body, ObjectInfo, Storage, StorageWrapper
from statevault.storage.ranges import check_range

__all__ = ["RehearsalStorage"]


class RehearsalStorage(StorageWrapper):
    """Passes reads on, and keeps puts and deletes to itself.

    Unfinished uploads are neither ended nor counted.

    Args:
        inner: What is read.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.url = f"{inner.url} (a rehearsal)"
        self._put: dict[str, bytes] = {}
        self._newest: datetime | None = None
        self._deleted: set[str] = set()

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        content = bytes(body) if isinstance(body, bytes | bytearray | memoryview) else b"".join(map(bytes, body))
        if create_only and self.exists(key):
            raise ObjectExistsError(f"{key} exists already in {self.url}", url=self.url, key=key)
        self._put[key] = content
        self._deleted.discard(key)
        return len(content)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._check_not_deleted(key)
        if key in self._put:
            content = self._put[key]
            check_range(len(content), start, end, url=self.url, key=key)
            return content[start:end]
        return super().get(key, start, end)

    @override
    def head(self, key: str) -> ObjectInfo:
        self._check_not_deleted(key)
        return self._rehearsed(key) if key in self._put else super().head(key)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = {}
        for info in super().list(prefix):
            if info.modified is not None and (self._newest is None or info.modified > self._newest):
                self._newest = info.modified
            if info.key not in self._deleted:
                found[info.key] = info
        found |= {key: self._rehearsed(key) for key in self._put if key.startswith(prefix)}
        return iter(sorted(found.values(), key=lambda info: info.key))

    @override
    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._put.pop(key, None)
        self._deleted.update(keys)

    @override
    def abort_unfinished_uploads(self, older_than: timedelta) -> int:
        return 0

    @override
    def settle(self, prefix: str = "") -> None:
        """Nothing has to stay."""

    @override
    def close(self) -> None:
        """Nothing: what is inside is its owner's."""

    def _rehearsed(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self._put[key]), self._newest)

    def _check_not_deleted(self, key: str) -> None:
        if key in self._deleted:
            raise ObjectNotFoundError(f"There is no object {key} in {self.url}.", url=self.url, key=key)

"""The remote storage as replication sees it: one that tells how each call went."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

from typing_extensions import override
from upath import UPath

from statevault.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from statevault.storage import Body, ObjectInfo, Storage

__all__ = ["Uplink"]

_Result = TypeVar("_Result")


class Uplink(Storage):
    """Passes calls on, and tells how each went.

    Args:
        inner: Where the calls go.
        on_failure: Told of each call that failed.
        on_success: Told after each other call.
    """

    def __init__(
        self,
        inner: Storage,
        *,
        on_failure: Callable[[StorageError], None],
        on_success: Callable[[], None],
    ) -> None:
        self.inner = inner
        self.url = inner.url
        self._on_failure = on_failure
        self._on_success = on_success

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        return self._told(lambda: self.inner.put(key, body, create_only=create_only))

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._told(lambda: self.inner.get(key, start, end))

    @override
    def head(self, key: str) -> ObjectInfo:
        return self._told(lambda: self.inner.head(key))

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self._told(lambda: tuple(self.inner.list(prefix))))

    @override
    def delete(self, keys: Sequence[str]) -> None:
        self._told(lambda: self.inner.delete(keys))

    @override
    def abort_unfinished_uploads(self, older_than: timedelta) -> int:
        return self._told(lambda: self.inner.abort_unfinished_uploads(older_than))

    @override
    def settle(self, prefix: str = "") -> None:
        self._told(lambda: self.inner.settle(prefix))

    @override
    def path(self, key: str = "") -> UPath:
        return self.inner.path(key)

    @override
    def close(self) -> None:
        self.inner.close()

    def _told(self, call: Callable[[], _Result]) -> _Result:
        try:
            result = call()
        except (ObjectNotFoundError, ObjectExistsError):
            self._on_success()  # an answer, and so a sign that the remote is there
            raise
        except StorageError as error:
            self._on_failure(error)
            raise
        self._on_success()
        return result

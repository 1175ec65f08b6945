"""Behaviour added to a storage by wrapping it: what all wrappers have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

from typing_extensions import override
from upath import UPath

from statevault.storage.interface import Body, ObjectInfo, Storage

__all__ = ["StorageWrapper"]

_Result = TypeVar("_Result")


class StorageWrapper(Storage):
    """Passes calls on. A subclass overrides :meth:`_call`, through which all that can fail goes.

    Args:
        inner: Where the calls go.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.url = inner.url

    def _call(self, call: Callable[[], _Result]) -> _Result:
        """Make a call of the inner storage."""
        return call()

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        return self._call(lambda: self.inner.put(key, body, create_only=create_only))

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._call(lambda: self.inner.get(key, start, end))

    @override
    def head(self, key: str) -> ObjectInfo:
        return self._call(lambda: self.inner.head(key))

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # As a whole: a listing that broke off can't be resumed where another one has begun.
        return iter(self._call(lambda: tuple(self.inner.list(prefix))))

    @override
    def delete(self, keys: Sequence[str]) -> None:
        self._call(lambda: self.inner.delete(keys))

    @override
    def abort_unfinished_uploads(self, older_than: timedelta) -> int:
        return self._call(lambda: self.inner.abort_unfinished_uploads(older_than))

    @override
    def settle(self, prefix: str = "") -> None:
        self._call(lambda: self.inner.settle(prefix))

    @override
    def path(self, key: str = "") -> UPath:
        return self.inner.path(key)

    @override
    def close(self) -> None:
        self.inner.close()

"""What a storage backend does: objects as bytes under keys, and nothing else.

Everything above this package speaks to a :class:`Storage` only. The contract, which
``tests/storage/contract.py`` checks against every backend:

* A *key* is a relative path with ``/`` between its segments, made by :mod:`statevault.format`.
* :meth:`Storage.put` is atomic: under a key lies either the old object or the whole new one, whatever dies.
  When it returns, the object is durable.
* :meth:`Storage.get`, :meth:`Storage.head` and :meth:`Storage.list` see every put and delete that returned
  before they were called. Nothing is cached.
* Only the errors of :mod:`statevault.errors` come out, and every call ends: each has a timeout.
* A storage may be used by several threads at once, and in a forked child.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from upath import UPath

from statevault.errors import ObjectNotFoundError

__all__ = ["Body", "Buffer", "ObjectInfo", "Storage"]

Buffer: TypeAlias = bytes | bytearray | memoryview
Body: TypeAlias = Buffer | Iterable[Buffer]
"""The content of an object: one buffer, or an iterable of buffers that are joined.

An iterable that is an iterator can be read once, so a put of it is not retried as a whole; any other iterable
(a list, or an object whose ``__iter__`` starts anew) is read again for each try. Either way it is consumed with
bounded memory: an object of many GiB never lies in memory as a whole. A buffer that an iterable has given is not
copied, so it must not change before the put has returned.
"""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object.

    Attributes:
        key: The key, relative to the storage's root.
        size: Bytes.
        modified: When it was stored, by the backend's clock (UTC); None where the backend does not tell.
            For people, for age-based clean-up of debris, and to know again in a cache what was read before: no order is
            ever derived from it.
    """

    key: str
    size: int
    modified: datetime | None = None


class Storage(ABC):
    """Objects under keys, below one root URL."""

    url: str
    """The root, without credentials: for messages and for :attr:`StorageError.url`."""

    @abstractmethod
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        """Store an object, atomically and durably.

        Args:
            key: Where.
            body: What.
            create_only: Refuse to replace an existing object. Only as good as the backend: see
                :func:`statevault.storage.probe`. No protocol of statevault relies on it for safety.

        Returns:
            Bytes stored.

        Raises:
            ObjectExistsError: With ``create_only``, another object lies under the key. An object with the very
                bytes of `body` is taken for this call's own first try whose answer was lost: success.
            StorageError: The put failed; whether the object is there is not known.
        """

    @abstractmethod
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Read an object, or the bytes ``[start, end)`` of it.

        Returns:
            Exactly the bytes asked for; never fewer.

        Raises:
            ObjectNotFoundError: Nothing lies under the key.
            StorageError: Also when the object ends before `end`, or the connection ended the body early.
        """

    def get_into(self, key: str, start: int, target: memoryview) -> None:
        """Read the bytes of an object from `start` on into memory that the caller has, and uses again.

        Fresh memory for each answer would cost more than the bytes that come over a fast link. Whoever overrides
        :meth:`get` of a backend overrides this too; by itself it calls :meth:`get`.

        Args:
            key: Of the object.
            start: The first byte.
            target: Flat, writable, as long as what is read. After an error anything may be in it.

        Raises:
            ObjectNotFoundError: As for :meth:`get`, and so are all others.
            StorageError: See there.
        """
        target[:] = self.get(key, start, start + target.nbytes)

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Describe an object.

        Raises:
            ObjectNotFoundError: Nothing lies under the key.
            StorageError: The backend failed.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List all objects whose key starts with `prefix` (any string, not only a folder), sorted by key.

        Below a prefix that is not empty, folders are looked into in that order too: what is listed of a later one is
        no older than what is listed of an earlier one.

        Raises:
            StorageError: The backend failed. An empty or missing root lists nothing.
        """

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, in bulk where the backend can. A key under which nothing lies is no error.

        When it returns, they are gone for good.

        Raises:
            StorageError: Some of them could not be deleted; the message names the first.
        """

    def abort_unfinished_uploads(self, older_than: timedelta) -> int:
        """End uploads below the root that began long ago and were never completed: what they have sent costs storage.

        Args:
            older_than: How long ago at least, by the backend's clock.

        Returns:
            How many; 0 where the backend has none, or does not list them.

        Raises:
            StorageError: The backend failed.
        """
        return 0

    def settle(self, prefix: str = "") -> None:  # noqa: B027 - most backends answer only when all is settled
        """Make sure that nothing undoes what a listing shows, and no longer shows, whoever put or deleted it.

        For whoever destroys something because of what it has seen. On a local disk, what another process does can be
        seen before it is on the medium.

        Args:
            prefix: That of the listing.

        Raises:
            StorageError: It can't be made sure.
        """

    @abstractmethod
    def path(self, key: str = "") -> UPath:
        """The path of a key for users: a :class:`pathlib.Path` as well where the storage is local."""

    def exists(self, key: str) -> bool:
        """Whether an object lies under the key.

        Raises:
            StorageError: The backend failed, so that it is not known.
        """
        try:
            self.head(key)
        except ObjectNotFoundError:
            return False
        return True

    def close(self) -> None:  # noqa: B027 - most backends hold nothing that needs closing
        """Give back connections. The storage is not used afterwards."""

"""Storages for tests: a plain dict, and a wrapper in which a chosen call fails in a chosen way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TypeVar

import pytest
from typing_extensions import override
from upath import UPath

from statevault.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from statevault.format.keys import VAULT
from statevault.storage import Body, ObjectInfo, Storage

_R = TypeVar("_R")


def joined(body: Body) -> bytes:
    """A body as bytes."""
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else b"".join(map(bytes, body))


class DictStorage(Storage):
    """Objects in a dict: atomic, consistent, as S3 is."""

    def __init__(self) -> None:
        self.url = "dict://"
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def copy(self) -> DictStorage:
        """Another storage with the same objects: one start for many trials."""
        other = DictStorage()
        other.objects = dict(self.objects)
        return other

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        content = joined(body)
        with self._lock:
            if create_only and self.objects.get(key, content) != content:
                raise ObjectExistsError(f"{key} exists", key=key)
            self.objects[key] = content
        return len(content)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        with self._lock:
            if key not in self.objects:
                raise ObjectNotFoundError(f"no {key}", key=key)
            content = self.objects[key]
        if end is not None and end > len(content):
            raise StorageError(f"{key} ends at {len(content)}", transient=True, key=key)
        return content[start:end]

    @override
    def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.get(key)))

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._lock:
            found = [ObjectInfo(key, len(self.objects[key])) for key in self.objects if key.startswith(prefix)]
        yield from sorted(found, key=lambda info: info.key)

    @override
    def delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self.objects.pop(key, None)

    @override
    def path(self, key: str = "") -> UPath:
        return UPath(f"memory://dict/{key}")


class TimedStorage(DictStorage):
    """Tells when objects were put, by a clock that stands still until it is set.

    Attributes:
        now: What the clock says.
        times: When each object was put; may be changed.
    """

    def __init__(self, now: datetime | None = None) -> None:
        super().__init__()
        self.now = now or datetime.now(UTC)
        self.times: dict[str, datetime] = {}

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        self.times[key] = self.now
        return super().put(key, body, create_only=create_only)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix):
            yield replace(info, modified=self.times[info.key])


@dataclass
class WatchedStorage(Storage):
    """Passes calls on, and tells of each before it is made.

    Attributes:
        inner: Where the calls go.
        before: Told of a call: ``"put a.state/x"``.
        calls: What was called.
    """

    inner: Storage
    before: Callable[[str], None] = lambda call: None
    calls: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.url = self.inner.url

    def _tell(self, call: str) -> None:
        with self._lock:
            self.calls.append(call)
            self.before(call)

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        self._tell(f"put {key}")
        return self.inner.put(key, body, create_only=create_only)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._tell(f"get {key}")
        return self.inner.get(key, start, end)

    @override
    def head(self, key: str) -> ObjectInfo:
        self._tell(f"head {key}")
        return self.inner.head(key)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._tell(f"list {prefix}")
        yield from self.inner.list(prefix)

    @override
    def delete(self, keys: Sequence[str]) -> None:
        if keys:
            self._tell(f"delete {list(keys)}")
        self.inner.delete(keys)

    @override
    def path(self, key: str = "") -> UPath:
        return self.inner.path(key)


class Failure(Enum):
    """How a call fails."""

    NO_EFFECT = "no effect"
    LOST_ANSWER = "effect, but the answer is lost"
    LATE = "lands later"
    TORN = "half of it lands"


FAILURES = [pytest.param(failure, id=failure.value) for failure in Failure]
"""All of them, as parameters of a test."""


class ProcessDiedError(BaseException):
    """Stands for the death of the process: nothing of statevault's may catch it and go on."""


@dataclass
class FailingStorage(Storage):
    """Passes calls on; the call number `fail_at` (from 1) fails.

    Attributes:
        inner: The storage that outlives the process.
        fail_at: The call that fails; 0 for none.
        failure: How.
        dies: Whether the process dies with it, so that no later call has an effect either.
        calls: What was called, for messages.
        late: What has yet to land.
    """

    inner: Storage
    fail_at: int = 0
    failure: Failure = Failure.NO_EFFECT
    dies: bool = False
    calls: list[str] = field(default_factory=list)
    late: list[Callable[[], object]] = field(default_factory=list)
    dead: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.url = self.inner.url

    def land(self) -> None:
        """Let what was late take effect."""
        for action in self.late:
            action()
        self.late.clear()

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        content = joined(body)

        def tear() -> None:
            # A record is one atomic PUT on every backend; an upload in parts may be cut short on a bad one.
            if not key.startswith(VAULT):
                self.inner.put(key, content[: len(content) // 2])

        return self._call(f"put {key}", lambda: self.inner.put(key, content, create_only=create_only), tear)

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
        def tear() -> None:
            self.inner.delete(keys[: len(keys) // 2])

        self._call(f"delete {list(keys)}", lambda: self.inner.delete(keys), tear)

    @override
    def path(self, key: str = "") -> UPath:
        return self.inner.path(key)

    def _call(self, what: str, act: Callable[[], _R], tear: Callable[[], None] = lambda: None) -> _R:
        with self._lock:
            if self.dead:
                raise ProcessDiedError(what)
            self.calls.append(what)
            fails = len(self.calls) == self.fail_at
            self.dead = fails and self.dies
        if not fails:
            return act()
        if self.failure is Failure.LOST_ANSWER:
            with suppress(StorageError):  # which is an answer, too
                act()
        elif self.failure is Failure.LATE and what.startswith(("put", "delete")):
            self.late.append(act)
        elif self.failure is Failure.TORN:
            tear()
        if self.dies:
            raise ProcessDiedError(what)
        raise StorageError(f"injected: {what}", transient=True, key=what)

"""An object storage in memory, as strict and as loose as S3, and the clients through which processes use it."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from typing_extensions import override
from upath import UPath

from statevault.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from statevault.storage import Body, ObjectInfo, Storage
from tests.simulation.clock import Clock
from tests.simulation.scheduler import Process, ProcessDiedError, Scheduler
from tests.state_persistence.storages import joined

__all__ = ["Faults", "Objects", "SimulatedStorage"]

_R = TypeVar("_R")


class Objects:
    """What lies in the store.

    Attributes:
        content: The objects by key.
        changed: The keys that were put or deleted since somebody emptied this list.
        has_create_only: Whether puts can be create-only; else all of them replace what is there.
        page_size: How many keys one request lists.
    """

    def __init__(self, clock: Clock, *, page_size: int, has_create_only: bool) -> None:
        self.content: dict[str, bytes] = {}
        self.changed: list[str] = []
        self.page_size = page_size
        self.has_create_only = has_create_only
        self._clock = clock
        self._sorted: list[str] = []
        self._modified: dict[str, datetime] = {}

    def put(self, key: str, content: bytes, *, create_only: bool) -> int:
        """Store one object, atomically."""
        if create_only and self.has_create_only and self.content.get(key, content) != content:
            raise ObjectExistsError(f"{key} exists", key=key)
        if key not in self.content:
            insort(self._sorted, key)
        self.content[key] = content
        self._modified[key] = self._clock.now
        self.changed.append(key)
        return len(content)

    def delete(self, key: str) -> None:
        """Delete one object, if it is there."""
        if self.content.pop(key, None) is not None:
            del self._sorted[bisect_left(self._sorted, key)]
            self.changed.append(key)

    def get(self, key: str, start: int, end: int | None) -> bytes:
        """Read one object."""
        content = self._existing(key)
        if end is not None and end > len(content):
            raise StorageError(f"{key} ends at {len(content)}", transient=True, key=key)
        return content[start:end]

    def head(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return ObjectInfo(key, len(self._existing(key)), self._modified[key])

    def page(self, prefix: str, after: str) -> list[ObjectInfo]:
        """The next objects after a key, as they are now."""
        first = max(bisect_left(self._sorted, prefix), bisect_right(self._sorted, after))
        keys = self._sorted[first : first + self.page_size]
        return [ObjectInfo(key, len(self.content[key]), self._modified[key]) for key in keys if key.startswith(prefix)]

    def keys(self, prefix: str = "") -> list[str]:
        """All keys with a prefix."""
        return [key for key in self._sorted[bisect_left(self._sorted, prefix) :] if key.startswith(prefix)]

    def _existing(self, key: str) -> bytes:
        if key not in self.content:
            raise ObjectNotFoundError(f"no {key}", key=key)
        return self.content[key]


@dataclass(slots=True)
class Faults:
    """How often calls fail, and how.

    Attributes:
        source: Of chance.
        errors: The share of calls that fail.
        deaths: The share of calls at which the process dies.
        repeats: The share of puts that land a second time, since a client sent them twice.
        any_late: Whether something landed, or may land, when nobody waited for it any more.
    """

    source: random.Random
    errors: float = 0.0
    deaths: float = 0.0
    repeats: float = 0.0
    any_late: bool = False


class SimulatedStorage(Storage):
    """The client of one process.

    Each call stands still until the scheduler comes to it, then takes effect at once, or fails as the faults have it. A
    LIST is a call for each page, and a bulk delete one for each few keys, in any order.
    """

    def __init__(
        self, objects: Objects, process: Process, scheduler: Scheduler, faults: Faults, *, url: str = "sim://store"
    ) -> None:
        self.url = url
        self.objects = objects
        self.process = process
        self._scheduler = scheduler
        self._faults = faults

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        content = joined(body)
        return self._call("put", key, lambda: self.objects.put(key, content, create_only=create_only))

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._call("get", key, lambda: self.objects.get(key, start, end))

    @override
    def head(self, key: str) -> ObjectInfo:
        return self._call("head", key, lambda: self.objects.head(key))

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        after = ""
        while True:
            page = self._call("list", prefix, lambda after=after: self.objects.page(prefix, after))  # type: ignore[misc]
            yield from page
            if len(page) < self.objects.page_size:
                return
            after = page[-1].key

    @override
    def delete(self, keys: Sequence[str]) -> None:
        left = list(keys)
        if len(left) > 1:
            self._faults.source.shuffle(left)
        while left:
            some = [left.pop() for _ in range(min(len(left), self._faults.source.randint(1, 3)))]
            self._call("delete", " ".join(some), lambda some=some: self._delete(some))  # type: ignore[misc]

    @override
    def path(self, key: str = "") -> UPath:
        return UPath(f"memory://simulated/{key}")

    def abort_unfinished_uploads(self, older_than: timedelta) -> int:
        """Each put is one request here."""
        return 0

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.objects.delete(key)

    def _call(self, verb: str, key: str, act: Callable[[], _R]) -> _R:
        call = (verb, key)
        self._scheduler.pause(verb, key)
        chance = self._faults.source.random()
        if chance < self._faults.errors:
            self._fail(call, act)
        if chance < self._faults.errors + self._faults.deaths:
            self._die(call, act)
        if verb == "put" and chance > 1 - self._faults.repeats:
            self._land_later(call, act)
        try:
            result = act()
        except StorageError as error:
            self._scheduler.note(type(error).__name__)
            raise
        self._scheduler.note("ok" if verb != "list" else str(len(result)))  # type: ignore[arg-type]
        return result

    def _fail(self, call: tuple[str, str], act: Callable[[], object]) -> None:
        self.process.failed_calls += 1
        transient = self._faults.source.random() < 0.8
        how = self._faults.source.choice(("no effect", "answer lost", "later")) if _writes(call) else "no effect"
        self._take_effect(how, call, act)
        raise StorageError(f"injected: {call[0]} {call[1]}: {how}", transient=transient, key=call[1])

    def _die(self, call: tuple[str, str], act: Callable[[], object]) -> None:
        how = self._faults.source.choice(("no effect", "answer lost", "later")) if _writes(call) else "no effect"
        self._take_effect(f"dies, {how}", call, act)
        self._scheduler.die(self.process)
        raise ProcessDiedError(self.process.name)

    def _take_effect(self, how: str, call: tuple[str, str], act: Callable[[], object]) -> None:
        self._scheduler.note(how)
        if how.endswith("lost"):
            _quietly(act)
        elif how.endswith("later"):
            self._land_later(call, act)

    def _land_later(self, call: tuple[str, str], act: Callable[[], object]) -> None:
        self._faults.any_late = True
        self._scheduler.land_later(call, lambda: _quietly(act))


def _quietly(act: Callable[[], object]) -> None:
    with suppress(StorageError):  # refused, and nobody hears of it
        act()


def _writes(call: tuple[str, str]) -> bool:
    return call[0] in ("put", "delete")

"""Trying again: when, how often, how long, and never with a body that is used up."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override
from upath import UPath

from statevault.errors import StorageError, StorageUnreachableError
from statevault.storage import Body, ObjectInfo, RetryingStorage, RetryPolicy, Storage


class Flaky(Storage):
    """Fails as often as it is told, and then holds one object."""

    def __init__(self, failures: int, *, transient: bool = True) -> None:
        self.url = "flaky://"
        self.failures = failures
        self.transient = transient
        self.calls = 0
        self.stored = b""
        self.closed = False

    def _try(self) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise StorageError(f"failure {self.calls}", transient=self.transient)

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        parts = [bytes(body)] if isinstance(body, (bytes, bytearray, memoryview)) else [bytes(part) for part in body]
        self._try()
        self.stored = b"".join(parts)
        return len(self.stored)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._try()
        return self.stored[start:end]

    @override
    def head(self, key: str) -> ObjectInfo:
        self._try()
        return ObjectInfo(key, len(self.stored))

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        yield ObjectInfo("first", 1)
        self._try()  # Also half-way.
        yield ObjectInfo("second", 2)

    @override
    def delete(self, keys: Sequence[str]) -> None:
        self._try()

    @override
    def path(self, key: str = "") -> UPath:
        return UPath("memory://flaky") / key

    @override
    def close(self) -> None:
        self.closed = True


class Clock:
    """Time that passes only where somebody sleeps, or a call takes a while."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def retrying(inner: Storage, policy: RetryPolicy, clock: Clock, jitter: float = 1.0) -> RetryingStorage:
    return RetryingStorage(inner, policy, clock=lambda: clock.now, sleep=clock.sleep, jitter=lambda: jitter)


_CALLS: dict[str, Callable[[Storage], object]] = {
    "put": lambda storage: storage.put("key", b"x"),
    "get": lambda storage: storage.get("key"),
    "head": lambda storage: storage.head("key"),
    "list": lambda storage: [info.key for info in storage.list()],
    "delete": lambda storage: storage.delete(["key"]),
    "exists": lambda storage: storage.exists("key"),
}


@pytest.mark.parametrize("call", _CALLS)
def test_a_transient_failure_is_tried_again(call: str) -> None:
    inner, clock = Flaky(2), Clock()
    _CALLS[call](retrying(inner, RetryPolicy(max_attempts=3), clock))
    assert inner.calls == 3
    assert len(clock.waits) == 2


@pytest.mark.parametrize("call", _CALLS)
def test_a_permanent_failure_is_not_tried_again(call: str) -> None:
    inner, clock = Flaky(1, transient=False), Clock()
    with pytest.raises(StorageError, match="failure 1"):
        _CALLS[call](retrying(inner, RetryPolicy(), clock))
    assert inner.calls == 1
    assert clock.waits == []


def test_the_last_failure_is_the_one_that_is_raised() -> None:
    inner, clock = Flaky(9), Clock()
    with pytest.raises(StorageError, match="failure 4"):
        retrying(inner, RetryPolicy(max_attempts=4), clock).get("key")


def test_a_listing_that_breaks_half_way_is_given_once_and_whole() -> None:
    assert [info.key for info in retrying(Flaky(1), RetryPolicy(), Clock()).list()] == ["first", "second"]


def test_waits_double_up_to_a_limit() -> None:
    clock = Clock()
    policy = RetryPolicy(max_attempts=6, first_delay_s=0.1, max_delay_s=0.5, deadline_s=60)
    with pytest.raises(StorageError):
        retrying(Flaky(9), policy, clock).get("key")
    assert clock.waits == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_no_try_begins_after_the_deadline() -> None:
    clock = Clock()
    policy = RetryPolicy(max_attempts=100, first_delay_s=1, max_delay_s=4, deadline_s=10)
    with pytest.raises(StorageError):
        retrying(Flaky(1000), policy, clock).get("key")
    assert clock.waits == [1, 2, 4]


def test_an_upload_that_fails_late_is_tried_again_all_the_same() -> None:
    """The deadline runs from the first failure: what took long before it was work."""
    clock = Clock()

    class Slow(Flaky):
        @override
        def _try(self) -> None:
            if not self.calls:
                clock.now += 600
            super()._try()

    assert retrying(Slow(1), RetryPolicy(deadline_s=5), clock).put("key", [b"a", b"b"]) == 2


def test_a_body_that_can_be_read_again_is_sent_again_whole() -> None:
    inner = Flaky(2)
    assert retrying(inner, RetryPolicy(), Clock()).put("key", [b"ab", b"cd"]) == 4
    assert inner.stored == b"abcd"


def test_a_body_that_is_used_up_is_not_sent_again() -> None:
    inner = Flaky(1)
    with pytest.raises(StorageError, match="failure 1"):
        retrying(inner, RetryPolicy(), Clock()).put("key", iter([b"ab", b"cd"]))
    assert inner.calls == 1
    assert inner.stored == b""


def test_other_errors_are_not_touched() -> None:
    class Broken(Flaky):
        @override
        def _try(self) -> None:
            self.calls += 1
            raise KeyError("a bug")

    inner = Broken(0)
    with pytest.raises(KeyError, match="a bug"):
        retrying(inner, RetryPolicy(), Clock()).get("key")
    assert inner.calls == 1


def test_the_rest_is_passed_on() -> None:
    inner = Flaky(0)
    storage = RetryingStorage(inner)
    assert storage.url == "flaky://"
    assert storage.path("a") == inner.path("a")
    storage.close()
    assert inner.closed


@given(failed=st.integers(1, 5000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_longer_than_the_limit(failed: int, jitter: float) -> None:
    policy = RetryPolicy()
    delay = policy.delay_s(failed, jitter)
    assert 0 <= delay <= min(policy.max_delay_s, policy.first_delay_s * 2.0 ** min(failed - 1, 60))


def test_a_policy_without_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="attempt"):
        RetryPolicy(max_attempts=0)
    with pytest.raises(ValueError, match="negative"):
        RetryPolicy(first_delay_s=-1.0)
    with pytest.raises(ValueError, match="negative"):
        RetryPolicy(deadline_s=-0.1)


def test_the_default_policy_gives_up_a_silent_host_in_less_than_twenty_seconds() -> None:
    """With a connect timeout of 4 s, in the worst case of jitter."""
    for jitter in (0.0, 0.5, 0.999):
        clock = Clock()

        class Silent(Flaky):
            @override
            def _try(self, clock: Clock = clock) -> None:
                clock.now += 4
                raise StorageUnreachableError("silence", transient=True)

        with pytest.raises(StorageUnreachableError):
            retrying(Silent(0), RetryPolicy(), clock, jitter).get("key")
        assert clock.now - 1000 <= 20 + 1e-9


def test_waits_differ_between_two_storages() -> None:
    numbers = itertools.count(1)
    clock = Clock()
    storage = RetryingStorage(Flaky(3), clock=lambda: clock.now, sleep=clock.sleep, jitter=lambda: 1 / next(numbers))
    storage.get("key")
    assert clock.waits == pytest.approx([0.2, 0.2, 0.8 / 3])


def test_waiting_draws_nothing_from_the_global_generator() -> None:
    """An agent, or an experiment, that is resumed goes on with the numbers that it would have drawn."""
    random.seed(1)
    before = random.getstate()
    storage = RetryingStorage(Flaky(failures=2), RetryPolicy(first_delay_s=0.001))
    storage.put("key", b"content")
    assert random.getstate() == before

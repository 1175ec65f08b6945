"""The limit of the bandwidth, by a clock that only moves when somebody sleeps."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statevault.errors import StorageError
from statevault.state_persistence.spool.bandwidth import PacedStorage, TokenBucket
from statevault.storage import RetryingStorage, RetryPolicy
from tests.state_persistence.storages import DictStorage, FailingStorage

KIB = 1024


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def bucket(clock: Clock, rate: float, capacity: float = 0.0) -> TokenBucket:
    return TokenBucket(rate, capacity=capacity, clock=clock, sleep=clock.sleep)


@given(st.lists(st.integers(1, 10_000), min_size=1), st.floats(10, 1e6))
def test_bytes_take_as_long_as_the_rate_says(counts: list[int], rate: float) -> None:
    clock = Clock()
    tokens = bucket(clock, rate)
    for count in counts:
        tokens.take(count)
    assert clock.now - 1000 == pytest.approx(sum(counts) / rate)


def test_a_pause_saves_up_no_more_than_the_capacity() -> None:
    clock = Clock()
    tokens = bucket(clock, 100, capacity=50)
    clock.now += 3600
    tokens.take(50)
    assert clock.slept == []
    tokens.take(100)
    assert clock.slept == [1.0]


def test_time_that_has_passed_is_not_waited_for_again() -> None:
    clock = Clock()
    tokens = bucket(clock, 100)
    tokens.take(100)
    clock.now += 0.0
    tokens.take(100)
    assert clock.slept == [1.0, 1.0]


def test_threads_share_the_rate() -> None:
    slept: list[float] = []
    tokens = TokenBucket(100, clock=lambda: 0.0, sleep=slept.append)
    threads = [threading.Thread(target=tokens.take, args=(100,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_body_goes_in_small_blocks_each_at_its_time() -> None:
    clock = Clock()
    tokens = bucket(clock, 64 * KIB)
    inner = DictStorage()
    content = random.Random(0).randbytes(1000 * KIB + 1)
    PacedStorage(inner, lambda key, count: tokens.take(count)).put("x.state/data", [content[:300], content[300:]])
    assert inner.objects["x.state/data"] == content
    assert max(clock.slept) <= 1.0
    assert sum(clock.slept) == pytest.approx(len(content) / (64 * KIB))


def test_what_is_put_again_counts_again() -> None:
    clock = Clock()
    tokens = bucket(clock, KIB)
    inner = DictStorage()
    failing = FailingStorage(inner, fail_at=1)
    paced = PacedStorage(failing, lambda key, count: tokens.take(count))
    storage = RetryingStorage(paced, RetryPolicy(first_delay_s=0.0), clock=clock, sleep=lambda seconds: None)
    storage.put("key", [b"x" * KIB, b"y" * KIB])
    assert inner.objects["key"] == b"x" * KIB + b"y" * KIB
    assert sum(clock.slept) == pytest.approx(4.0)


def test_a_body_that_can_be_read_once_stays_so() -> None:
    failing = FailingStorage(DictStorage(), fail_at=1)
    storage = RetryingStorage(PacedStorage(failing, lambda key, count: None), sleep=lambda seconds: None)
    with pytest.raises(StorageError):
        storage.put("key", iter([b"x"]))
    assert len(failing.calls) == 1


def test_the_pace_knows_the_key_and_may_break_the_put_off() -> None:
    inner = DictStorage()
    seen: list[tuple[str, int]] = []

    def pace(key: str, count: int) -> None:
        seen.append((key, count))
        if len(seen) == 2:
            raise StorageError("enough")

    with pytest.raises(StorageError, match="enough"):
        PacedStorage(inner, pace).put("a/b", b"x" * 100 * KIB)
    assert seen == [("a/b", 64 * KIB), ("a/b", 36 * KIB)]
    assert inner.objects == {}

"""A pool of threads that works until the very end of the process, with threads and without."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from statevault.worker_pool import WorkerPool, parallel_map, results_of


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


@pytest.fixture(params=["threads", "no threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no threads":
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    return str(request.param)


def half(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


@pytest.mark.usefixtures("threads")
def test_results_come_in_the_order_of_the_items() -> None:
    numbers = range(0, 100, 2)
    assert parallel_map(half, numbers, workers=3, name="test") == list(range(50))
    with WorkerPool(3, "test") as pool:
        assert list(pool.map_ordered(half, numbers, ahead=5)) == list(range(50))
        assert pool.map_all(half, []) == []
        assert pool.submit(half, 8).result() == 4


@pytest.mark.usefixtures("threads")
def test_the_first_error_is_raised_when_all_calls_that_began_have_ended() -> None:
    running = 0
    lock = threading.Lock()

    def call(number: int) -> int:
        nonlocal running
        with lock:
            running += 1
        try:
            return half(number)
        finally:
            with lock:
                running -= 1

    with WorkerPool(4, "test") as pool:
        with pytest.raises(ValueError, match="is odd"):
            pool.map_all(call, range(1000))
        assert running == 0


def test_without_threads_nothing_is_called_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    called: list[int] = []

    def call(number: int) -> int:
        called.append(number)
        return half(number)

    with pytest.raises(ValueError, match="1 is odd"):
        parallel_map(call, range(1000), workers=4, name="test")
    assert called == [0, 1]


def test_several_calls_run_at_once_and_no_more_than_there_are_workers() -> None:
    together = threading.Barrier(3)
    names = set()

    def call(_: int) -> None:
        together.wait(300)
        names.add(threading.current_thread().name)

    parallel_map(call, range(9), workers=3, name="test")
    assert names == {"test-0", "test-1", "test-2"}


def test_a_call_that_was_cancelled_is_not_made() -> None:
    go_on = threading.Event()
    called: list[int] = []
    with WorkerPool(1, "test") as pool:
        blocked = pool.submit(go_on.wait, 60)
        cancelled = pool.submit(called.append, 1)
        assert cancelled.cancel()
        go_on.set()
        later = pool.submit(called.append, 2)
        assert results_of([blocked]) == [True]
        later.result()
    assert called == [2]


def test_memory_is_bounded_by_what_nobody_has_taken_yet() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(0, 40, 2):
            made.append(number)
            yield number

    with WorkerPool(2, "test") as pool:
        for place, _ in enumerate(pool.map_ordered(half, items(), ahead=4)):
            assert len(made) <= place + 4


def test_threads_are_daemons_and_have_ended_when_the_pool_is_left() -> None:
    seen: list[threading.Thread] = []
    with WorkerPool(2, "test") as pool:
        pool.map_all(lambda _: seen.append(threading.current_thread()), range(8))
        assert all(thread.daemon for thread in seen)
    assert not any(thread.is_alive() for thread in seen)


def test_where_only_some_threads_can_be_had_they_do_all(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_one(self: threading.Thread) -> None:
        if started:
            no_thread(self)
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    names = parallel_map(lambda _: threading.current_thread().name, range(20), workers=4, name="test")
    assert set(names) == {"test-0"}

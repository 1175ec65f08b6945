"""The publisher goes on whatever becomes of a job."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import pytest

from statevault.errors import SaveSupersededError, SaveTimeoutError, StateVaultError
from statevault.state_persistence import StateStore
from statevault.state_persistence.concurrency.patience import Patience
from statevault.state_persistence.publish.background import BackgroundPublisher
from tests.state_persistence.storages import DictStorage


class Gate:
    """A job that waits until it may end."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> int:
        self.entered.set()
        assert self.open.wait(300)
        return 1


def submit(
    publisher: BackgroundPublisher[int], job: Callable[[], int], discarded: list[int], *, replaceable: bool = True
) -> Future[int]:
    return publisher.submit(job, discard=lambda: discarded.append(1), replaceable=replaceable)


def test_a_cancelled_future_that_waits_is_not_published_and_harms_nobody() -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    gate, discarded = Gate(), list[int]()
    running = submit(publisher, gate, discarded)
    assert gate.entered.wait(300)
    waiting = submit(publisher, lambda: 2, discarded)
    assert waiting.cancel()
    assert not running.cancel()
    gate.open.set()
    publisher.wait()
    assert running.result() == 1
    with pytest.raises(CancelledError):
        waiting.result()
    assert submit(publisher, lambda: 3, discarded).result(300) == 3
    publisher.close()
    assert len(discarded) == 3


def test_a_cancelled_future_is_superseded_without_an_error() -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    gate, discarded = Gate(), list[int]()
    submit(publisher, gate, discarded)
    assert gate.entered.wait(300)
    cancelled = submit(publisher, lambda: 2, discarded)
    cancelled.cancel()
    replaced = submit(publisher, lambda: 3, discarded)
    last = submit(publisher, lambda: 4, discarded)
    gate.open.set()
    assert last.result(300) == 4
    with pytest.raises(SaveSupersededError):
        replaced.result()
    publisher.close()
    assert len(discarded) == 4


def test_a_callback_that_exits_does_not_end_the_publisher() -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    gate, discarded = Gate(), list[int]()
    future = submit(publisher, gate, discarded)
    future.add_done_callback(lambda _: sys.exit(3))
    gate.open.set()
    publisher.wait()
    assert submit(publisher, lambda: 2, discarded).result(300) == 2
    publisher.close()


def test_a_callback_that_would_wait_for_itself_is_told_so() -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    gate, told = Gate(), list[BaseException]()

    def wait_in_callback(_: Future[int]) -> None:
        try:
            publisher.wait()
        except StateVaultError as error:
            told.append(error)

    submit(publisher, gate, []).add_done_callback(wait_in_callback)
    gate.open.set()
    publisher.close()
    assert "callback" in str(told[0])


def test_where_no_thread_can_be_had_jobs_are_done_by_whoever_submits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    nested: list[Future[int]] = []

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def submit_another() -> int:
        nested.append(submit(publisher, lambda: 2, [], replaceable=True))
        assert not nested[0].done()
        return 1

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        first = submit(publisher, submit_another, [])
        assert first.done()
        assert nested[0].done()
        with pytest.raises(ZeroDivisionError):
            submit(publisher, lambda: 1 // 0, []).result()
        publisher.wait()
    assert (first.result(), nested[0].result()) == (1, 2)
    assert submit(publisher, lambda: 3, []).result(300) == 3
    publisher.close()


def test_a_wait_ends_when_its_time_is_over_and_names_what_it_left_behind() -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    gate = Gate()
    running = submit(publisher, gate, [])
    assert gate.entered.wait(300)
    waiting = submit(publisher, lambda: 2, [])
    message = r"publishing a state that was begun \d+ s ago, and 1 that wait did not end within 0\.05 s"
    with pytest.raises(SaveTimeoutError, match=message):
        publisher.wait(Patience(0.05))
    with pytest.raises(TimeoutError):
        publisher.close(Patience(0.0))
    with pytest.raises(StateVaultError, match="closed"):
        submit(publisher, lambda: 3, [])
    gate.open.set()
    publisher.close(Patience(30.0))
    assert (running.result(0), waiting.result(0)) == (1, 2)


def test_a_wait_tells_now_and_then_that_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    gate = Gate()
    submit(publisher, gate, [])
    threading.Timer(0.3, gate.open.set).start()
    publisher.wait(Patience(None, report_interval_s=0.05))
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert "still publishing a state" in caplog.messages[0]


def test_several_waits_share_one_limit() -> None:
    patience = Patience(0.05)
    for _ in range(2):
        with pytest.raises(SaveTimeoutError):
            patience.wait(threading.Event().wait, lambda: "waiting")
        assert patience.left_s == 0
    patience.wait(lambda seconds: True, lambda: "waiting")  # what has ended needs no time


def test_a_store_that_could_not_be_closed_in_time_can_be_closed_later() -> None:
    gate = Gate()

    class Part:
        def save_state(self, path: object) -> None:
            pass

        def load_state(self, path: object) -> None:
            pass

    storage = DictStorage()
    store = StateStore(storage)
    store.register("part", Part())
    with pytest.MonkeyPatch.context() as patch:
        put = storage.put
        patch.setattr(storage, "put", lambda *args, **options: (gate(), put(*args, **options))[1])
        future = store.save_state_async()
        assert gate.entered.wait(300)
        with pytest.raises(SaveTimeoutError):
            store.wait(timeout=0.05)
        with pytest.raises(SaveTimeoutError):
            store.close(timeout=0.05)
        gate.open.set()
        store.close(timeout=30.0)
    assert future.result(0).name in {key.split("/")[0] for key in storage.objects}


def test_a_snapshot_that_can_not_be_removed_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    def discard() -> None:
        raise OSError("read-only file system")

    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    assert publisher.submit(lambda: 7, discard=discard, replaceable=False).result(300) == 7
    publisher.close()
    assert "read-only file system" in caplog.text


def test_a_callback_of_a_save_can_not_wait_for_another_one() -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    errors: list[StateVaultError] = []

    def again(_: object) -> None:
        try:
            publisher.submit(lambda: 2, discard=lambda: None, replaceable=False)
        except StateVaultError as error:
            errors.append(error)

    go_on = threading.Event()

    def publish() -> int:
        assert go_on.wait(300)
        return 1

    future = publisher.submit(publish, discard=lambda: None, replaceable=False)
    future.add_done_callback(again)
    go_on.set()
    assert future.result(300) == 1
    publisher.close()
    assert "save_state_async" in str(errors[0])

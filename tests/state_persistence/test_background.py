"""The publisher goes on whatever becomes of a job."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import pytest

from statevault.errors import SaveSupersededError, StateVaultError
from statevault.state_persistence.background import BackgroundPublisher


class Gate:
    """A job that waits until it may end."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> int:
        self.entered.set()
        assert self.open.wait(30)
        return 1


def submit(
    publisher: BackgroundPublisher[int], job: Callable[[], int], discarded: list[int], *, replaceable: bool = True
) -> Future[int]:
    return publisher.submit(job, discard=lambda: discarded.append(1), replaceable=replaceable)


def test_a_cancelled_future_that_waits_is_not_published_and_harms_nobody() -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    gate, discarded = Gate(), list[int]()
    running = submit(publisher, gate, discarded)
    assert gate.entered.wait(30)
    waiting = submit(publisher, lambda: 2, discarded)
    assert waiting.cancel()
    assert not running.cancel()
    gate.open.set()
    publisher.wait()
    assert running.result() == 1
    with pytest.raises(CancelledError):
        waiting.result()
    assert submit(publisher, lambda: 3, discarded).result(30) == 3
    publisher.close()
    assert len(discarded) == 3


def test_a_cancelled_future_is_superseded_without_an_error() -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()
    gate, discarded = Gate(), list[int]()
    submit(publisher, gate, discarded)
    assert gate.entered.wait(30)
    cancelled = submit(publisher, lambda: 2, discarded)
    cancelled.cancel()
    replaced = submit(publisher, lambda: 3, discarded)
    last = submit(publisher, lambda: 4, discarded)
    gate.open.set()
    assert last.result(30) == 4
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
    assert submit(publisher, lambda: 2, discarded).result(30) == 2
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


def test_a_system_without_threads_refuses_the_job_and_later_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher: BackgroundPublisher[int] = BackgroundPublisher()

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(StateVaultError, match="can't start new thread"):
            submit(publisher, lambda: 1, [])
        publisher.wait()
    assert submit(publisher, lambda: 2, []).result(30) == 2
    publisher.close()

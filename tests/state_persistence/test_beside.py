"""A call beside another."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from statevault.state_persistence.concurrency.beside import Beside


def wait_and_set(first: threading.Event, then: threading.Event) -> None:
    assert first.wait(300)
    then.set()


def set_and_wait(first: threading.Event, then: threading.Event) -> bool:
    first.set()
    return then.wait(300)


def fail() -> None:
    raise ValueError("no")


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("has_threads", [True, False])
def test_its_result_is_that_of_the_call(has_threads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_threads:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    calls = iter([5])
    with Beside(lambda: next(calls), "beside") as beside:
        assert beside.result() == beside.result() == 5
    with Beside(fail, "beside") as beside_failure:
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                beside_failure.result()
    Beside(fail, "nobody asks")


@pytest.mark.parametrize("has_threads", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_it_has_ended_at_the_end(has_threads: bool, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_threads:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    go_on, ended = threading.Event(), threading.Event()
    if not has_threads:
        go_on.set()
    try:
        with Beside(partial(wait_and_set, go_on, ended), "beside"):
            threading.Timer(0.05, go_on.set).run()
            if fails:
                raise KeyError("own")
    except KeyError:
        assert fails
    assert ended.is_set()


def test_whoever_is_interrupted_does_not_wait() -> None:
    go_on = threading.Event()
    with pytest.raises(KeyboardInterrupt), Beside(go_on.wait, "beside"):
        raise KeyboardInterrupt
    go_on.set()


def test_both_go_on_at_the_same_time() -> None:
    here, there = threading.Event(), threading.Event()
    with Beside(partial(set_and_wait, there, here), "beside") as beside:
        assert there.wait(300)
        here.set()
        assert beside.result()

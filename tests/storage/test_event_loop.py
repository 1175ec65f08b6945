"""The event loop of asynchronous filesystems, where no thread for it is to be had any more."""

from __future__ import annotations

import threading

import fsspec.asyn
import pytest

from statevault.errors import StorageError
from statevault.storage.event_loop import event_loop


def test_a_loop_whose_thread_can_not_be_started_is_an_error_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(fsspec.asyn, "loop", [None])
    monkeypatch.setattr(fsspec.asyn, "iothread", [None])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):  # fsspec keeps the loop, without a thread
        with pytest.raises(StorageError, match="open the store before the main thread ends"):
            event_loop()
    loop = fsspec.asyn.loop[0]
    if loop is not None:
        loop.close()

"""A saving process is killed with SIGKILL at random moments; each time every visible state is bit-exact.

Saves overlap (asynchronous ones follow each other), each state's content follows from a number in its metadata, and
the process tells through a pipe which saves were acknowledged. Between kills, states are removed and debris is swept
while nothing else runs; now and then everything is checked for garbage.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import pytest

from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.prune import prune
from statevault.storage import open_storage
from tests.profiles import rounds
from tests.servers import Servers, StorageTarget
from tests.state_persistence.components import Files, Folder
from tests.state_persistence.garbage import check_no_garbage

BATCHES = 4
KILLS = rounds(short=8, long=250)  # in each batch
KEPT = 3


def content(number: int) -> Files:
    """The files of state number `number`: random, compressible, empty and small ones; one never changes."""
    source = random.Random(number)
    return {
        "frozen.bin": random.Random(-1).randbytes(100_000),
        "weights.bin": source.randbytes(200_000),
        "log.txt": f"{number}: the same line\n".encode() * 5000,
        "empty": b"",
        "step": str(number).encode(),
    }


def save_until_killed(url: str, options: dict[str, object], first: int, acknowledged: Connection) -> None:
    """Save state after state."""
    folder = Folder()
    store = StateStore(url, storage_options=options)
    store.register("folder", folder)
    store.exists()  # connected: from here on nearly every moment is one of a save
    acknowledged.send(None)
    number = first
    while True:
        folder.files = content(number)
        path = store.save_state_async(metadata={"number": number}).result()
        acknowledged.send(path.name)
        number += 1


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that start fast: forked from a server that has imported everything and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["statevault.state_persistence", "s3fs", "tests.state_persistence.test_kills"])
    return context


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("backend", ["local", "juicefs"])
def test_every_visible_state_is_whole_after_each_of_many_kills(
    backend: str, batch: int, servers: Servers, processes: ForkServerContext
) -> None:
    target = servers.target(backend)
    source = random.Random(batch)
    duration = duration_of_a_save(target)
    acknowledged: set[str] = set()
    killed_while_saving = 0
    for kill in range(KILLS):
        receiver, sender = processes.Pipe(duplex=False)
        arguments = (target.url, dict(target.storage_options), kill * 1000, sender)
        process = processes.Process(target=save_until_killed, args=arguments, daemon=True)
        process.start()
        sender.close()
        receiver.recv()
        time.sleep(source.uniform(0, 2.5 * duration))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        acknowledged |= set(received(receiver))
        killed_while_saving += check_and_thin(target, acknowledged)
    with contextlib.closing(open_storage(target.url, target.storage_options)) as storage:
        check_no_garbage(storage)
    assert killed_while_saving > KILLS // 10
    print(f"{backend}: {KILLS} kills, {killed_while_saving} in the middle of a save, {len(acknowledged)} acknowledged")


def duration_of_a_save(target: StorageTarget) -> float:
    folder = Folder(content(0))
    with StateStore(target.url, storage_options=target.storage_options) as store:
        store.register("folder", folder)
        began = time.monotonic()
        for number in range(3):
            folder.files = content(number)
            store.save_state(metadata={"number": number})
        return (time.monotonic() - began) / 3


def received(receiver: Connection) -> Iterator[str]:
    try:
        while True:
            yield receiver.recv()
    except EOFError:
        receiver.close()


def check_and_thin(target: StorageTarget, acknowledged: set[str]) -> bool:
    """Check all visible states, remove the older ones; returns whether the kill cut a save off."""
    folder = Folder()
    with StateStore(target.url, storage_options=target.storage_options) as store:
        store.register("folder", folder)
        infos = store.states()
        gone = {key.state for key in store._catalog.listing().tombstones}
        assert acknowledged - gone <= {info.name for info in infos}
        for info in infos:
            store.load_state(info.name)
            number = info.metadata["number"]
            assert isinstance(number, int)
            assert folder.files == content(number)
        committed = {info.name for info in infos}
        cut_off = bool(store._catalog.listing().sessions - committed - store._catalog.listing().aborts)
        # Two at a time: the debris of the killed writer is given up, since it is known to be dead.
        prune(
            store._storage,
            store._catalog,
            [info.name for info in infos[:-KEPT]],
            by="test",
            reason="thinned",
            stale_after=timedelta(0),
        )
        return cut_off

"""A process that saves and replicates is killed with SIGKILL at random moments, on a network that comes and goes.

Whatever the moment: what the remote shows is whole and in the order of the saves, every acknowledged state is in the
spool or at the remote, and once the network stays, all of them get to the remote.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from statevault.state_persistence import StateStore
from statevault.state_persistence.spool import Spool
from statevault.storage import RetryPolicy
from tests.launcher.outage import Network
from tests.profiles import rounds
from tests.servers import Servers, StorageTarget, target_names
from tests.state_persistence.components import Folder
from tests.state_persistence.spool.spooling import numbered

KILLS = rounds(short=8, long=100)
RETRY = RetryPolicy(max_attempts=1000, first_delay_s=0.05, max_delay_s=0.2, deadline_s=20.0)
NEXT = 1000


def save_until_killed(url: str, options: dict[str, Any], path: Path, first: int, acknowledged: Connection) -> None:
    """Save state after state."""
    folder = Folder()
    spool = Spool(path, retry=RETRY, refused_delay_s=0.2)
    store = StateStore(url, storage_options=options, spool=spool)
    store.register("folder", folder)
    acknowledged.send(None)
    number = first
    while True:
        folder.files = numbered(number)
        store.save_state(metadata={"number": number})
        acknowledged.send(number)
        number += 1
        time.sleep(0.05)


def received(receiver: Connection) -> list[int]:
    numbers = []
    try:
        while True:
            numbers.append(receiver.recv())
    except EOFError:
        receiver.close()
    return numbers


def numbers_in(where: StorageTarget | Path, *, verify: bool = False) -> list[int]:
    """The numbers of the states of a store in their order; each of them is loaded and compared."""
    folder = Folder()
    url, options = (str(where), None) if isinstance(where, Path) else (where.url, where.storage_options)
    with StateStore(url, storage_options=options) as store:
        store.register("folder", folder)
        infos = store.states()
        for info in infos if verify else infos[-3:]:
            store.load_state(info.name)
            assert folder.files == numbered(number_of(info.metadata))
        return [number_of(info.metadata) for info in infos]


def number_of(metadata: dict[str, Any]) -> int:
    number = metadata["number"]
    assert isinstance(number, int)
    return number


def once(numbers: list[int]) -> list[int]:
    """A number that follows itself, once: a request of a killed process may land when its state is copied again."""
    return [number for number, _ in groupby(numbers)]


@pytest.mark.skipif("juicefs" not in target_names(), reason="needs a server")
def test_a_killed_process_leaves_a_remote_that_is_whole_and_in_order(servers: Servers, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["statevault.state_persistence", "s3fs", "tests.state_persistence.spool.test_kills"])
    remote, source = servers.target("juicefs"), random.Random(0)
    acknowledged: list[int] = []
    with Network(str(remote.storage_options["endpoint_url"])) as network:
        options = {**remote.storage_options, "endpoint_url": network.url}
        for kill in range(KILLS):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (remote.url, options, tmp_path, kill * NEXT, sender)
            process = context.Process(target=save_until_killed, args=arguments, daemon=True)
            process.start()
            sender.close()
            receiver.recv()
            for _ in range(source.randrange(4)):
                (network.go_down if source.random() < 0.4 else network.come_up)()
                time.sleep(source.uniform(0, 0.5))
            time.sleep(source.uniform(0, 0.5))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            acknowledged += received(receiver)
            there = once(numbers_in(remote))
            assert there == sorted(there)
            assert set(acknowledged) <= set(there) | set(numbers_in(tmp_path))
            network.break_connections()
    with StateStore(remote.url, storage_options=remote.storage_options, spool=Spool(tmp_path)) as store:
        store.register("folder", Folder())
        store.flush(300)
        newest = store.latest()
    assert newest is not None
    there = once(numbers_in(remote, verify=True))
    assert there == sorted(there)
    assert set(acknowledged) <= set(there)
    assert there[-1] == number_of(newest.metadata) >= max(acknowledged)
    print(f"{KILLS} kills, {len(acknowledged)} saves acknowledged, {len(there)} at the remote")

"""An operator looks into the spool of an agent that is down, and moves what waits by hand, with the command line."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from statevault.state_persistence import StateStore
from statevault.state_persistence.spool.ledger import LEDGER_KEY, LedgerRecord
from tests.cli.run import invoked
from tests.launcher.outage import Network
from tests.servers import Servers, StorageTarget, target_names
from tests.state_persistence.components import Folder
from tests.state_persistence.spool.spooling import save, until
from tests.state_persistence.spool.test_outage import check_remote, spooled, through

pytestmark = pytest.mark.skipif("juicefs" not in target_names(), reason="needs a server")


@pytest.fixture
def remote(servers: Servers) -> StorageTarget:
    return servers.target("juicefs")


def target_options(remote: StorageTarget) -> list[str]:
    return [part for key, value in remote.storage_options.items() for part in ("--target-option", f"{key}={value}")]


def move_by_hand(spool: Path, remote: StorageTarget) -> dict[str, str]:
    """What becomes of each state."""
    run = invoked("cp", str(spool), remote.url, *target_options(remote), "--json")
    assert run.code == 0
    return {state["state"]: state["outcome"] for state in run.json}


def waiting(spool: Path) -> list[str]:
    """As the guide says: what the spool has, but for what its notes say is at the remote."""
    notes = Path(spool, LEDGER_KEY)
    done = LedgerRecord.from_json(notes.read_bytes(), where=str(notes)).done if notes.exists() else {}
    return [state["name"] for state in invoked("ls", str(spool), "--json").json if state["name"] not in done]


def test_what_waits_is_seen_and_moved_and_the_agent_goes_on_from_there(remote: StorageTarget, tmp_path: Path) -> None:
    spool, folder = tmp_path / "spool", Folder()
    with Network(str(remote.storage_options["endpoint_url"])) as network:
        with spooled(remote, network.url, spool, folder) as store:
            save(store, folder, 1)
            store.flush(300)
            network.go_down()
            save(store, folder, 2, 3)
            store.pin("2.state", "paper")
        assert waiting(spool) == ["2.state", "3.state"]
        assert invoked("doctor", str(spool)).code == 0
        assert invoked("verify", str(spool)).code == 0

        assert move_by_hand(spool, remote) == {"1.state": "present", "2.state": "copied", "3.state": "copied"}
        check_remote(remote, 1, 2, 3)

        network.come_up()
        with spooled(remote, network.url, spool, folder) as store:
            store.flush(300)
            status = store.replication()
            assert status is not None
            assert (status.pending, status.sent_bytes) == (0, 0)  # nothing is sent again
            assert store.pins() == {"2.state": ("paper",)}  # which a copy does not take along
            save(store, folder, 4)
            store.flush(300)
        check_remote(remote, 1, 2, 3, 4)
    with StateStore(remote.url, storage_options=remote.storage_options) as there:
        assert there.names() == ["1.state", "2.state", "3.state", "4.state"]
        assert there.pins() == {"2.state": ("paper",)}


def save_and_wait(url: str, options: dict[str, Any], path: Path, saved: Connection) -> None:
    folder = Folder()
    store = StateStore(url, storage_options=options, spool=path)
    store.register("folder", folder)
    save(store, folder, 1, 2)
    saved.send(None)
    signal.pause()


def test_what_a_killed_agent_had_begun_to_send_is_moved_too(remote: StorageTarget, tmp_path: Path) -> None:
    spool, folder = tmp_path / "spool", Folder()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["statevault.state_persistence"])
    with Network(str(remote.storage_options["endpoint_url"])) as network:
        network.go_down()
        receiver, sender = context.Pipe(duplex=False)
        arguments = (remote.url, through(remote, network.url), spool, sender)
        process = context.Process(target=save_and_wait, args=arguments, daemon=True)
        process.start()
        receiver.recv()
        network.come_up()
        until(lambda: any("/sessions/" in key for key in remote.raw.keys()))  # noqa: SIM118 - a method
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        network.break_connections()
        outcomes = move_by_hand(spool, remote)
        assert set(outcomes) <= {"1.state", "2.state"}
        assert "2.state" in outcomes
        check_remote(remote, 1, 2)
        with spooled(remote, network.url, spool, folder) as store:
            store.flush(300)
            save(store, folder, 3)
            store.flush(300)
        check_remote(remote, 1, 2, 3)

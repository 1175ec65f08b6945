"""A spool before a real server, behind a network that breaks."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statevault.errors import StorageError
from statevault.state_persistence import StateStore
from statevault.state_persistence.spool import ReplicationPhase, ReplicationStatus, Spool
from statevault.storage import RetryPolicy
from tests.launcher.outage import Network
from tests.servers import Servers, StorageTarget, breaking_proxy, target_names
from tests.state_persistence.components import Folder
from tests.state_persistence.spool.spooling import numbered, save, until

pytestmark = pytest.mark.skipif("juicefs" not in target_names(), reason="needs a server")

PATIENT = RetryPolicy(max_attempts=1000, first_delay_s=0.1, max_delay_s=0.5, deadline_s=120.0)


@pytest.fixture
def remote(servers: Servers) -> StorageTarget:
    return servers.target("juicefs")


@pytest.fixture
def network(remote: StorageTarget) -> Iterator[Network]:
    with Network(str(remote.storage_options["endpoint_url"])) as network:
        yield network


def through(remote: StorageTarget, url: str) -> dict[str, Any]:
    return {**remote.storage_options, "endpoint_url": url}


def status(store: StateStore) -> ReplicationStatus:
    found = store.replication()
    assert found is not None
    return found


def spooled(remote: StorageTarget, url: str, path: Path, folder: Folder, **settings: Any) -> StateStore:
    spool = Spool(path, **{"retry": PATIENT, "refused_delay_s": 0.2, "linger_s": 0.0, **settings})
    store = StateStore(remote.url, storage_options=through(remote, url), spool=spool)
    store.register("folder", folder)
    return store


def check_remote(remote: StorageTarget, *numbers: int) -> None:
    """Look at the remote without the broken network."""
    folder = Folder()
    with StateStore(remote.url, storage_options=remote.storage_options) as store:
        store.register("folder", folder)
        assert [info.metadata["number"] for info in store.states()] == list(numbers)
        for name in store.names():
            number = store.load_state(name).metadata["number"]
            assert isinstance(number, int)
            assert folder.files == numbered(number)


def test_an_outage_delays_replication_and_nothing_else(remote: StorageTarget, network: Network, tmp_path: Path) -> None:
    folder = Folder()
    with spooled(remote, network.url, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
        network.go_down()
        save(store, folder, 2, 3, 4)
        until(lambda: status(store).phase is ReplicationPhase.RETRYING)
        assert status(store).pending == 3
        folder.files = {}
        assert store.load_state("latest").name == "4.state"
        check_remote(remote, 1)
        network.come_up()
        store.flush(300)
        check_remote(remote, 1, 2, 3, 4)


def test_a_restart_in_an_outage_loses_nothing(remote: StorageTarget, network: Network, tmp_path: Path) -> None:
    folder = Folder()
    network.go_down()
    with spooled(remote, network.url, tmp_path, folder) as store:
        save(store, folder, 1, 2)
    with spooled(remote, network.url, tmp_path, folder) as store:
        assert store.load_state("latest").name == "2.state"
        save(store, folder, 3)
        network.come_up()
        store.flush(300)
    check_remote(remote, 1, 2, 3)


def test_a_state_whose_upload_is_interrupted_is_gone_on_with(
    remote: StorageTarget, network: Network, tmp_path: Path
) -> None:
    folder = Folder({f"part-{index}": random.Random(index).randbytes(200_000) for index in range(10)})
    with spooled(remote, network.url, tmp_path, folder, bandwidth=2_000_000.0) as store:
        store.save_state(name="big.state", metadata={"number": 1})
        until(lambda: any(key.startswith("big.state/") for key in remote.raw.keys()))  # noqa: SIM118 - a method
        network.go_down()
        until(lambda: status(store).phase is ReplicationPhase.RETRYING)
        network.come_up()
        store.flush(300)
        # The same try of the same save: under its own name, and each file but those under way was sent once.
        with StateStore(remote.url, storage_options=remote.storage_options) as there:
            assert there.names() == ["big.state"]
            there.verify("big.state")


@pytest.mark.parametrize("seed", range(3))
def test_connections_that_break_in_mid_answer_are_survived(remote: StorageTarget, tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    limits = [source.choice([0, 1, 100, 400, 1000, None]) for _ in range(30)]
    folder = Folder()
    with (
        breaking_proxy(str(remote.storage_options["endpoint_url"]), limits) as url,
        spooled(remote, url, tmp_path, folder) as store,
    ):
        save(store, folder, 1, 2, 3)
        store.flush(300)
    check_remote(remote, 1, 2, 3)


def test_wrong_credentials_are_told_and_mended_by_a_restart(remote: StorageTarget, tmp_path: Path) -> None:
    folder = Folder()
    spool = Spool(tmp_path, refused_delay_s=0.2, linger_s=0.0)
    wrong = {**remote.storage_options, "secret": "not the secret"}
    with StateStore(remote.url, storage_options=wrong, spool=spool) as store:
        store.register("folder", folder)
        save(store, folder, 1)
        until(lambda: status(store).phase is ReplicationPhase.REFUSED)
        assert status(store).last_error
        assert store.load_state("latest").name == "1.state"
        with pytest.raises(StorageError):
            store.states()
    with StateStore(remote.url, storage_options=remote.storage_options, spool=spool) as store:
        store.flush(300)
    check_remote(remote, 1)


FORGETFUL = """
import sys
from statevault import StateStore
from tests.state_persistence.components import Folder
store = StateStore("s3://nowhere/x", storage_options={"endpoint_url": sys.argv[1], "key": "k", "secret": "s"},
                   spool=sys.argv[2])
store.register("folder", Folder({"x": b"1"}))
store.save_state(name="1.state")
while not store.replication().failures:
    pass
print("saved", flush=True)
"""


def test_a_process_that_forgets_to_close_ends_all_the_same(network: Network, tmp_path: Path) -> None:
    network.go_down()
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", FORGETFUL, network.url, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert "saved" in result.stdout
    assert time.monotonic() - began < 100  # and does not wait out the hour of retries
    assert StateStore(tmp_path).names() == ["1.state"]

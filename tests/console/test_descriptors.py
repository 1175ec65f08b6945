"""Whoever has taken the descriptors of the process, its states are saved, and the operator gets through."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from statevault.console import WebApiClient, WebApiUnreachableError
from statevault.console.views import SavesView
from statevault.state_persistence import StateStore
from tests.console.running import LIMIT_S, free_port, until
from tests.launcher.agent import Parts
from tests.servers import Servers, StorageTarget, target_names

ROOT = Path(__file__).parents[2]
IDLE = 1100
LEAST_LIMIT = 2 * IDLE
TOKEN = "correct-horse-battery"

T = TypeVar("T")


class Agent:
    """An agent in a process of its own, with a limit of descriptors."""

    def __init__(self, process: subprocess.Popen[str], log: Path, target: StorageTarget, client: WebApiClient) -> None:
        self._process = process
        self._log = log
        self._target = target
        self._client = client
        self.port = int(client.url.rpartition(":")[2])

    def asked(self, question: Callable[[WebApiClient], T]) -> T:
        """What it answers. Where others crowd it, a request of a slow machine may have to be made again."""
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                return question(self._client)
            except WebApiUnreachableError:
                assert time.monotonic() < end, self.log

    def until_saves(self, count: Callable[[SavesView], int], more: int) -> None:
        """Wait until so many more are counted."""
        wanted = self.asked(lambda client: count(client.get_system().saves)) + more
        until(lambda: self.asked(lambda client: count(client.get_system().saves)) >= wanted)

    def save(self) -> str:
        """Let it save; what became of it."""
        save_id = self.asked(WebApiClient.save).id
        save = self.asked(lambda client: client.wait_for_save(save_id, timeout=LIMIT_S))
        return save.error or save.status

    def end(self) -> None:
        """End it in order, and check that its last step was saved."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGTERM)
        output = self._process.stdout.read()
        assert self._process.wait(LIMIT_S) == 0, self.log
        steps = int(output.split()[-1])
        parts = Parts()
        with StateStore(self._target.url, storage_options=self._target.storage_options) as store:
            store.register("interaction", parts.interaction)
            loaded = store.load_state("latest", components=["interaction"])
        assert loaded.metadata["exit"] == "clean"
        assert parts.agent.steps == steps

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def problems(self) -> list[str]:
        """The lines of its log that are of no use but where something is wrong, tracebacks included."""
        return [line for line in self.log.splitlines() if not line.startswith("INFO:")]


@contextmanager
def agent(target: StorageTarget, folder: Path, *, limit: int, leak: str = "none", **config: Any) -> Iterator[Agent]:
    """Run one until it acts, and has leaked what it is to leak."""
    port = free_port()
    config = {
        "states_dir": target.url,
        "storage_options": dict(target.storage_options),
        "web_api_address": ("localhost", port),
        "max_uptime": 10 * LIMIT_S,
        **config,
    }
    log = folder / "log"
    command = [sys.executable, "-m", "tests.console.run_limited", str(limit), leak, json.dumps(config)]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        WebApiClient("localhost", port, token=config.get("web_api_token")) as client,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "acting\n", log.read_text()
            if leak != "none":
                assert process.stdout.readline().startswith("leaked")
            yield Agent(process, log, target, client)
        finally:
            process.kill()


@contextmanager
def held(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Begin so many connections, and send nothing; who is not let in waits for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_LIMIT:
        pytest.skip(f"this process may not have {LEAST_LIMIT} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, LEAST_LIMIT), hard))
    try:
        with ExitStack() as stack:
            connections = [stack.enter_context(socket.socket()) for _ in range(count)]
            for connection in connections:
                connection.setblocking(False)
                connection.connect_ex(("127.0.0.1", port))
            yield connections
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def local(servers: Servers) -> StorageTarget:
    return servers.target("local")


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("limit", [1024, 128])
def test_idle_connections_hold_up_neither_saves_nor_the_operator(
    local: StorageTarget, tmp_path: Path, limit: int, token: str | None
) -> None:
    with (
        agent(local, tmp_path, limit=limit, save_state_interval=0.2, web_api_token=token) as system,
        held(system.port, IDLE),
    ):
        system.until_saves(lambda saves: saves.committed, 3)  # it is the operator who sees that
        system.end()
        assert len(system.problems) == 1  # that there are too many


@pytest.mark.parametrize("limit", [1024, 128])
def test_saves_go_on_when_the_program_has_leaked_all_descriptors(
    local: StorageTarget, tmp_path: Path, limit: int
) -> None:
    with agent(local, tmp_path, limit=limit, leak="all", max_keep_states=2) as system:
        assert [system.save() for _ in range(4)] == ["committed"] * 4
        system.end()
        assert system.problems
        assert all(line.startswith("WARNING:") for line in system.problems), system.log
        assert len(system.problems) <= 3


@pytest.mark.parametrize("name", [name for name in ("moto", "juicefs", "fake-gcs") if name in target_names()])
def test_so_do_saves_to_a_server(servers: Servers, tmp_path: Path, name: str) -> None:
    with agent(servers.target(name), tmp_path, limit=256, leak="all") as system:
        assert [system.save() for _ in range(2)] == ["committed"] * 2
        system.end()


def test_so_do_those_into_a_spool(servers: Servers, tmp_path: Path) -> None:
    with agent(servers.target("local"), tmp_path, limit=256, leak="all", spool=str(tmp_path / "spool")) as system:
        assert [system.save() for _ in range(2)] == ["committed"] * 2
        system.end()


def test_idle_connections_beside_a_leak(local: StorageTarget, tmp_path: Path) -> None:
    with agent(local, tmp_path, limit=256, leak="all") as system, held(system.port, IDLE):
        assert system.save() == "committed"
        system.end()


def test_the_final_state_is_saved_also_where_few_can_be_kept(local: StorageTarget, tmp_path: Path) -> None:
    with agent(local, tmp_path, limit=64, leak="all") as system:
        system.end()


def test_the_final_state_is_saved_while_the_leak_goes_on(local: StorageTarget, tmp_path: Path) -> None:
    with agent(local, tmp_path, limit=1024, leak="on") as system:
        assert system.asked(WebApiClient.get_status) == "active"
        system.end()


def test_the_final_state_is_saved_when_saves_have_lost_what_was_kept_for_them(
    local: StorageTarget, tmp_path: Path
) -> None:
    with agent(local, tmp_path, limit=128, leak="save", save_state_interval=0.01) as system:
        system.until_saves(lambda saves: saves.failed, 4)
        system.end()
        assert system.log.count("no state was saved") <= 2  # for want of a descriptor in the snapshot, or the publish

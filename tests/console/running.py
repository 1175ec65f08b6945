"""A launched agent with its web API, in a thread of the test's process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from statevault.console import WebApiClient, WebApiUnreachableError
from statevault.launcher import launch
from tests.launcher.agent import Parts

LIMIT_S = 300.0


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(reached: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


class Launched:
    """An agent that runs."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.parts = Parts()
        self.folder = folder
        self.port = free_port()
        self.client = WebApiClient("127.0.0.1", self.port, token=config.get("web_api_token"))
        self.error: BaseException | None = None
        self._config = {"states_dir": folder, "web_api_address": ("localhost", self.port), "max_uptime": 60.0, **config}
        self._thread = threading.Thread(target=self._run, name="test-launch")

    def _run(self) -> None:
        parts = self.parts
        try:
            launch(parts.interaction, parts.models, parts.data, parts.trainers, self._config)
        except BaseException as error:
            self.error = error

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def until_status(self, status: str) -> None:
        """Wait until the API says so."""
        until(lambda: self.client.get_status() == status)

    def until_phase(self, phase: str) -> None:
        """Wait until the system is in that phase: "paused", "saving", …"""
        until(lambda: self.client.get_system().phase == phase)

    def answers(self) -> bool:
        """Whether the API is up."""
        try:
            self.client.get_status()
        except WebApiUnreachableError:
            return False
        return True

    def join(self) -> None:
        self._thread.join(LIMIT_S)
        assert not self.alive

    @contextmanager
    def running(self) -> Iterator[Launched]:
        """Launch it, and end it afterwards."""
        self._thread.start()
        try:
            until(lambda: self.answers() or not self.alive)
            assert self.error is None
            yield self
        finally:
            if self.alive and self.answers():
                self.client.shutdown()
            self.join()
            self.client.close()
        assert self.error is None


@contextmanager
def launched(folder: Path, **config: Any) -> Iterator[Launched]:
    """An agent that runs inside the block."""
    with Launched(folder, **config).running() as system:
        yield system

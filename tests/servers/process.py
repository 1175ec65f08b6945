"""A server as a process of this test run: started, waited for, and always ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["ServerStartError", "free_port", "running_server"]

_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 10.0


class ServerStartError(RuntimeError):
    """A server ended, or did not listen in time; the message holds its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_server(
    command: Sequence[str | Path], *, port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the block ends.

    Args:
        command: What to run; it stays in the foreground.
        port: Where it listens once it is ready.
        log: Where its output goes.
        env: Beside this process' environment.

    Raises:
        ServerStartError: It did not start to listen.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            _wait_until_listening(process, port, log)
            yield
        finally:
            _end(process)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            state = f"ended with {process.returncode}" if process.returncode is not None else "does not listen"
            msg = f"{process.args!r} {state}. Its log:\n{log.read_text(errors='replace')[-4000:]}"
            raise ServerStartError(msg)
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    # The whole group: some servers have children.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

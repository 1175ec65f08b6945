"""A worker process as the director sees it: started, listened to, stopped or killed."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, Self

from statevault.errors import StateVaultError

__all__ = ["Worker"]

_END_TIMEOUT_S = 60.0


class Worker:
    """One process that learns. Ends with the block that it is used in, whatever happens.

    Args:
        arguments: See :func:`statevault.demo.worker.main`.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        command = [sys.executable, "-m", "statevault.demo.worker", json.dumps(arguments)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_events, name="demo-events", daemon=True),
            threading.Thread(target=self._read_errors, name="demo-errors", daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(_END_TIMEOUT_S)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next thing that it told; None if it told nothing in time.

        Raises:
            StateVaultError: It ended by itself; the message is what it wrote to stderr last.
        """
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            if self._process.poll() is not None and self._events.empty():
                for reader in self._readers:
                    reader.join(1.0)
                last = self._errors[-1] if self._errors else f"exit code {self._process.returncode}"
                raise StateVaultError(f"the learning process ended by itself: {last}") from None
            return None

    def kill(self) -> None:
        """SIGKILL: no handler, no cleanup, no goodbye."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait for the final save.

        Returns:
            The exit code.
        """
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_END_TIMEOUT_S)

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    self._events.put(json.loads(line))
                except ValueError:
                    continue  # cut short by a kill

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._errors.extend(line.rstrip() for line in lines if line.strip())

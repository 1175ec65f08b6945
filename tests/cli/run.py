"""The command line as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from statevault.cli.app import app
from statevault.errors import StorageError
from statevault.storage.local.storage import LocalStorage


@dataclass(frozen=True, slots=True)
class Run:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.out)


def statevault(*arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 120) -> Run:
    """Run ``statevault …``, with nobody at the keyboard."""
    done = subprocess.run(
        [sys.executable, "-m", "statevault.cli", *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


def invoked(*arguments: str) -> Run:
    """Run ``statevault …`` in this process, which is faster: for tests of what it says, not of how it runs."""
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Run(done.exit_code, done.stdout, done.stderr)


def in_a_terminal(*arguments: str, answer: str = "", columns: int = 80) -> Run:
    """Run ``statevault …`` in a terminal, in which somebody types; all that it shows is in `out`, without colors."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "statevault.cli", *arguments], stdin=child, stdout=child, stderr=child, env=environment
    )
    os.close(child)
    os.write(parent, answer.encode())
    shown = b""
    while True:
        try:
            piece = os.read(parent, 65_536)
        except OSError:  # how Linux says that nobody holds the other end any more
            break
        if not piece:
            break
        shown += piece
    os.close(parent)
    return Run(process.wait(300), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n"), "")


def make_unreadable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each read of objects of a name fail, as on a broken disk, for :func:`invoked` commands on local stores."""
    for method in ("get", "get_into"):
        read = getattr(LocalStorage, method)

        def failing(storage: LocalStorage, key: str, *args: Any, read: Any = read) -> Any:
            if key.endswith(name):
                raise StorageError(f"can't read {key}: the disk is broken", key=key)
            return read(storage, key, *args)

        monkeypatch.setattr(LocalStorage, method, failing)


def option_arguments(storage_options: Mapping[str, Any]) -> list[str]:
    """Storage options as the command line takes them."""
    return [argument for key, value in storage_options.items() for argument in ("-o", f"{key}={value}")]

"""The command line as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    """Run ``statevault …``."""
    done = subprocess.run(
        [sys.executable, "-m", "statevault.cli", *arguments],
        capture_output=True,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


def option_arguments(storage_options: Mapping[str, Any]) -> list[str]:
    """Storage options as the command line takes them."""
    return [argument for key, value in storage_options.items() for argument in ("-o", f"{key}={value}")]

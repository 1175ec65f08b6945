"""Launches the small agent on a storage that hangs for ever: ``run_hanging.py KEY [FIELD=VALUE …]``.

The storage hangs when it is to write an object whose key holds KEY. The fields are those of the configuration.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from statevault.launcher import launch
from tests.launcher.agent import Parts


class StuckFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files in memory; a write that it does not like never ends."""

    key = ""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if self.key in path:
            print("hanging\n", end="", flush=True)  # in one write: several threads may hang at the same time
            threading.Event().wait()
        super().pipe_file(path, value, mode, **options)


if __name__ == "__main__":
    StuckFileSystem.key, *fields = sys.argv[1:]
    fsspec.register_implementation("memory", StuckFileSystem, clobber=True)
    parts = Parts()
    step = parts.agent.step

    def telling(observation: float) -> float:
        if parts.agent.steps == 10:
            print("acting", flush=True)
        return step(observation)

    parts.agent.step = telling  # type: ignore[method-assign]
    config: dict[str, Any] = {"states_dir": "memory://states", "web_api_address": None}
    for field in fields:
        name, _, value = field.partition("=")
        config[name] = json.loads(value)
    launch(parts.interaction, parts.models, parts.data, parts.trainers, config)
    print("returned", flush=True)

"""Launches the small agent under a limit of descriptors: ``run_limited.py LIMIT LEAK CONFIG``; see :data:`LEAKS`.

It tells on stdout that it acts, after ten steps, and that nothing is left, after it has leaked what there was.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import threading
import time
from pathlib import Path

from statevault.launcher import launch
from tests.launcher.agent import Parts

LEAKS = ("none", "all", "on", "save")
"""Nothing; all at once, in a step; and so on, in a thread; or one with each save of a component."""

_leaked: list[int] = []


def leak() -> bool:
    """Open a file for ever; returns whether that was possible."""
    try:
        _leaked.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def leak_on() -> None:
    """Leak for as long as the process lives."""
    while True:
        leak()
        time.sleep(0.005)


def main(limit: int, how: str, config: dict[str, object]) -> None:
    """Run an agent."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    logging.basicConfig(level=logging.INFO)
    parts = Parts()
    step, save = parts.agent.step, parts.agent.save_state

    def stepping(observation: float) -> float:
        if parts.agent.steps == 10:
            print("acting", flush=True)
            if how != "none":
                while leak():
                    pass
                print("leaked", len(_leaked), flush=True)
            if how == "on":
                threading.Thread(target=leak_on, daemon=True).start()
        return step(observation)

    def saving(path: Path) -> None:
        if how == "save":
            _leaked.append(os.open(os.devnull, os.O_RDONLY))
        save(path)

    parts.agent.step = stepping  # type: ignore[method-assign]
    parts.agent.save_state = saving  # type: ignore[method-assign]
    launch(parts.interaction, parts.models, parts.data, parts.trainers, config)
    print("returned", parts.agent.steps, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))

"""Launches the small agent in a thread that outlives the main thread: ``run_late.py WHEN STATES_DIR``.

WHEN is ``late``, when the main thread has ended; ``early``, just before; or ``no-threads``: early, and no thread can be
started any more once it acts, as in Python 3.12 and later.
"""

from __future__ import annotations

import sys
import threading

from statevault.launcher import launch
from statevault.state_persistence import LatestStatesKeeper
from tests.launcher.agent import Parts

when, states_dir = sys.argv[1:]
has_begun = threading.Event()


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


def run() -> None:
    if when == "late":
        threading.main_thread().join()
    parts = Parts()
    step = parts.agent.step

    def telling(observation: float) -> float:
        has_begun.set()
        if when != "late":
            threading.main_thread().join()
        return step(observation)

    parts.agent.step = telling  # type: ignore[method-assign]
    launch(
        parts.interaction,
        parts.models,
        parts.data,
        parts.trainers,
        {
            "states_dir": states_dir,
            "max_uptime": 2.0,
            "web_api_address": None,
            "save_state_interval": 0.1,
            "states_keeper": LatestStatesKeeper(states_dir, 2),
        },
    )
    print("returned", parts.agent.steps, flush=True)


if __name__ == "__main__":
    threading.Thread(target=run).start()
    if when != "late":
        has_begun.wait()
    if when == "no-threads":
        threading.Thread.start = no_thread  # type: ignore[method-assign]

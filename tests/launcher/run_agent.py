"""Launches the small agent in a process of its own: ``run_agent.py STATES_DIR [hang]``, after ten steps for ever."""

from __future__ import annotations

import sys
import threading

from statevault.launcher import launch
from tests.launcher.agent import Parts

if __name__ == "__main__":
    parts = Parts()
    step = parts.agent.step

    def telling(observation: float) -> float:
        if parts.agent.steps == 10:
            print("acting", flush=True)
            if "hang" in sys.argv:
                threading.Event().wait()
        return step(observation)

    parts.agent.step = telling  # type: ignore[method-assign]
    launch(
        parts.interaction,
        parts.models,
        parts.data,
        parts.trainers,
        {"states_dir": sys.argv[1], "max_uptime": 60.0, "web_api_address": None},
    )
    print("returned", parts.agent.steps, flush=True)

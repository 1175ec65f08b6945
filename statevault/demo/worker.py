"""The process that learns: ``python -m statevault.demo.worker '{"states": …}'``.

It runs the agent through ``launch`` until SIGTERM (or SIGKILL), and tells on stdout, a JSON object a line, how it goes:
``{"event": "started" | "resumed" | "progress", …}``.
"""

from __future__ import annotations

import json
import logging
import sys
import time as real_time
from typing import Any

import gymnasium
import numpy as np
import torch
from typing_extensions import override

from statevault import time
from statevault.demo.learner import CartPoleAgent, DqnTrainer, make_buffer, make_models
from statevault.gym import GymEnvironment
from statevault.interaction import FixedIntervalInteraction
from statevault.launcher import launch

__all__ = ["main"]

_STEPS_PER_SECOND = 50  # CartPole's own
_TIME_SCALE = 6.0  # the agent's clock runs faster than ours, so that it learns while we watch
_PROGRESS_EVERY_S = 0.2


class TellingAgent(CartPoleAgent):
    """Tells how it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer: DqnTrainer | None = None
        self._told_at = 0.0

    @override
    def setup(self) -> None:
        super().setup()
        trainer = self.trainer
        if trainer is None or trainer.saved_fingerprint is None:
            tell("started")
        else:
            tell("resumed", saved=trainer.saved_fingerprint, loaded=trainer.loaded_fingerprint, **self._progress())

    @override
    def step(self, observation: Any) -> Any:
        now = real_time.monotonic()
        if now - self._told_at >= _PROGRESS_EVERY_S:
            self._told_at = now
            tell("progress", **self._progress())
        return super().step(observation)

    def _progress(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "episodes": self.episodes,
            "reward": self.recent_return,
            "updates": 0 if self.trainer is None else self.trainer.updates,
            "clock": time.time(),
        }


def tell(event: str, **fields: Any) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **fields}), flush=True)  # noqa: T201 - stdout is the interface


def main(arguments: dict[str, Any]) -> None:
    """Learn until told to stop.

    Args:
        arguments: ``states``: the store; ``storage_options``; ``save_every``: seconds between saves; ``keep``: how many
            states.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # The other core is for the acting loop.
    torch.set_num_threads(1)
    np.seterr(all="raise")
    agent = TellingAgent()
    agent.trainer = DqnTrainer(agent)
    environment: GymEnvironment[Any, int] = GymEnvironment(gymnasium.make("CartPole-v1"))
    launch(
        FixedIntervalInteraction.with_sleep_adjustor(agent, environment, 1 / _STEPS_PER_SECOND),
        models=make_models(),
        buffers={"experience": make_buffer()},
        trainers={"dqn": agent.trainer},
        config={
            "states_dir": arguments["states"],
            "storage_options": arguments["storage_options"],
            "saved_state_path": "latest",
            "save_state_interval": arguments["save_every"],
            "max_keep_states": arguments["keep"],
            "state_metadata": lambda: {"step": agent.steps, "reward": round(agent.recent_return, 1)},
            "time_scale": _TIME_SCALE,
            "web_api_address": None,
        },
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

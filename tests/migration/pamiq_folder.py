"""Writes a state's folder with the names and the kinds of files that PAMIQ-Core 0.6 writes.

With pickle and torch alone: nothing of statevault takes part.
"""

from __future__ import annotations

import pickle
from collections import deque
from pathlib import Path
from typing import Any

import torch

NOW = 1_700_000_000.0
SAMPLES = [{"observation": torch.full((4,), float(i)), "action": i} for i in range(5)]
TIMESTAMPS = [NOW + i for i in range(5)]


def write_folder(path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Write the state of an agent with one model, one buffer of dicts and one trainer.

    Returns:
        `path`.
    """
    agent, environment = path / "interaction" / "agent", path / "interaction" / "environment"
    agent.mkdir(parents=True)
    environment.mkdir()
    (agent / "episode_stats.txt").write_text("steps: 41\n")
    _pickle({"level": 3}, environment / "world.pkl")
    (path / "models").mkdir()
    torch.save(module.state_dict(), path / "models" / "policy.pt")
    user = path / "data" / "experience"
    user.mkdir(parents=True)
    _pickle(deque(SAMPLES, maxlen=100), user / "buffer.pkl")
    _pickle(deque(TIMESTAMPS, maxlen=100), user / "timestamps.pkl")
    trainer = path / "trainers" / "learner"
    trainer.mkdir(parents=True)
    (trainer / "previous_training_time").write_text(str(NOW + 2.5), encoding="utf-8")
    torch.save(optimizer.state_dict(), trainer / "adam.optim.pt")
    shown = {"scaled_anchor_time": NOW, "scaled_anchor_monotonic": 50.0, "scaled_anchor_perf_counter": 60.0}
    _pickle(shown, path / "time.pkl")
    return path


def _pickle(obj: Any, path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(obj, file)

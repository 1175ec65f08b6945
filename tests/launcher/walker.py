"""A system that runs for long: two child agents, two buffers, two trainers, and in each part a look at the clock."""

from __future__ import annotations

import threading
import time as system_time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from statevault import time
from statevault.data import DataBuffer
from statevault.data.impls import RandomReplacementBuffer, SequentialBuffer
from statevault.interaction import Agent, Environment, FixedIntervalInteraction
from statevault.state_persistence import read_tree, write_tree
from statevault.torch import TorchTrainer, TorchTrainingModel
from statevault.trainer import Trainer

__all__ = ["STEP_S", "TrainerCrashError", "WalkerSystem"]

STEP_S = 1.0  # agent seconds
WIDTH = 192  # with its optimizer's moments, the model makes a state of half a megabyte
FIELDS = ("observation", "action")


class TrainerCrashError(Exception):
    """What the training raises when it is told to."""


class Stamped:
    """Counts its uses, and saves the count with the agent's time; neither may ever go back.

    Attributes:
        count: How often it was used, over all runs.
        loaded: The count that it has loaded; None before.
    """

    count = 0
    loaded: int | None = None
    _seen_at = -1.0

    def note_use(self) -> None:
        """Count a use."""
        now = time.time()
        assert not time.is_paused(), f"{type(self).__name__} is used while the system is paused"
        assert now >= self._seen_at, f"the clock went back from {self._seen_at} to {now}"
        self.count, self._seen_at = self.count + 1, now

    def save_state(self, path: Path) -> None:
        super().save_state(path)  # type: ignore[misc]
        path.mkdir(parents=True, exist_ok=True)
        write_tree({"count": self.count, "time": time.time()}, path / "stamp.tree")

    def load_state(self, path: Path) -> None:
        super().load_state(path)  # type: ignore[misc]
        stamp = read_tree(path / "stamp.tree")
        self.count = self.loaded = stamp["count"]
        self._seen_at = stamp["time"]


class Path2d(Stamped, Environment[torch.Tensor, torch.Tensor]):
    """Where the walker is."""

    def __init__(self) -> None:
        self.position = torch.zeros(WIDTH)

    @override
    def observe(self) -> torch.Tensor:
        return self.position.clone()

    @override
    def affect(self, action: torch.Tensor) -> None:
        self.note_use()
        self.position = 0.9 * self.position + 0.1 * torch.tanh(action) + 0.01 * torch.randn(WIDTH)


class Leg(Stamped, Agent[torch.Tensor, torch.Tensor]):
    """A child agent: it has a collector of its own."""

    def __init__(self, buffer: str) -> None:
        super().__init__()
        self.buffer = buffer

    @override
    def on_inference_models_attached(self) -> None:
        self.infer = self.get_inference_model("gait")

    @override
    def on_data_collectors_attached(self) -> None:
        self.experience = self.get_data_collector(self.buffer)

    @override
    def step(self, observation: torch.Tensor) -> torch.Tensor:
        self.note_use()
        action: torch.Tensor = self.infer(observation).clone()
        self.experience.collect({"observation": observation, "action": action})
        return action


class Walker(Stamped, Agent[torch.Tensor, torch.Tensor]):
    """Walks with both legs.

    Attributes:
        set_up_at: The agent's time when the run began to act; None before.
        set_up_at_real: The same on :func:`time.perf_counter`.
    """

    def __init__(self) -> None:
        self.legs = {"left": Leg("recent"), "right": Leg("sampled")}
        super().__init__(agents=self.legs)
        self.set_up_at: float | None = None
        self.set_up_at_real = 0.0

    @override
    def setup(self) -> None:
        super().setup()
        self.set_up_at, self.set_up_at_real = time.time(), system_time.perf_counter()

    @override
    def step(self, observation: torch.Tensor) -> torch.Tensor:
        self.note_use()
        left, right = (leg.step(observation) for leg in self.legs.values())
        return left + right


class GaitTrainer(Stamped, TorchTrainer):
    """Learns the gait by gradients."""

    def __init__(self) -> None:
        super().__init__("sampled", min_buffer_size=8, min_new_data_count=4)

    @override
    def on_training_models_attached(self) -> None:
        self.gait = self.get_torch_training_model("gait")

    @override
    def on_data_users_attached(self) -> None:
        self.experience = self.get_data_user("sampled")

    @override
    def create_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"adam": torch.optim.Adam(self.gait.model.parameters(), lr=1e-3)}

    @override
    def train(self) -> None:
        self.note_use()
        batch = self.experience.sample(8)
        loss = (self.gait(batch["observation"]) - 0.9 * batch["action"]).square().mean()
        self.optimizers["adam"].zero_grad()
        loss.backward()
        self.optimizers["adam"].step()


class MeanTrainer(Stamped, Trainer):
    """Learns nothing but how often it ran; crashes when it is told to."""

    def __init__(self, crash: threading.Event) -> None:
        super().__init__("recent", min_buffer_size=1, min_new_data_count=1)
        self.crash = crash

    @override
    def on_data_users_attached(self) -> None:
        self.experience = self.get_data_user("recent")

    @override
    def train(self) -> None:
        self.note_use()
        if self.crash.is_set():
            self.crash.clear()
            raise TrainerCrashError(f"run {self.count} of the trainer fell over")
        assert len(self.experience.get_data()["action"]) <= 64


class WalkerSystem:
    """What launch takes, made anew for each launch.

    Args:
        crash: Makes a trainer raise :class:`TrainerCrashError` at its next run.
    """

    def __init__(self, crash: threading.Event) -> None:
        self.walker = Walker()
        self.environment = Path2d()
        self.models = {"gait": TorchTrainingModel[nn.Module](nn.Linear(WIDTH, WIDTH))}
        self.data: dict[str, DataBuffer[Any, Any]] = {
            "recent": SequentialBuffer(FIELDS, 64),
            "sampled": RandomReplacementBuffer(FIELDS, 64),
        }
        self.trainers: Mapping[str, Trainer] = {"gait": GaitTrainer(), "mean": MeanTrainer(crash)}

    @property
    def interaction(self) -> FixedIntervalInteraction[torch.Tensor, torch.Tensor]:
        """A step each agent second."""
        return FixedIntervalInteraction.with_sleep_adjustor(self.walker, self.environment, STEP_S)

    def parts(self) -> dict[str, Stamped]:
        """All parts that count, by their folder in a state."""
        return {
            "interaction/agent": self.walker,
            **{f"interaction/agent/{name}": leg for name, leg in self.walker.legs.items()},
            "interaction/environment": self.environment,
            **{f"trainers/{name}": part for name, part in self.trainers.items() if isinstance(part, Stamped)},
        }

    def counts(self) -> dict[str, int]:
        """How often each part was used, over all runs."""
        return {name: part.count for name, part in self.parts().items()}

    def metadata(self) -> dict[str, Any]:
        """What is to be kept with a state: the counts and the time of its cut."""
        return {"counts": self.counts(), "time": time.time()}

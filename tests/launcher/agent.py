"""A small learning agent: guesses a number, collects its guesses, trains on them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from statevault.data import DataBuffer, DataUser
from statevault.data.impls import SequentialBuffer
from statevault.interaction import Agent, Environment, Interaction
from statevault.model import InferenceModel, TrainingModel
from statevault.trainer import Trainer


class Guess(InferenceModel):
    def __init__(self) -> None:
        self.value = 0.0

    def infer(self) -> float:
        return self.value


class Guesser(TrainingModel[Guess]):
    def __init__(self) -> None:
        super().__init__()
        self.value = 0.0

    def _create_inference_model(self) -> Guess:
        return Guess()

    def forward(self) -> float:
        return self.value

    def sync_impl(self, inference_model: Guess) -> None:
        inference_model.value = self.value

    def save_state(self, path: Path) -> None:
        path.with_suffix(".txt").write_text(repr(self.value))

    def load_state(self, path: Path) -> None:
        self.value = float(path.with_suffix(".txt").read_text())


class Player(Agent[float, float]):
    """Acts on its model's guess; as an agent's author would write it."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.steps = 0
        self.fail_at = fail_at
        self.broken_pen = False

    def on_inference_models_attached(self) -> None:
        self.guess = self.get_inference_model("guesser")

    def on_data_collectors_attached(self) -> None:
        self.experience = self.get_data_collector("experience")

    def step(self, observation: float) -> float:
        self.steps += 1
        if self.steps == self.fail_at:
            raise ZeroDivisionError("the player fell over")
        action: float = self.guess()
        self.experience.collect({"observation": observation, "action": action})
        time.sleep(0.001)
        return action

    def save_state(self, path: Path) -> None:
        super().save_state(path)
        if self.broken_pen:
            raise OSError("the pen is broken")
        path.mkdir(exist_ok=True)
        with open(path / "steps.txt", "w") as f:  # noqa: PTH123 - as the manual has it
            f.write(f"steps: {self.steps}\n")

    def load_state(self, path: Path) -> None:
        super().load_state(path)
        self.steps = int((path / "steps.txt").read_text().split(": ")[1])


class Target(Environment[float, float]):
    """Shows how far the last action was from the number."""

    def __init__(self) -> None:
        self.distance = 1.0

    def observe(self) -> float:
        return self.distance

    def affect(self, action: float) -> None:
        self.distance = 1.0 - action


class Learner(Trainer):
    """Moves the guess by what was observed."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__("experience", min_buffer_size=2, min_new_data_count=1)
        self.runs = 0
        self.fail_at = fail_at

    def on_training_models_attached(self) -> None:
        self.guesser: Guesser = self.get_training_model("guesser")

    def on_data_users_attached(self) -> None:
        self.data: DataUser[Any] = self.get_data_user("experience")

    def train(self) -> None:
        self.runs += 1
        if self.runs == self.fail_at:
            raise ValueError("the learner gave up")
        data = self.data.get_data()
        self.guesser.value += 0.1 * float(data["observation"][-1])


class Parts:
    """What launch takes, made anew for each launch."""

    def __init__(self, *, agent_fails_at: int | None = None, trainer_fails_at: int | None = None) -> None:
        self.agent = Player(agent_fails_at)
        self.interaction = Interaction(self.agent, Target())
        self.guesser = Guesser()
        self.models: dict[str, TrainingModel[Any]] = {"guesser": self.guesser}
        self.data: dict[str, DataBuffer[Any, Any]] = {
            "experience": SequentialBuffer(["observation", "action"], max_size=100)
        }
        self.learner = Learner(trainer_fails_at)
        self.trainers: dict[str, Trainer] = {"learner": self.learner}

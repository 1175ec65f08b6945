"""A deterministic run that was interrupted goes on exactly as the one that was not."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typing_extensions import override

from statevault.data import DataUsersDict
from statevault.data.impls import RandomReplacementBuffer
from statevault.errors import FormatError
from statevault.interaction import Agent, Environment, Interaction
from statevault.launcher import LaunchConfig, launch
from statevault.model import TrainingModelsDict
from statevault.state_persistence import RandomGenerators, StateStore, read_tree, write_tree
from statevault.time import TimeController, get_global_time_controller
from statevault.torch import TorchAgent, TorchTrainer, TorchTrainingModel
from statevault.trainer import TrainersDict

STEPS = 60
TRAIN_EVERY = 5


class Noisy(Environment[torch.Tensor, torch.Tensor]):
    """A state that the actions and the noise of all generators move."""

    def __init__(self) -> None:
        self.position = torch.zeros(3)

    @override
    def observe(self) -> torch.Tensor:
        return self.position.clone()

    @override
    def affect(self, action: torch.Tensor) -> None:
        noise = torch.tensor([random.gauss(0, 1), float(np.random.standard_normal()), float(torch.randn(()))])
        self.position = 0.9 * self.position + action + 0.1 * noise

    @override
    def save_state(self, path: Path) -> None:
        write_tree(self.position, path)

    @override
    def load_state(self, path: Path) -> None:
        self.position = read_tree(path)


class Explorer(TorchAgent[torch.Tensor, torch.Tensor]):
    """Acts at random around its policy."""

    @override
    def on_inference_models_attached(self) -> None:
        self.policy = self.get_torch_inference_model("policy")

    @override
    def on_data_collectors_attached(self) -> None:
        self.collector = self.get_data_collector("experience")

    @override
    def step(self, observation: torch.Tensor) -> torch.Tensor:
        action: torch.Tensor = self.policy(observation).clone() + 0.1 * torch.randn(3)
        self.collector.collect({"observation": observation, "action": action})
        return action


class Regression(TorchTrainer):
    """With momentum, dropout, a schedule, and batches drawn at random: all that has a state."""

    def __init__(self) -> None:
        super().__init__("experience", min_buffer_size=8, min_new_data_count=1)
        self.losses: list[float] = []

    @override
    def on_training_models_attached(self) -> None:
        self.policy = self.get_torch_training_model("policy")

    @override
    def on_data_users_attached(self) -> None:
        self.experience = self.get_data_user("experience")

    @override
    def create_optimizers(self) -> Any:
        adam = torch.optim.Adam(self.policy.model.parameters(), lr=0.05)
        return {"adam": adam}, {"decay": torch.optim.lr_scheduler.StepLR(adam, step_size=2, gamma=0.7)}

    @override
    def train(self) -> None:
        batch = self.experience.sample(8)
        loss = (self.policy(batch["observation"]) + batch["action"]).square().mean()
        self.optimizers["adam"].zero_grad()
        loss.backward()
        self.optimizers["adam"].step()
        self.lr_schedulers["decay"].step()
        self.losses.append(float(loss.detach()))


class Run:
    """An agent that acts and trains on a fixed schedule, with a store of all that `launch` saves."""

    def __init__(self, root: Path) -> None:
        self.environment, self.trainer = Noisy(), Regression()
        net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3))
        models = TrainingModelsDict({"policy": TorchTrainingModel(net)})
        users = DataUsersDict.from_data_buffers(
            {"experience": RandomReplacementBuffer(["observation", "action"], 16, replace_probability=0.7)}
        )
        agent = Explorer()
        agent.attach_inference_models(models.inference_models_dict)
        agent.attach_data_collectors(users.data_collectors_dict)
        trainers = TrainersDict({"regression": self.trainer})
        trainers.attach_training_models(models)
        trainers.attach_data_users(users)
        self.interaction = Interaction(agent, self.environment)
        self.store = StateStore(root)
        self.store.register("interaction", self.interaction)
        self.store.register("models", models)
        self.store.register("data", users)
        self.store.register("trainers", trainers)
        self.store.register("time", get_global_time_controller())
        self.store.register("rng", RandomGenerators())
        self.net = net

    def go(self, begin: int, end: int) -> list[tuple[list[float], list[float]]]:
        """Take steps, and return what can be seen after each: the position, and the losses so far of this run."""
        seen = []
        for step in range(begin, end):
            self.interaction.step()
            if step % TRAIN_EVERY == TRAIN_EVERY - 1:
                self.trainer.run()
            seen.append((self.environment.position.tolist(), self.trainer.losses[-1:]))
        return seen


def scramble(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("interrupted_at", [3, 12, 35])
def test_a_resumed_run_equals_the_uninterrupted_one_step_by_step(interrupted_at: int, tmp_path: Path) -> None:
    scramble(1)
    run = Run(tmp_path)
    run.go(0, interrupted_at)
    run.store.save_state()
    expected = run.go(interrupted_at, STEPS)
    assert len({tuple(position) for position, _ in expected}) == len(expected)

    scramble(2)  # another process has other generators, and other weights
    resumed = Run(tmp_path)
    resumed.store.load_state("latest")
    seen = resumed.go(interrupted_at, STEPS)
    # From the first training after the interruption on: the losses before are not part of the state.
    trained = next(i for i in range(len(seen)) if seen[i][1])
    assert [position for position, _ in seen] == [position for position, _ in expected]
    assert seen[trained:] == expected[trained:]
    for name, value in run.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def test_without_the_generators_a_resumed_run_differs(tmp_path: Path) -> None:
    scramble(1)
    run = Run(tmp_path)
    run.go(0, 12)
    run.store.save_state()
    expected = run.go(12, STEPS)
    scramble(2)
    resumed = Run(tmp_path)
    resumed.store.load_state("latest", components=["interaction", "models", "data", "trainers", "time"])
    assert resumed.go(12, STEPS) != expected


class Dice(Agent[int, float]):
    """Throws a die in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.throws: list[float] = []

    @override
    def step(self, observation: int) -> float:
        self.throws.append(random.random())
        return self.throws[-1]


class Table(Environment[int, float]):
    @override
    def observe(self) -> int:
        return 0

    @override
    def affect(self, action: float) -> None:
        pass


def play(root: Path, **config: Any) -> list[float]:
    dice = Dice()
    # A server would draw from the generators, too.
    fixed: dict[str, Any] = {"states_dir": root, "max_uptime": 0.05, "web_api_address": None}
    launch(Interaction(dice, Table()), config=LaunchConfig(**fixed, **config))
    assert dice.throws
    return dice.throws


def test_a_launch_saves_the_generators_and_goes_on_with_them(tmp_path: Path) -> None:
    random.seed(1)
    first = play(tmp_path)
    random.seed(2)
    second = play(tmp_path, saved_state_path="latest")
    random.seed(1)
    expected = [random.random() for _ in range(len(first) + len(second))]
    assert first + second == expected


def test_a_launch_can_leave_the_generators_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    play(tmp_path, save_rng_state=False)
    with StateStore(tmp_path) as store:
        assert "rng" not in store.info().components
    random.seed(2)
    throws = play(tmp_path, saved_state_path="latest")
    random.seed(2)
    assert throws[0] == random.random()
    assert next(record.message for record in caplog.records if record.levelno == logging.WARNING).endswith(": rng")
    play(tmp_path, saved_state_path="latest", save_rng_state=False)  # a state with generators, which are not used


def test_a_model_whose_shape_has_changed_is_named_by_the_store(tmp_path: Path) -> None:
    def store(width: int) -> StateStore:
        made = StateStore(tmp_path)
        made.register("time", TimeController())
        made.register("models", TrainingModelsDict({"policy": TorchTrainingModel(torch.nn.Linear(width, 2))}))
        return made

    with store(4) as saving:
        saving.save_state()
    with store(5) as loading, pytest.raises(FormatError, match=r"weight has the shape \(2, 4\), the module's") as info:
        loading.load_state()
    assert "policy" in str(info.value)
    assert any("'models'" in note for note in info.value.__notes__)

"""A system of many parts: 3 child agents, an environment of 4 sensors and 2 actuators, 2 models, 2 trainers, on S3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typing_extensions import override

from statevault.data.impls import DictSequentialBuffer
from statevault.interaction import Agent, FixedIntervalInteraction
from statevault.interaction.modular_env import Actuator, ModularEnvironment, Sensor
from statevault.launcher import launch
from statevault.state_persistence import StateStore, read_tree, write_tree
from statevault.torch import TorchTrainer, TorchTrainingModel
from tests.servers import Servers, StorageTarget, target_names

SENSORS = ("camera", "lidar", "touch", "clock")


class Counting:
    """Counts its uses, and keeps the count."""

    count = 0

    def save_state(self, path: Path) -> None:
        super().save_state(path)  # type: ignore[misc]
        path.mkdir(parents=True, exist_ok=True)
        write_tree(self.count, path / "count.tree")

    def load_state(self, path: Path) -> None:
        super().load_state(path)  # type: ignore[misc]
        self.count = read_tree(path / "count.tree")


class Probe(Counting, Sensor[float]):
    @override
    def read(self) -> float:
        self.count += 1
        return float(self.count % 7)


class Motor(Counting, Actuator[float]):
    @override
    def operate(self, action: float) -> None:
        self.count += 1


class Limb(Counting, Agent[float, float]):
    """One of three children; each infers with the model that it is given."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    @override
    def on_inference_models_attached(self) -> None:
        self.infer = self.get_inference_model(self.model)

    @override
    def step(self, observation: float) -> float:
        self.count += 1
        return float(self.infer(torch.tensor([observation])))


class Body(Counting, Agent[Mapping[str, float], Mapping[str, float]]):
    """Asks its children, and collects what they did."""

    def __init__(self) -> None:
        self.limbs = {"left": Limb("policy"), "right": Limb("policy"), "head": Limb("world")}
        super().__init__(agents=self.limbs)

    @override
    def on_data_collectors_attached(self) -> None:
        self.experience = self.get_data_collector("experience")

    @override
    def step(self, observation: Mapping[str, float]) -> Mapping[str, float]:
        self.count += 1
        actions = {name: limb.step(observation["camera"]) for name, limb in self.limbs.items()}
        self.experience.collect({"observation": observation["lidar"], "action": actions["left"]})
        return {"wheels": actions["left"], "gaze": actions["head"]}


class Fitting(TorchTrainer):
    def __init__(self, model: str) -> None:
        super().__init__("experience", min_buffer_size=4, min_new_data_count=1)
        self.name = model

    @override
    def on_training_models_attached(self) -> None:
        self.model = self.get_torch_training_model(self.name).model

    @override
    def on_data_users_attached(self) -> None:
        self.experience = self.get_data_user("experience")

    @override
    def create_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"adam": torch.optim.Adam(self.model.parameters(), lr=0.01)}

    @override
    def train(self) -> None:
        batch = self.experience.sample(4)
        wanted = torch.as_tensor(batch["observation"], dtype=torch.float32).unsqueeze(1)
        loss = (self.model(wanted) - wanted).square().mean()
        self.optimizers["adam"].zero_grad()
        loss.backward()
        self.optimizers["adam"].step()


class System:
    """All parts, new."""

    def __init__(self) -> None:
        self.body = Body()
        self.sensors = {name: Probe() for name in SENSORS}
        self.actuators = {"wheels": Motor(), "gaze": Motor()}
        self.models = {name: TorchTrainingModel[nn.Module](nn.Linear(1, 1)) for name in ("policy", "world")}
        self.trainers = {name: Fitting(name) for name in ("policy", "world")}

    def run(self, target: StorageTarget, **config: Any) -> None:
        environment = ModularEnvironment.from_dict(sensors=self.sensors, actuators=self.actuators)
        launch(
            FixedIntervalInteraction.with_sleep_adjustor(self.body, environment, 0.005),
            models=self.models,
            buffers={"experience": DictSequentialBuffer(["observation", "action"], max_size=200)},
            trainers=self.trainers,
            config={
                "states_dir": target.url,
                "storage_options": dict(target.storage_options),
                "web_api_address": None,
                "max_uptime": 3.0,
                **config,
            },
        )

    def counts(self) -> dict[str, int]:
        parts: dict[str, Counting] = {"body": self.body, **self.body.limbs, **self.sensors, **self.actuators}
        return {name: part.count for name, part in parts.items()}

    def weights(self) -> dict[str, list[float]]:
        return {name: [p.item() for p in model.model.parameters()] for name, model in self.models.items()}


@pytest.mark.parametrize("backend", [name for name in ("local", "juicefs") if name in target_names()])
def test_a_system_of_many_parts_is_saved_and_resumed(backend: str, servers: Servers) -> None:
    target = servers.target(backend)
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])  # the first optimizer of a process imports for seconds
    first = System()
    first.run(target, save_state_interval=0.3)
    assert min(first.counts().values()) > 20
    assert all(trainer.optimizers["adam"].state for trainer in first.trainers.values())
    with StateStore(target.url, storage_options=target.storage_options) as store:
        assert len(store.states()) >= 2
        for info in store.states():
            store.verify(info.name)
        paths = {file.path for file in store.open_state().manifest.files}
    assert {f"interaction/agent/{name}/count.tree" for name in ("left", "right", "head")} <= paths

    second = System()
    second.run(target, saved_state_path="latest", max_uptime=0.0001)
    # It ends at once: what it has is what it loaded, and at most a step more.
    for name, count in first.counts().items():
        assert count <= second.counts()[name] <= count + 2, name
    third = System()
    third.run(target, saved_state_path="latest", save_state_interval=0.3)
    assert min(third.counts().values()) > max(20, min(second.counts().values()))
    assert third.weights() != second.weights()

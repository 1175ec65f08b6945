"""Wiring components in a test, and what stands in for models and buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from statevault.data import DataBuffer
from statevault.interaction import Agent
from statevault.model import InferenceModel, TrainingModel
from statevault.testing import connect_components, create_mock_buffer, create_mock_models
from statevault.trainer import Trainer


class Doubler(Agent[int, int]):
    def on_inference_models_attached(self) -> None:
        self.model = self.get_inference_model("double")

    def on_data_collectors_attached(self) -> None:
        self.collector = self.get_data_collector("seen")

    def step(self, observation: int) -> int:
        self.collector.collect(observation)
        action: int = self.model(observation)
        return action


class Summer(Trainer):
    total = 0

    def on_training_models_attached(self) -> None:
        self.model = self.get_training_model("double")

    def on_data_users_attached(self) -> None:
        self.user = self.get_data_user("seen")

    def train(self) -> None:
        self.total = sum(self.user.get_data())


def test_an_agent_gets_its_model_and_its_collector() -> None:
    training_model, inference_model = create_mock_models()
    inference_model.return_value = 14
    agent = Doubler()
    components = connect_components(agent, buffers={"seen": create_mock_buffer()}, models={"double": training_model})
    assert agent.step(7) == 14
    inference_model.assert_called_once_with(7)
    assert agent.model is components.inference_models["double"] is inference_model
    assert agent.collector is components.data_collectors["seen"]
    assert components.data_users["seen"].get_data() == [7]


@pytest.mark.parametrize("by_name", [False, True])
def test_a_trainer_gets_its_model_and_its_data(by_name: bool) -> None:
    trainer, (model, _) = Summer(), create_mock_models()
    trainers: Any = {"summer": trainer} if by_name else trainer
    components = connect_components(
        trainers=trainers, buffers={"seen": create_mock_buffer(max_queue_size=10)}, models={"double": model}
    )
    for sample in (1, 2, 3):
        components.data_collectors["seen"].collect(sample)
    assert trainer.run()
    assert trainer.total == 6
    assert model.syncs == 1
    assert components.training_models["double"] is model


def test_nothing_at_all_can_be_connected() -> None:
    components = connect_components()
    assert [len(part) for part in components] == [0, 0, 0, 0]


def test_what_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="double"):
        connect_components(Doubler())


def test_mock_models_are_models_and_note_their_calls() -> None:
    training_model, inference_model = create_mock_models()
    assert isinstance(training_model, TrainingModel)
    assert isinstance(inference_model, InferenceModel)
    assert training_model.inference_model is inference_model
    training_model.side_effect = [1, 2]
    assert [training_model("x"), training_model.forward(y=3)] == [1, 2]
    assert training_model.call_count == 2
    training_model.assert_called_with(y=3)
    inference_model.assert_not_called()
    inference_model.infer("z")
    assert inference_model.call_args.args == ("z",)
    with pytest.raises(AssertionError):
        inference_model.assert_called_once_with("other")
    with pytest.raises(AttributeError, match="assert_caled"):
        inference_model.assert_caled()


def test_mock_models_are_configured_as_models_are() -> None:
    alone, _ = create_mock_models(has_inference_model=False)
    assert not alone.has_inference_model
    with pytest.raises(RuntimeError, match="has_inference_model=False"):
        _ = alone.inference_model
    hidden, inference_model = create_mock_models(inference_thread_only=True)
    components = connect_components(models={"hidden": hidden})
    assert components.inference_models["hidden"] is inference_model
    with pytest.raises(KeyError, match="inference thread only"):
        _ = components.training_models["hidden"]


def test_mock_buffers_are_buffers(tmp_path: Path) -> None:
    buffer = create_mock_buffer()
    assert isinstance(buffer, DataBuffer)
    assert buffer.max_queue_size == 1
    assert create_mock_buffer(max_queue_size=100).max_queue_size == 100
    assert create_mock_buffer(None).max_queue_size is None
    buffer.samples = [{"x": 1}, {"x": 2}]
    assert len(buffer) == 2
    assert buffer.get_data() == [{"x": 1}, {"x": 2}]
    buffer.save_state(tmp_path / "buffer")
    assert list(tmp_path.iterdir()) == []

"""Trainers: when they run, what they sync, what they save."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from statevault import time
from statevault.data import DataUsersDict
from statevault.data.impls import SequentialBuffer
from statevault.errors import FormatError, InvalidNameError
from statevault.model import TrainingModelsDict
from statevault.trainer import Trainer, TrainersDict
from tests.model.test_models import TrainedScale


class Recorder(Trainer):
    """Notes what is called, and trains by adding up the data."""

    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        self.calls: list[str] = []

    @override
    def on_training_models_attached(self) -> None:
        self.model = self.get_training_model("scale")

    @override
    def on_data_users_attached(self) -> None:
        self.user = self.get_data_user("numbers")

    @override
    def setup(self) -> None:
        self.calls.append("setup")

    @override
    def train(self) -> None:
        self.calls.append("train")
        self.model.factor = float(sum(self.user.get_data()))

    @override
    def teardown(self) -> None:
        assert self.model.inference_model(1.0) == self.model(1.0)
        self.calls.append("teardown")

    @override
    def on_paused(self) -> None:
        self.calls.append("paused")

    @override
    def on_resumed(self) -> None:
        self.calls.append("resumed")


def attach(trainer: Trainer | TrainersDict) -> tuple[Any, DataUsersDict]:
    models = TrainingModelsDict(scale=TrainedScale(), other=TrainedScale())
    users = DataUsersDict.from_data_buffers(numbers=SequentialBuffer(100))
    trainer.attach_training_models(models)
    trainer.attach_data_users(users)
    return models, users


def test_a_run_sets_up_trains_syncs_and_tears_down() -> None:
    trainer = Recorder()
    models, users = attach(trainer)
    users["numbers"].collector.collect(5)
    assert trainer.run() is True
    assert trainer.calls == ["setup", "train", "teardown"]
    assert models["scale"].inference_model(1.0) == 5.0


def test_only_models_that_the_trainer_got_are_synced() -> None:
    trainer = Recorder()
    models, _ = attach(trainer)
    models["other"].factor = 9.0
    trainer.run()
    assert models["other"].inference_model(1.0) == 1.0


def test_a_run_waits_for_enough_data() -> None:
    trainer = Recorder("numbers", min_buffer_size=3)
    _, users = attach(trainer)
    for i in range(3):
        assert trainer.run() is False
        users["numbers"].collector.collect(i)
    assert trainer.calls == []
    assert trainer.run() is True
    # Enough is there from now on.
    assert trainer.run() is True


def test_a_run_waits_for_enough_new_data() -> None:
    trainer = Recorder("numbers", min_new_data_count=2)
    _, users = attach(trainer)
    collector = users["numbers"].collector
    collector.collect(1)
    assert trainer.run() is False
    collector.collect(2)
    assert trainer.run() is True
    began = time.time()
    while time.time() <= began:
        pass
    collector.collect(3)
    assert trainer.run() is False
    collector.collect(4)
    assert trainer.run() is True


def test_a_failed_condition_of_a_subclass_uses_up_no_new_data() -> None:
    class Hesitant(Recorder):
        willing = False

        @override
        def is_trainable(self) -> bool:
            return super().is_trainable() and self.willing

    trainer = Hesitant("numbers", min_new_data_count=1)
    _, users = attach(trainer)
    users["numbers"].collector.collect(1)
    assert trainer.run() is False
    trainer.willing = True
    assert trainer.run() is True


@pytest.mark.parametrize("arguments", [{"min_buffer_size": 1}, {"min_new_data_count": 1}, {"min_buffer_size": -1}])
def test_conditions_that_can_not_be_meant_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="min_buffer_size"):
        Recorder(**arguments)


def test_what_is_not_attached_or_not_there_is_said() -> None:
    trainer = Recorder("nothing")
    with pytest.raises(RuntimeError, match="on_training_models_attached"):
        trainer.get_training_model("scale")
    with pytest.raises(RuntimeError, match="on_data_users_attached"):
        trainer.is_trainable()
    attach(trainer)
    with pytest.raises(KeyError, match=r"no data user 'nothing'; there are \['numbers'\]"):
        trainer.is_trainable()
    with pytest.raises(KeyError, match="no model 'x'"):
        trainer.get_training_model("x")


def test_the_time_of_the_previous_run_is_kept(tmp_path: Path) -> None:
    trainer = Recorder("numbers", min_new_data_count=1)
    _, users = attach(trainer)
    trainer.save_state(tmp_path / "fresh")
    assert (tmp_path / "fresh" / "previous_training_time").read_text() == "-inf"
    users["numbers"].collector.collect(1)
    before = time.time()
    assert trainer.run() is True
    trainer.save_state(tmp_path / "trained")

    loaded = Recorder("numbers", min_new_data_count=1)
    loaded.load_state(tmp_path / "trained")
    assert before <= loaded._previous_training_time <= time.time()
    loaded.load_state(tmp_path / "fresh")
    assert loaded._previous_training_time == -math.inf


def test_a_trainer_that_is_loaded_without_the_clock_goes_on_training(tmp_path: Path) -> None:
    (tmp_path / "previous_training_time").write_text(repr(time.time() + 1e6))
    trainer = Recorder("numbers", min_new_data_count=2)
    _, users = attach(trainer)
    trainer.load_state(tmp_path)
    assert trainer.run() is False
    for number in range(2):
        users["numbers"].collector.collect(number)
    assert trainer.run() is True


def test_a_damaged_time_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "previous_training_time").write_text("yesterday")
    with pytest.raises(FormatError, match="yesterday"):
        Recorder().load_state(tmp_path / "t")


class TestTrainersDict:
    def test_everything_reaches_all_trainers_in_their_order(self) -> None:
        recorders = {"b": Recorder(), "a": Recorder()}
        trainers = TrainersDict(recorders)
        attach(trainers)
        assert list(trainers) == ["b", "a"]
        trainers.on_paused()
        trainers.on_resumed()
        assert [t.calls for t in recorders.values()] == [["paused", "resumed"]] * 2
        assert all(t.run() for t in trainers.values())

    def test_all_trainers_are_saved_and_loaded(self, tmp_path: Path) -> None:
        trainers = TrainersDict(a=Recorder(), b=Recorder())
        attach(trainers)
        trainers["a"].run()
        trainers.save_state(tmp_path / "trainers")
        loaded = TrainersDict(a=Recorder(), b=Recorder())
        loaded.load_state(tmp_path / "trainers")
        assert loaded["a"]._previous_training_time == trainers["a"]._previous_training_time
        assert loaded["b"]._previous_training_time == -math.inf

    def test_a_trainer_that_the_state_lacks_is_named(self, tmp_path: Path) -> None:
        TrainersDict(a=Recorder()).save_state(tmp_path / "trainers")
        with pytest.raises(FileNotFoundError, match="no trainer 'c'"):
            TrainersDict(c=Recorder()).load_state(tmp_path / "trainers")

    def test_a_name_that_is_no_file_name_is_refused_at_once(self) -> None:
        with pytest.raises(InvalidNameError):
            TrainersDict({"a/b": Recorder()})

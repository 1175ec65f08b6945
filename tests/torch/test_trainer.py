"""Torch trainers: one set of optimizers, which goes on after a restart as if there had been none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from typing_extensions import override

from statevault.errors import FormatError
from statevault.interaction import Agent
from statevault.model import TrainingModelsDict
from statevault.torch import OptimizersSetup, TorchAgent, TorchTrainer, TorchTrainingModel
from tests.model.test_models import TrainedScale

Setup = Callable[[nn.Module], OptimizersSetup]


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))


class Fitter(TorchTrainer):
    """Fits a module to noise from a generator of its own, so that each step is determined."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._setup = setup
        self.created = 0
        self.step = 0

    @override
    def on_training_models_attached(self) -> None:
        self.net = self.get_torch_training_model("net", Net)

    @override
    def create_optimizers(self) -> OptimizersSetup:
        self.created += 1
        return self._setup(self.net.model)

    @override
    def train(self) -> None:
        for _ in range(3):
            self.step += 1
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(self.step))

            def loss(x: torch.Tensor = x) -> torch.Tensor:
                for optimizer in self.optimizers.values():
                    optimizer.zero_grad()
                value: torch.Tensor = self.net(x).square().mean()
                value.backward()  # type: ignore[no-untyped-call]
                return value

            for optimizer in self.optimizers.values():
                optimizer.step(loss)  # type: ignore[arg-type]
            for scheduler in self.lr_schedulers.values():
                if isinstance(scheduler, lrs.ReduceLROnPlateau):
                    scheduler.step(float(x.sum()))
                else:
                    scheduler.step()


def make(setup: Setup, seed: int = 0) -> tuple[Fitter, Any]:
    torch.manual_seed(seed)
    models = TrainingModelsDict(net=TorchTrainingModel(Net()))
    trainer = Fitter(setup)
    trainer.attach_training_models(models)
    return trainer, models


def scheduled(make_scheduler: Callable[[torch.optim.Optimizer], lrs.LRScheduler]) -> Setup:
    def setup(module: nn.Module) -> OptimizersSetup:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        return {"sgd": optimizer}, {"schedule": make_scheduler(optimizer)}

    return setup


def groups(module: nn.Module) -> list[dict[str, Any]]:
    return [
        {"params": module.get_submodule("0").parameters(), "lr": 0.5},
        {"params": module.get_submodule("2").parameters(), "weight_decay": 0.1},
    ]


SETUPS: dict[str, Setup] = {
    "adam": lambda m: {"a": torch.optim.Adam(m.parameters(), lr=1e-2)},
    "adamw-amsgrad": lambda m: {"a": torch.optim.AdamW(m.parameters(), lr=1e-2, amsgrad=True)},
    "adam-tensor-lr": lambda m: {"a": torch.optim.Adam(m.parameters(), lr=torch.tensor(1e-2))},
    "adafactor": lambda m: {"a": torch.optim.Adafactor(m.parameters())},
    "rmsprop": lambda m: {"a": torch.optim.RMSprop(m.parameters(), momentum=0.5, centered=True)},
    "lbfgs": lambda m: {"a": torch.optim.LBFGS(m.parameters(), max_iter=3)},
    "groups": lambda m: {"a": torch.optim.SGD(groups(m), lr=0.1, momentum=0.9)},
    "two": lambda m: {
        "first/half": torch.optim.Adam(m.get_submodule("0").parameters()),
        "second": torch.optim.SGD(m.get_submodule("2").parameters(), lr=0.1),
    },
    "step": scheduled(lambda o: lrs.StepLR(o, 4)),
    "multi-step": scheduled(lambda o: lrs.MultiStepLR(o, [2, 7, 7, 9])),
    "cosine": scheduled(lambda o: lrs.CosineAnnealingLR(o, 20)),
    "warm-restarts": scheduled(lambda o: lrs.CosineAnnealingWarmRestarts(o, 5)),
    "one-cycle": scheduled(lambda o: lrs.OneCycleLR(o, 0.5, total_steps=100)),
    "cyclic": scheduled(lambda o: lrs.CyclicLR(o, 0.01, 0.5, step_size_up=4)),
    "lambda": scheduled(lambda o: lrs.LambdaLR(o, lambda epoch: 0.9**epoch)),
    "plateau": scheduled(lambda o: lrs.ReduceLROnPlateau(o, patience=1)),
    "sequential": scheduled(
        lambda o: lrs.SequentialLR(o, [lrs.ConstantLR(o, 0.1, 3), lrs.ExponentialLR(o, 0.9)], milestones=[5])
    ),
    "chained": scheduled(lambda o: lrs.ChainedScheduler([lrs.ConstantLR(o, 0.1, 3), lrs.ExponentialLR(o, 0.9)], o)),
}


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    else:
        assert one == other, where


@pytest.mark.parametrize("name", sorted(SETUPS))
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_training_goes_on_to_the_last_bit_as_without_a_restart(name: str, existing: bool, tmp_path: Path) -> None:
    trainer, models = make(SETUPS[name], seed=0)
    for _ in range(3):
        trainer.run()
    trainer.save_state(tmp_path / "trainer")
    models.save_state(tmp_path / "models")

    restarted, restarted_models = make(SETUPS[name], seed=1)
    if existing:
        restarted.run()
    restarted.load_state(tmp_path / "trainer")
    restarted_models.load_state(tmp_path / "models")
    restarted.step = trainer.step
    for _ in range(3):
        trainer.run()
        restarted.run()
    assert_equal(
        {n: o.state_dict() for n, o in trainer.optimizers.items()},
        {n: o.state_dict() for n, o in restarted.optimizers.items()},
    )
    for key, schedule in trainer.lr_schedulers.items():
        assert schedule.get_last_lr() == restarted.lr_schedulers[key].get_last_lr()
    assert_equal(dict(models["net"].model.state_dict()), dict(restarted_models["net"].model.state_dict()))


def test_optimizers_are_created_once() -> None:
    trainer, models = make(SETUPS["adam"])
    assert trainer.created == 0
    for _ in range(3):
        trainer.run()
    assert trainer.created == 1
    optimizer = trainer.optimizers["a"]
    trainer.run()
    assert trainer.optimizers["a"] is optimizer
    assert optimizer.param_groups[0]["params"][0] is next(models["net"].model.parameters())


def test_optimizers_without_schedulers_and_with() -> None:
    assert make(SETUPS["adam"])[0].lr_schedulers == {}
    assert list(make(SETUPS["step"])[0].lr_schedulers) == ["schedule"]


def test_optimizers_before_models_say_so() -> None:
    class Early(Fitter):
        @override
        def create_optimizers(self) -> OptimizersSetup:
            return {"a": torch.optim.Adam(self.get_torch_training_model("net").model.parameters())}

    with pytest.raises(RuntimeError, match="on_training_models_attached"):
        _ = Early(SETUPS["adam"]).optimizers


def test_a_trainer_that_never_ran_is_saved_and_loaded(tmp_path: Path) -> None:
    trainer, _ = make(SETUPS["adam"])
    trainer.save_state(tmp_path / "fresh")
    assert [p.name for p in (tmp_path / "fresh").iterdir()] == ["previous_training_time"]
    trainer.run()
    trainer.load_state(tmp_path / "fresh")
    # The momentum of the run is gone, as the state has none.
    assert trainer.optimizers["a"].state_dict()["state"] == {}
    assert trainer.created == 2


def test_a_state_that_no_run_followed_is_saved_as_it_was_loaded(tmp_path: Path) -> None:
    trainer, _ = make(SETUPS["multi-step"])
    trainer.run()
    trainer.save_state(tmp_path / "one")
    idle, _ = make(SETUPS["multi-step"])
    idle.load_state(tmp_path / "one")
    idle.save_state(tmp_path / "two")
    again, _ = make(SETUPS["multi-step"])
    again.load_state(tmp_path / "two")
    assert_equal(again.optimizers["sgd"].state_dict(), trainer.optimizers["sgd"].state_dict())
    assert_equal(again.lr_schedulers["schedule"].state_dict(), trainer.lr_schedulers["schedule"].state_dict())


def test_other_optimizers_than_the_saved_ones_are_refused(tmp_path: Path) -> None:
    trainer, _ = make(SETUPS["adam"])
    trainer.run()
    trainer.save_state(tmp_path / "t")
    other, _ = make(SETUPS["step"])
    other.load_state(tmp_path / "t")
    with pytest.raises(FormatError, match=r"optimizers \['a'\], but create_optimizers\(\) makes \['sgd'\]"):
        other.run()
    grouped, _ = make(SETUPS["groups"])
    _ = grouped.optimizers
    with pytest.raises(FormatError, match="optimizer 'a' does not fit"):
        grouped.load_state(tmp_path / "t")


def test_what_pamiq_core_saved_is_loaded(tmp_path: Path) -> None:
    trainer, _ = make(SETUPS["step"])
    trainer.run()
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / "previous_training_time").write_text("12.5")
    torch.save(trainer.optimizers["sgd"].state_dict(), folder / "sgd.optim.pt")
    torch.save(trainer.lr_schedulers["schedule"].state_dict(), folder / "schedule.lrsch.pt")
    loaded, _ = make(SETUPS["step"])
    loaded.load_state(folder)
    assert loaded._previous_training_time == 12.5
    assert_equal(loaded.optimizers["sgd"].state_dict(), trainer.optimizers["sgd"].state_dict())
    (folder / "sgd.optim.pt").write_bytes((folder / "sgd.optim.pt").read_bytes()[:100])
    with pytest.raises(FormatError, match=r"sgd\.optim\.pt is damaged"):
        loaded.load_state(folder)


def test_models_of_other_kinds_are_refused_by_name() -> None:
    trainer, _ = make(SETUPS["adam"])
    trainer.attach_training_models(TrainingModelsDict(net=TorchTrainingModel(Net()), scale=TrainedScale()))
    with pytest.raises(ValueError, match="'scale' is a TrainedScale"):
        trainer.get_torch_training_model("scale")
    with pytest.raises(TypeError, match="'net' has a Net, not a Linear"):
        trainer.get_torch_training_model("net", nn.Linear)


def test_an_agent_gets_its_models_with_their_types_checked() -> None:
    class Actor(TorchAgent[torch.Tensor, torch.Tensor]):
        @override
        def on_inference_models_attached(self) -> None:
            self.net = self.get_torch_inference_model("net", Net)

        @override
        def step(self, observation: torch.Tensor) -> torch.Tensor:
            action: torch.Tensor = self.net(observation)
            return action

    models = TrainingModelsDict(net=TorchTrainingModel(Net()), scale=TrainedScale())
    agent = Actor()
    assert isinstance(agent, Agent)
    agent.attach_inference_models(models.inference_models_dict)
    assert agent.step(torch.zeros(2, 3)).shape == (2, 1)
    assert agent.get_torch_inference_model("net") is models["net"].inference_model
    with pytest.raises(ValueError, match="'scale' is a Scale"):
        agent.get_torch_inference_model("scale")
    with pytest.raises(TypeError, match="'net' has a Net, not a Linear"):
        agent.get_torch_inference_model("net", nn.Linear)

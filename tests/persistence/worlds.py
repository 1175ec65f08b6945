"""Small policies, worlds of other libraries, and an additional state that tests can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from statevault.persistence import Persistence, PersistEvent, PolicyPersistence, RestoreEvent, World
from statevault.storage import Storage, open_storage
from tests.servers import StorageTarget, target_names

BACKENDS = [name for name in ("local", "memory", "juicefs", "fake-gcs") if name in target_names()]
POLICY, STATE_DICT = PolicyPersistence.Mode.POLICY, PolicyPersistence.Mode.POLICY_STATE_DICT


class Policy(nn.Module):
    """A policy with a parameter, a buffer, and optimizer state in its state dict, as Tianshou's algorithms have it."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.layers = nn.Sequential(nn.Linear(3, 4), self.norm)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        self.set_to(value)

    def set_to(self, value: float) -> None:
        """Make every number in it the same, so that a test can name it."""
        with torch.no_grad():
            for tensor in (*self.parameters(), *(buffer for buffer in self.buffers() if buffer.is_floating_point())):
                tensor.fill_(value)
        for parameter in self.parameters():
            parameter.grad = torch.full_like(parameter, value)
        self.optimizer.state.clear()
        self.optimizer.param_groups[0]["lr"] = 0.0
        self.optimizer.step()

    @override
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state: Any = super().state_dict(*args, **kwargs)
        state["_optimizers"] = [self.optimizer.state_dict()]
        return state

    @override
    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        optimizers = state_dict.pop("_optimizers")
        self.optimizer.load_state_dict(optimizers[0])
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


def value_of(policy: Policy) -> float:
    """The number that everything in a policy is, its optimizer's momentum included."""
    values = {float(value) for tensor in policy.parameters() for value in tensor.detach().flatten()}
    assert policy.norm.running_mean is not None
    values |= {float(value) for value in policy.norm.running_mean}
    (value,) = values
    for state in policy.optimizer.state.values():
        assert torch.allclose(state["exp_avg"], torch.full_like(state["exp_avg"], 0.1 * value))
    return value


class Statistics(Persistence):
    """Additional state: a number, in a file of a sub-folder, written as for a local disk."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    @override
    def persist(self, event: PersistEvent, world: Any) -> None:
        assert event is PersistEvent.PERSIST_POLICY
        folder = os.path.join(str(world.persist_directory), "env")  # noqa: PTH118 - as older code does
        os.makedirs(folder)  # noqa: PTH103
        with open(os.path.join(folder, "statistics.txt"), "w") as file:  # noqa: PTH118, PTH123
            file.write(str(self.value))
        Path(world.persist_path("empty.bin")).touch()

    @override
    def restore(self, event: RestoreEvent, world: Any) -> None:
        assert event is RestoreEvent.RESTORE_POLICY
        assert Path(world.restore_path("empty.bin")).read_bytes() == b""
        with open(world.restore_path("env/statistics.txt")) as file:  # noqa: PTH123
            self.value = float(file.read())


class Trainer:
    """What a world's trainer tells, by Tianshou's names."""

    def __init__(self, score: float | None = None, epoch: int = 0) -> None:
        self._best_score = score
        self._epoch = epoch
        self._env_step = 100 * epoch
        self._current_update_step = 10 * epoch


class ForeignWorld:
    """A world of another library: strings, and a policy."""

    def __init__(self, policy: nn.Module, persist_directory: str, restore_directory: str | None = None) -> None:
        self.policy = policy
        self.persist_directory = persist_directory
        self.restore_directory = restore_directory
        self.trainer: Any = None

    def persist_path(self, filename: str) -> str:
        return os.path.join(self.persist_directory, filename)  # noqa: PTH118

    def restore_path(self, filename: str) -> str:
        if self.restore_directory is None:
            raise ValueError("no restore directory")
        return os.path.join(self.restore_directory, filename)  # noqa: PTH118


def world_in(target: StorageTarget | Path, policy: nn.Module, trainer: Any = None) -> World:
    """A world that saves to, and restores from, the same place."""
    if isinstance(target, Path):
        return World(policy, target, target, trainer=trainer)
    return World(policy, target.url, target.url, storage_options=target.storage_options, trainer=trainer)


def storage_of(target: StorageTarget) -> Storage:
    """The storage at a target."""
    return open_storage(target.url, target.storage_options)

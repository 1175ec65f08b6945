"""The demo's agent: deep Q-learning (Mnih et al., 2015, double DQN of van Hasselt et al., 2016) on CartPole.

Ordinary user code: nothing here knows how or where it is saved, except for the fingerprint that the trainer takes of
everything at each save, so that the process that resumes can compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from typing_extensions import override

from statevault.data import DataUser
from statevault.data.impls import DictSequentialBuffer
from statevault.demo.fingerprint import Fingerprint, of_arrays, of_state_dict, of_values
from statevault.gym import GymAgent
from statevault.state_persistence import read_tree, write_tree
from statevault.torch import TorchTrainer, TorchTrainingModel

__all__ = ["CartPoleAgent", "DqnTrainer", "make_buffer", "make_models"]

Observation = npt.NDArray[np.float32]
FIELDS = ["obs", "action", "reward", "next_obs", "terminated"]

_BATCH = 128
_UPDATES_PER_RUN = 4
_GAMMA = 0.99
_TARGET_RATE = 0.01
_EPSILON_STEPS = 2500
_RECENT = 20


def make_models() -> dict[str, TorchTrainingModel[nn.Module]]:
    """The Q-network that acts, and its slowly following target."""
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    target = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    target.load_state_dict(policy.state_dict())
    return {
        "policy": TorchTrainingModel[nn.Module](policy),
        "target": TorchTrainingModel[nn.Module](target, has_inference_model=False),
    }


def make_buffer() -> DictSequentialBuffer[Any]:
    """The replay buffer."""
    return DictSequentialBuffer(FIELDS, max_size=50_000)


class CartPoleAgent(GymAgent[Observation, int]):
    """Acts epsilon-greedily on the policy's Q-values and collects transitions."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.episodes = 0
        self.returns: list[float] = []
        self._return = 0.0
        self._rng = np.random.default_rng(0)
        self._last: tuple[Observation, int] | None = None
        self.fingerprint: Callable[[], Fingerprint] = dict
        self.saved_fingerprint: Fingerprint | None = None

    @property
    def recent_return(self) -> float:
        """The mean return of the latest episodes, 0 before the first has ended."""
        return float(np.mean(self.returns)) if self.returns else 0.0

    def counters(self) -> dict[str, Any]:
        """Everything that the agent itself remembers."""
        return {
            "steps": self.steps,
            "episodes": self.episodes,
            "returns": list(self.returns),
            "return": self._return,
            "rng": self._rng.bit_generator.state,
            "last": self._last,
        }

    @override
    def on_inference_models_attached(self) -> None:
        self._policy = self.get_inference_model("policy")

    @override
    def on_data_collectors_attached(self) -> None:
        self._experience = self.get_data_collector("experience")

    @override
    def on_reset(self, obs: Observation, info: dict[str, Any]) -> int:
        self._return = 0.0
        return self._act(obs)

    @override
    def on_step(self, obs: Observation, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]) -> int:
        if self._last is not None:
            last_obs, last_action = self._last
            self._experience.collect(
                {
                    "obs": last_obs,
                    "action": last_action,
                    "reward": float(reward),
                    "next_obs": np.asarray(obs, np.float32),
                    "terminated": bool(terminated),
                }
            )
        self.steps += 1
        self._return += float(reward)
        if terminated or truncated:
            self.episodes += 1
            self.returns = [*self.returns, self._return][-_RECENT:]
        return self._act(obs)

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        path.mkdir(exist_ok=True)
        write_tree(self.counters(), path / "counters.tree")
        # Here, and not in the trainer: an agent is saved while everything stands still.
        (path / "fingerprint.json").write_text(json.dumps(self.fingerprint(), indent=1), encoding="ascii")

    @override
    def load_state(self, path: Path) -> None:
        super().load_state(path)
        saved = read_tree(path / "counters.tree")
        self.steps, self.episodes, self.returns = saved["steps"], saved["episodes"], saved["returns"]
        self._return, self._last = saved["return"], saved["last"]
        self._rng.bit_generator.state = saved["rng"]
        self.saved_fingerprint = json.loads((path / "fingerprint.json").read_text(encoding="ascii"))

    def _act(self, obs: Observation) -> int:
        epsilon = max(0.02, 1 - self.steps / _EPSILON_STEPS)
        obs = np.asarray(obs, np.float32)
        if self._rng.random() < epsilon:
            action = int(self._rng.integers(2))
        else:
            action = int(self._policy.infer(torch.from_numpy(obs)).argmax())
        self._last = (obs, action)
        return action


class DqnTrainer(TorchTrainer):
    """Trains the policy on batches out of the replay buffer.

    Attributes:
        updates: How many gradient steps were made.
        saved_fingerprint: What the process that saved the state saw in its memory; None if none was loaded.
        loaded_fingerprint: What this process saw after it had loaded that state.
    """

    def __init__(self, agent: CartPoleAgent) -> None:
        super().__init__("experience", min_buffer_size=500, min_new_data_count=4)
        self.updates = 0
        self.saved_fingerprint: Fingerprint | None = None
        self.loaded_fingerprint: Fingerprint | None = None
        self._agent = agent
        agent.fingerprint = self.fingerprint

    @override
    def on_training_models_attached(self) -> None:
        self._policy = self.get_torch_training_model("policy").model
        self._target = self.get_torch_training_model("target").model

    @override
    def on_data_users_attached(self) -> None:
        self._experience: DataUser[Any] = self.get_data_user("experience")

    @override
    def create_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"adam": torch.optim.Adam(self._policy.parameters(), lr=1e-3)}

    @override
    def train(self) -> None:
        for _ in range(_UPDATES_PER_RUN):
            batch = {name: torch.as_tensor(column) for name, column in self._experience.sample(_BATCH).items()}
            self._update(batch)

    def _update(self, batch: dict[str, torch.Tensor]) -> None:
        chosen = self._policy(batch["obs"]).gather(1, batch["action"].long().unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            best = self._policy(batch["next_obs"]).argmax(1, keepdim=True)
            future = self._target(batch["next_obs"]).gather(1, best).squeeze(1)
            wanted = batch["reward"].float() + _GAMMA * future * (~batch["terminated"].bool())
        loss = nn.functional.smooth_l1_loss(chosen, wanted)
        optimizer = self.optimizers["adam"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._policy.parameters(), 10.0)
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self._target.parameters(), self._policy.parameters(), strict=True):
                slow.lerp_(fast, _TARGET_RATE)
        self.updates += 1

    def fingerprint(self) -> Fingerprint:
        """What lies in memory now, bit by bit, of all that is saved but the clock."""
        data = self._experience.buffer.get_data()
        # What was collected a moment ago waits for the next update of the buffer, and is a part of it in the state.
        waiting = [sample for _, sample in self._experience.collector.waiting()]
        newest = -self._experience.buffer.max_size
        return {
            "weights": of_state_dict({**_prefixed("policy", self._policy), **_prefixed("target", self._target)}),
            "optimizer": of_state_dict(self.optimizers["adam"].state_dict()),
            "replay buffer": of_arrays(
                {name: np.asarray([*data[name], *(sample[name] for sample in waiting)][newest:]) for name in FIELDS}
            ),
            "counters": of_values({**self._agent.counters(), "updates": self.updates}),
        }

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        (path / "updates.txt").write_text(str(self.updates), encoding="ascii")

    @override
    def load_state(self, path: Path) -> None:
        super().load_state(path)
        self.updates = int((path / "updates.txt").read_text(encoding="ascii"))
        # Trainers are loaded after agent, models and data: everything is there, and nothing runs yet.
        self.saved_fingerprint = self._agent.saved_fingerprint
        self.loaded_fingerprint = self.fingerprint()


def _prefixed(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
